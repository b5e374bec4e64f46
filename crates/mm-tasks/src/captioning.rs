//! Captioning: pictures (or whatever an encoder reads) in words, learned from pairs and measured on held-out pictures beside the caption of
//! the nearest training picture.

use crate::{
    Error, Result,
    config::{CommonConfig, TaskConfig, parse_task, to_value},
    metrics::{Cider, Figures, Judges, Synonyms, caption_words, captions, clip_score},
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec, comparison_table},
};
use mm_core::{
    BuildContext, BuiltEncoder, DType, Device, Input, LossOutput, Modality, Params, ProcessContext, Processor,
    Registry, Source, Tensor, TrainingObjective, no_grad, seed::manual_seed,
};
use mm_data::{
    Batch, CachedProcessor, FailedSample, Loader, Manifest, Split, TensorCache, collate, process_catching_panics,
};
use mm_reason::{
    Generation,
    captioner::{BOS, Captioner, CaptionerConfig, EOS},
    generate::{GenerationConfig, LogitsProcessors, generate},
};
use mm_train::{Run, TrainHooks, Trainer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

/// Settings of a captioning and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptioningConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// What is described.
    #[serde(default = "image")]
    pub of: String,
    /// The language of the captions that are learned; all when absent.
    #[serde(default)]
    pub language: Option<String>,
    /// Its encoder, by its `kind`; all of its positions are looked at.
    pub encoder: toml::Value,
    /// The words; those of the training captions that come at least twice when empty.
    #[serde(default)]
    pub vocabulary: Vec<String>,
    /// The network that speaks.
    #[serde(default)]
    pub model: CaptionerConfig,
    /// Share of each word that goes to the others in the loss (label smoothing).
    #[serde(default)]
    pub smoothing: f64,
    /// Share of the given words that are replaced by what the network itself would have said (scheduled sampling, Bengio 2015, in two passes,
    /// Mihaylova 2019).
    #[serde(default)]
    pub sampled: f64,
    /// Weight of self-critical training (Rennie 2017), from 0 to 1: captions that are drawn become likelier as far as their CIDEr-D is above that
    /// of what the network says now. It wants a network that speaks already: `start`.
    #[serde(default)]
    pub self_critical: f64,
    /// A run of the same network whose weights it begins with.
    #[serde(default)]
    pub start: Option<PathBuf>,
    /// Beams of evaluation and of `mm caption`.
    #[serde(default = "three")]
    pub beams: usize,
}

fn image() -> String {
    "image".into()
}

fn three() -> usize {
    3
}

const TARGET: &str = "cider_d";

impl TaskConfig for CaptioningConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }

    fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.smoothing) {
            return Err(Error::Config(format!("smoothing: found {}, wanted a share in [0, 1)", self.smoothing)));
        }
        for (name, share) in [("sampled", self.sampled), ("self_critical", self.self_critical)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::Config(format!("{name}: found {share}, wanted a share from 0 to 1")));
            }
        }
        if self.beams == 0 {
            return Err(Error::Config("beams: found 0, wanted at least 1".into()));
        }
        Ok(())
    }
}

/// Writes the training captions' words into a config that has none.
pub fn resolve(value: &mut toml::Value, base: &Path) -> Result<()> {
    let mut config: CaptioningConfig = parse_task(value)?;
    if !config.vocabulary.is_empty() {
        return Ok(());
    }
    let base = config.common.base_dir_or(base);
    let manifest = open(&config, &base)?;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for row in manifest.rows_in_split(Split::Train) {
        for text in texts(&manifest, row) {
            caption_words(text).into_iter().for_each(|w| *counts.entry(w).or_default() += 1);
        }
    }
    let mut counted: Vec<(String, usize)> = counts.into_iter().filter(|(_, n)| *n > 1).collect();
    if counted.is_empty() {
        return Err(Error::Config(format!(
            "{}: no word comes twice in the training captions; is `data.columns.modalities.text` their column?",
            manifest.path.display()
        )));
    }
    counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    config.vocabulary = counted.into_iter().map(|(w, _)| w).collect();
    *value = to_value(&config)?;
    Ok(())
}

fn texts(manifest: &Manifest, row: usize) -> impl Iterator<Item = &str> {
    let values = manifest.rows[row].values.get(&Modality::TEXT).into_iter().flatten();
    values.filter_map(|v| if let Source::Text(text) = v { Some(text.as_str()) } else { None })
}

fn open(config: &CaptioningConfig, base: &Path) -> Result<Manifest> {
    let mut manifest = Manifest::open(&config.common.data, base)?;
    let of = Modality::from(config.of.as_str());
    for row in &mut manifest.rows {
        if let Some(language) = &config.language {
            row.retain_languages(&Modality::TEXT, std::slice::from_ref(language));
        }
        row.values.retain(|m, values| (*m == of || *m == Modality::TEXT) && !values.is_empty());
    }
    manifest.rows.retain(|r| r.values.contains_key(&of) && r.values.contains_key(&Modality::TEXT));
    if manifest.rows.is_empty() {
        return Err(Error::Config(format!("{}: no row has both {of} and text", manifest.path.display())));
    }
    Ok(manifest)
}

/// A caption → its words' numbers between the begin and the end token.
struct Writer {
    places: HashMap<String, i64>,
    longest: usize,
}

impl Processor for Writer {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let Source::Text(text) = source else {
            return Err(mm_core::Error::Sample(format!("found {source:?}, wanted a caption")));
        };
        let known =
            caption_words(text).into_iter().take(self.longest).map(|w| self.places.get(&w).copied().unwrap_or(1));
        let ids: Vec<i64> = std::iter::once(BOS).chain(known).chain([EOS]).collect();
        Tensor::from_slice(&ids)
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("captions {} {}", self.places.len(), self.longest)
    }
}

/// Most bytes of features that are held while a captioner learns.
const HELD: usize = 2 << 30;

/// Features of a frozen encoder by their sources.
#[derive(Default)]
struct Held {
    features: HashMap<String, Vec<f32>>,
    shape: Vec<i64>,
    problems: HashMap<String, String>,
}

impl Processor for Held {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let name = format!("{source:?}");
        match (self.features.get(&name), self.problems.get(&name)) {
            (Some(values), _) => Tensor::from_vec(values, &self.shape),
            (None, Some(problem)) => Err(mm_core::Error::Sample(problem.clone())),
            (None, None) => Err(mm_core::Error::Sample(format!("{name}: was not seen before"))),
        }
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("held {:?}", self.shape)
    }
}

/// A model that describes.
pub struct Captioning {
    params: Params,
    encoder: BuiltEncoder,
    captioner: Captioner,
    /// Its settings.
    pub config: CaptioningConfig,
    base: PathBuf,
    cache: TensorCache,
    of: Modality,
}

/// Figures of held-out pictures, and of the captions of their nearest training pictures.
#[derive(Debug, Clone, Serialize)]
pub struct CaptionFigures {
    /// The model's.
    pub model: Figures,
    /// Those of the nearest training picture's caption, by the mean of the same features.
    pub nearest: Figures,
    /// Samples that were left out.
    pub broken: Vec<FailedSample>,
    /// Some pictures' ids, with what was said, what the nearest picture's caption says, and what people say.
    pub examples: Vec<(String, String, String, Vec<String>)>,
}

impl Captioning {
    /// Builds the model of a resolved config fresh.
    pub fn new(config: CaptioningConfig, base: &Path, registry: &Registry, device: Device) -> Result<Self> {
        let base = config.common.base_dir_or(base);
        if config.vocabulary.is_empty() {
            return Err(Error::Config("vocabulary: found none, wanted the training captions' words".into()));
        }
        manual_seed(config.common.train.seed);
        let params = Params::new(device);
        let root = params.scope();
        let context = BuildContext { scope: root.pp("encoder"), base_dir: base.clone(), field: "encoder".into() };
        let encoder = registry.build(&config.encoder, &context)?;
        let of = Modality::from(config.of.as_str());
        if encoder.encoder.modality() != of {
            let found = encoder.encoder.modality();
            return Err(Error::Config(format!("encoder: found one of {found}, wanted one of {of} (the field `of`)")));
        }
        let tokens = config.vocabulary.len() as i64 + 4;
        let captioner = Captioner::new(&root.pp("captioner"), encoder.encoder.dim(), tokens, &config.model)?;
        let cache = TensorCache::open_or_default(&base, config.common.cache_dir.as_deref())?;
        if let Some(start) = &config.start {
            Run::load_weights(&base.join(start), &params)?;
        }
        Ok(Self { params, encoder, captioner, config, base, cache, of })
    }

    /// Loads the model of a run folder.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let model = Self::new(context.run_config(run)?, run, context.encoders, context.device)?;
        Run::load_weights(run, &model.params)?;
        Ok(model)
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Its data.
    pub fn manifest(&self) -> Result<Manifest> {
        open(&self.config, &self.base)
    }

    /// Settings of generation that it was made with.
    pub fn generation(&self) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: self.config.model.max_length as usize,
            num_beams: self.config.beams,
            eos_token_id: vec![EOS],
            suppress_tokens: vec![0, 1, BOS],
            ..GenerationConfig::default()
        }
    }

    /// What reads a picture for the network: of a frozen encoder its features, held in memory where all of them fit into [`HELD`] bytes;
    /// else its numbers, which are then encoded batch by batch. Whether they are features comes back.
    fn seeing(
        &self,
        manifest: &Manifest,
        stop: &AtomicBool,
        on_progress: ProgressFn<'_>,
    ) -> Result<(Arc<dyn Processor>, bool)> {
        let processor = &self.encoder.processor;
        let plain = || -> Arc<dyn Processor> { Arc::new(CachedProcessor::new(processor.clone(), self.cache.clone())) };
        if !self.encoder.frozen {
            return Ok((plain(), false));
        }
        // Rows may have several pictures, of which the loader draws.
        let mut sources: Vec<&Source> =
            manifest.rows.iter().flat_map(|r| r.values.get(&self.of).into_iter().flatten()).collect();
        sources.sort_by_key(|s| format!("{s:?}"));
        sources.dedup();
        let mut held = Held::default();
        for (number, chunk) in sources.chunks(32).enumerate() {
            on_progress(&format!("encoding {}", self.of), number * 32, sources.len());
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::Config("stopped before anything was learned".into()));
            }
            let read = |s: &&Source| {
                (format!("{s:?}"), process_catching_panics(processor.as_ref(), s, &mut ProcessContext::eval()))
            };
            let all: Vec<(String, mm_core::Result<Tensor>)> = chunk.par_iter().map(read).collect();
            let (mut names, mut samples) = (Vec::new(), Vec::new());
            for (name, sample) in all {
                match sample {
                    Ok(sample) => {
                        names.push(name);
                        samples.push(sample);
                    }
                    Err(error) => drop(held.problems.insert(name, error.to_string())),
                }
            }
            if samples.is_empty() {
                continue;
            }
            let input = collate(&samples, processor.as_ref())?.to_device(self.params.device())?;
            let features = no_grad(|| self.encoder.encoder.encode(&input, false))?.values.to_device(Device::Cpu)?;
            held.shape = features.shape()[1..].to_vec();
            let size = held.shape.iter().product::<i64>() as usize;
            if size * 4 * sources.len() > HELD {
                return Ok((plain(), false));
            }
            for (name, values) in names.into_iter().zip(features.to_vec::<f32>()?.chunks(size.max(1))) {
                held.features.insert(name, values.to_vec());
            }
        }
        on_progress(&format!("encoding {}", self.of), sources.len(), sources.len());
        Ok((Arc::new(held), true))
    }

    /// Features `[rows, places, width]` of numbers.
    fn features(&self, input: &Input, made: bool, train: bool) -> mm_core::Result<Tensor> {
        if made { Ok(input.values.clone()) } else { Ok(self.encoder.encoder.encode(input, train)?.values) }
    }

    /// Trains on its data into its run folder.
    pub fn fit(&self, manifest: Arc<Manifest>, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        let FitContext { progress, on_progress, stop } = context;
        let (seeing, made) = self.seeing(&manifest, stop, on_progress)?;
        let writer: Arc<dyn Processor> = Arc::new(self.writer());
        let processors = BTreeMap::from([(self.of.clone(), seeing.clone()), (Modality::TEXT, writer)]);
        let rows = manifest.rows_in_split(Split::Train);
        let count = rows.len();
        let loader = Loader::builder(manifest.clone())
            .rows(rows)
            .processors(processors)
            .config(self.config.common.loader.clone())
            .seed(self.config.common.train.seed)
            .for_training()
            .build()?;
        let valid = manifest.rows_in_split(Split::Valid);
        let mut evaluate_now = || -> mm_train::Result<Option<BTreeMap<String, f64>>> {
            if valid.is_empty() {
                return Ok(None);
            }
            let (figures, ..) = self.measure(&manifest, &valid, seeing.as_ref(), made, None)?;
            Ok(Some(figures))
        };
        let references = if self.config.self_critical > 0.0 {
            let words = |row| texts(&manifest, row).map(caption_words).collect();
            manifest.rows_in_split(Split::Train).into_iter().map(|row| (row, words(row))).collect()
        } else {
            HashMap::new()
        };
        let cider = Cider::new(references.values().map(Vec::as_slice));
        let task = Teaching { model: self, made, references, cider };
        let hooks = TrainHooks { evaluate: &mut evaluate_now, progress, stop };
        let trainer = Trainer::new(&self.config.common.train, &task, &self.params, &loader)?;
        let outcome = trainer.with_metric(TARGET).fit(run, hooks)?;
        Run::load_weights(run.folder(), &self.params)?;
        Ok(FitOutcome { training: outcome, failed: loader.failed_samples(), rows: count })
    }

    fn writer(&self) -> Writer {
        let places = self.config.vocabulary.iter().cloned().zip(4..).collect();
        Writer { places, longest: self.config.model.max_length as usize - 1 }
    }

    fn text(&self, ids: &[i64]) -> String {
        let word = |id: &i64| usize::try_from(id - 4).ok().and_then(|n| self.config.vocabulary.get(n)).cloned();
        ids.iter().filter_map(word).collect::<Vec<_>>().join(" ")
    }

    fn say(&self, features: &Tensor, config: &GenerationConfig) -> Result<Vec<Generation>> {
        let found = no_grad(|| {
            let start = self.captioner.prefill(features, config.max_new_tokens as i64)?;
            generate(&self.captioner, start, config, &LogitsProcessors::default(), &mut |_, _| {})
        })?;
        let make = |g: &mm_reason::generate::GeneratedSequence| Generation {
            text: self.text(&g.token_ids),
            score: g.score,
            log_prob: g.log_prob,
            finished: g.finished,
            num_tokens: g.token_ids.len(),
        };
        Ok(found.iter().filter_map(|row| row.first().map(make)).collect())
    }

    /// Describes values.
    pub fn describe(&self, sources: &[Source], config: &GenerationConfig) -> Result<Vec<Generation>> {
        let processor = self.encoder.processor.as_ref();
        let samples = sources
            .par_iter()
            .map(|s| process_catching_panics(processor, s, &mut ProcessContext::eval()))
            .collect::<mm_core::Result<Vec<Tensor>>>()?;
        let input = collate(&samples, processor)?.to_device(self.params.device())?;
        let features = no_grad(|| self.features(&input, false, false))?;
        self.say(&features, config)
    }

    /// What it says of rows, beside their references, and the figures of it; rows that cannot be read are left out.
    fn measure(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        seeing: &dyn Processor,
        made: bool,
        synonyms: Option<&Synonyms>,
    ) -> Result<(Figures, Vec<usize>, Vec<String>, Vec<FailedSample>)> {
        let (mut kept, mut said) = (Vec::new(), Vec::new());
        let broken = self.walk(manifest, rows, seeing, made, |good, features| {
            said.extend(self.say(&features, &self.generation())?.into_iter().map(|s| s.text));
            kept.extend(good);
            Ok(())
        })?;
        let references: Vec<Vec<String>> =
            kept.iter().map(|r| texts(manifest, *r).map(ToOwned::to_owned).collect()).collect();
        Ok((captions(&said, &references, synonyms), kept, said, broken))
    }

    /// Gives rows that can be read and their features `[rows, places, width]`, some at a time; what cannot be read comes back.
    fn walk(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        seeing: &dyn Processor,
        made: bool,
        mut body: impl FnMut(Vec<usize>, Tensor) -> Result<()>,
    ) -> Result<Vec<FailedSample>> {
        let (of, mut broken) = (&self.of, Vec::new());
        for chunk in rows.chunks(32) {
            let read = |r: &usize| {
                let source = manifest.rows[*r].values.get(of)?.first()?;
                Some((*r, process_catching_panics(seeing, source, &mut ProcessContext::eval())))
            };
            let all: Vec<(usize, mm_core::Result<Tensor>)> = chunk.par_iter().filter_map(read).collect();
            let (mut good, mut samples) = (Vec::new(), Vec::new());
            for (row, sample) in all {
                match sample {
                    Ok(sample) => {
                        good.push(row);
                        samples.push(sample);
                    }
                    Err(error) => broken.push(FailedSample {
                        row: manifest.rows[row].number,
                        id: manifest.rows[row].id.clone(),
                        modality: of.to_string(),
                        reason: error.to_string(),
                    }),
                }
            }
            if !samples.is_empty() {
                let input = collate(&samples, seeing)?.to_device(self.params.device())?;
                body(good, no_grad(|| self.features(&input, made, false))?)?;
            }
        }
        Ok(broken)
    }

    /// Figures of one side of its data, beside those of the nearest training picture's caption; also by what else judges them.
    pub fn evaluated(&self, split: Split, judges: Judges<'_>, on_progress: ProgressFn<'_>) -> Result<CaptionFigures> {
        let manifest = self.manifest()?;
        let rows = crate::rows_in_split(&manifest, split)?;
        let (seeing, made) = self.seeing(&manifest, &AtomicBool::new(false), on_progress)?;
        let (mut model, kept, said, broken) = self.measure(&manifest, &rows, seeing.as_ref(), made, judges.synonyms)?;
        let mean = |rows: &[usize]| -> Result<(Vec<usize>, Tensor)> {
            let (mut all, mut vectors) = (Vec::new(), Vec::new());
            self.walk(&manifest, rows, seeing.as_ref(), made, |good, features| {
                vectors.push(features.mean_dim(&[1], false)?.to_device(Device::Cpu)?);
                all.extend(good);
                Ok(())
            })?;
            Ok((all, Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?.normalize()?))
        };
        let (known, bank) = mean(&manifest.rows_in_split(Split::Train))?;
        let (asked, queries) = mean(&kept)?;
        let best: Vec<i64> = queries.matmul(&bank.transpose(0, 1)?)?.argmax(1)?.to_vec()?;
        let nearest: Vec<String> =
            best.iter().map(|n| texts(&manifest, known[*n as usize]).next().unwrap_or_default().to_owned()).collect();
        let references: Vec<Vec<String>> =
            asked.iter().map(|r| texts(&manifest, *r).map(ToOwned::to_owned).collect()).collect();
        let examples = kept
            .iter()
            .zip(&said)
            .zip(nearest.iter().zip(&references))
            .take(20)
            .map(|((r, s), (n, r2))| (manifest.rows[*r].id.clone(), s.clone(), n.clone(), r2.clone()))
            .collect();
        let mut beside = captions(&nearest, &references, judges.synonyms);
        if let Some(clip) = judges.clip {
            if self.of != Modality::IMAGE {
                return Err(Error::Config(format!("--clip: found captions of {}, wanted those of pictures", self.of)));
            }
            let pictures: Vec<Source> = kept.iter().map(|r| manifest.rows[*r].values[&self.of][0].clone()).collect();
            model.extend(clip_score(clip, &pictures, &said, &references)?);
            beside.extend(clip_score(clip, &pictures, &nearest, &references)?);
        }
        Ok(CaptionFigures { model, nearest: beside, broken, examples })
    }
}

/// The loss of a batch: each next word.
struct Teaching<'a> {
    model: &'a Captioning,
    made: bool,
    /// What people say of the training rows, where captions are judged while learning.
    references: HashMap<usize, Vec<Vec<String>>>,
    cider: Cider,
}

impl Teaching<'_> {
    /// The given words, some replaced by those that the network would have said in their place.
    fn own_words(&self, features: &Tensor, given: &Tensor) -> mm_core::Result<Tensor> {
        let length = given.size(1)?;
        if self.model.config.sampled == 0.0 || length < 2 {
            return Ok(given.clone());
        }
        let said = no_grad(|| self.model.captioner.teacher_forcing(features, given, false)?.argmax(2))?;
        // What is said after a word stands in the place of the next; the first token stays.
        let said = Tensor::cat(&[&given.narrow(1, 0, 1)?, &said.narrow(1, 0, length - 1)?], 1)?;
        let drawn = Tensor::rand(&given.shape(), DType::F32, given.device())?;
        let own = drawn.gt_scalar(1.0 - self.model.config.sampled)?.logical_and(&given.gt_scalar(EOS as f64)?)?;
        let own = own.to_dtype(DType::I64)?;
        given.add(&said.sub(given)?.mul(&own)?)
    }

    /// How much likelier captions that are drawn should become: by their CIDEr-D above that of what is said now.
    fn self_critical(&self, features: &Tensor, rows: &[usize], train: bool) -> mm_core::Result<LossOutput> {
        let model = self.model;
        let drawn = Tensor::rand(&[1], DType::F64, Device::Cpu)?.to_f64()?;
        let greedy = GenerationConfig { num_beams: 1, ..model.generation() };
        let sample = GenerationConfig { do_sample: true, seed: drawn.to_bits(), ..greedy.clone() };
        let say = |config: &GenerationConfig| -> mm_core::Result<Vec<Vec<i64>>> {
            let found = no_grad(|| {
                let start = model.captioner.prefill(features, config.max_new_tokens as i64)?;
                generate(&model.captioner, start, config, &LogitsProcessors::default(), &mut |_, _| {})
            })
            .map_err(Error::from)?;
            Ok(found.into_iter().filter_map(|row| row.into_iter().next().map(|g| g.token_ids)).collect())
        };
        let (now, other) = (say(&greedy)?, say(&sample)?);
        let judge = |ids: &[i64], row: &usize| {
            let words: Vec<String> = model.text(ids).split(' ').map(ToOwned::to_owned).collect();
            self.references.get(row).map_or(0.0, |known| self.cider.score(&words, known))
        };
        let better: Vec<f32> =
            rows.iter().zip(now.iter().zip(&other)).map(|(r, (n, o))| (judge(o, r) - judge(n, r)) as f32).collect();
        let longest = other.iter().map(Vec::len).max().unwrap_or(0) + 2;
        let whole = |ids: &Vec<i64>| {
            let mut all: Vec<i64> = std::iter::once(BOS).chain(ids.iter().copied()).chain([EOS]).collect();
            all.resize(longest, 0);
            all
        };
        let flat: Vec<i64> = other.iter().flat_map(whole).collect();
        let ids = Tensor::from_vec(&flat, &[other.len() as i64, longest as i64])?.to_device(features.device())?;
        let length = longest as i64 - 1;
        let scores = model.captioner.teacher_forcing(features, &ids.narrow(1, 0, length)?.contiguous()?, train)?;
        let next = ids.narrow(1, 1, length)?;
        let each = scores.to_dtype(DType::F32)?.log_softmax(-1)?.gather(2, &next.unsqueeze(2)?)?.squeeze(2)?;
        let there = next.gt_scalar(0.5)?.to_dtype(DType::F32)?;
        let weight = Tensor::from_slice(&better)?.to_device(features.device())?.unsqueeze(1)?;
        let loss = each.mul(&there)?.mul(&weight)?.sum()?.div(&there.sum()?)?.neg()?;
        let mean = f64::from(better.iter().sum::<f32>()) / better.len().max(1) as f64;
        Ok((loss, vec![("cider_d_above_greedy".to_owned(), mean)]))
    }
}

impl TrainingObjective<Batch> for Teaching<'_> {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let device = self.model.params.device();
        let Some((rows, inputs)) = batch.rows_with_all(&[&self.model.of, &Modality::TEXT], device)? else {
            return Ok(None);
        };
        let [seen, said] = &inputs[..] else { return Ok(None) };
        let features = self.model.features(&Input { mask: None, ..seen.clone() }, self.made, train)?;
        let ids = &said.values; // [rows, words], zeros after the end
        let weight = if train { self.model.config.self_critical } else { 0.0 };
        let rows: Vec<usize> = rows.iter().map(|n| batch.rows[*n]).collect();
        let critical = (weight > 0.0).then(|| self.self_critical(&features, &rows, train)).transpose()?;
        if weight >= 1.0 {
            return Ok(critical);
        }
        let length = ids.size(1)? - 1;
        let given = ids.narrow(1, 0, length)?.contiguous()?;
        let given = if train { self.own_words(&features, &given)? } else { given };
        let scores = self.model.captioner.teacher_forcing(&features, &given, train)?;
        let wanted = ids.narrow(1, 1, length)?.contiguous()?.reshape(&[-1])?;
        let loss =
            scores.flatten(0, 1)?.to_dtype(DType::F32)?.cross_entropy(&wanted, 0, self.model.config.smoothing)?;
        Ok(Some(match critical {
            Some((own, figures)) => (loss.mul_scalar(1.0 - weight)?.add(&own.mul_scalar(weight)?)?, figures),
            None => (loss, Vec::new()),
        }))
    }
}

/// The name that configs give as `task`.
pub const TASK: &str = "captioning";

/// The command that uses a trained run.
const USAGE: &str = "mm caption";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "describe images, or another modality, in words",
        usage: USAGE,
        parse: |value| parse_task::<CaptioningConfig>(value).map(drop),
        resolve: |value, base, _, _| resolve(value, base),
        build: |value, base, context| {
            Ok(Box::new(Captioning::new(parse_task(value)?, base, context.encoders, context.device)?))
        },
        load: |run, context| Ok(Box::new(Captioning::load(run, context)?)),
        report: crate::report::build_captioning,
        owns_folder: |_| false,
    }
}

impl TaskModel for Captioning {
    fn task(&self) -> &'static str {
        TASK
    }

    fn usage(&self) -> &'static str {
        USAGE
    }

    fn params(&self) -> &Params {
        self.params()
    }

    fn dataset(&self) -> Result<Manifest> {
        self.manifest()
    }

    fn fit(&self, dataset: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        self.fit(Arc::new(dataset), run, context)
    }

    fn evaluate(&self, split: Split, _: &TaskContext<'_>, on_progress: ProgressFn<'_>) -> Result<EvaluationReport> {
        self.evaluated(split, Judges::default(), on_progress)?.report()
    }
}

impl CaptionFigures {
    /// The metrics for programs and for people.
    pub fn report(&self) -> Result<EvaluationReport> {
        let json = serde_json::to_value(self).map_err(|e| Error::Config(e.to_string()))?;
        Ok(EvaluationReport { json, table: comparison_table(&self.model, "nearest image's caption", &self.nearest) })
    }
}
