//! Checkpoints that answer, describe and write down what is said learn further on a user's own pairs: all of their weights, or low-rank adapters beside them (`LoRA`, Hu
//! 2021). What comes out is a folder that transformers (or PEFT) loads: `model` in the run.

use crate::{
    Error, Result,
    config::{CommonConfig, TaskConfig, parse_task, to_value},
    metrics::{AnsweredRow, Blind, Figures, answer_figures, captions, normalize_answer, word_error_rate},
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec, comparison_table},
};
use mm_core::{
    DType, Device, LoraConfig, LossOutput, Modality, Params, ProcessContext, Processor, Source, Tensor,
    TrainingObjective, seed::manual_seed,
};
use mm_data::{Batch, FailedSample, Loader, Manifest, Split};
use mm_reason::{Pipeline, Request, TrainBatch, generate::GenerationConfig};
use mm_repr::{LoadOptions, copy_model_files, locate};
use mm_train::{Run, TrainHooks, Trainer};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Settings of learning further.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuningConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// The checkpoint: a folder, or the name of a fetched model.
    pub model: PathBuf,
    /// What is looked at.
    #[serde(default = "image")]
    pub of: String,
    /// The column of the answers to the questions that are the rows' text; when absent, the text is what is learned to be said.
    #[serde(default)]
    pub answer: Option<String>,
    /// The language of the texts that are learned; all when absent. What a Whisper is told to write down.
    #[serde(default)]
    pub language: Option<String>,
    /// Low-rank adapters that are learned in place of the weights.
    #[serde(default)]
    pub adapter: Option<LoraConfig>,
    /// The answers that a model chooses among; those of the checkpoint, or, where the training rows have others, these, when empty.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Share of each word that goes to the others in the loss (label smoothing).
    #[serde(default)]
    pub smoothing: f64,
    /// Most tokens of a text that is learned or said.
    #[serde(default = "thirty")]
    pub longest: usize,
    /// Beams of evaluation.
    #[serde(default = "one")]
    pub beams: usize,
}

fn image() -> String {
    "image".into()
}

fn thirty() -> usize {
    30
}

fn one() -> usize {
    1
}

/// The modality that a row's answer travels as.
const ANSWER: &str = "answer";

/// The folder of a run that holds what was learned, as transformers or PEFT load it.
pub const MODEL: &str = "model";

impl TaskConfig for FinetuningConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }

    fn validate(&self) -> Result<()> {
        self.adapter.as_ref().map(LoraConfig::check).transpose()?;
        if !(0.0..1.0).contains(&self.smoothing) {
            return Err(Error::Config(format!("smoothing: found {}, wanted a share in [0, 1)", self.smoothing)));
        }
        if self.beams == 0 || self.longest == 0 {
            return Err(Error::Config("beams, longest: found 0, wanted at least 1".into()));
        }
        Ok(())
    }
}

/// Whether the run of a folder is one of these, and where its model is.
pub fn learned(run: &Path) -> Option<PathBuf> {
    let folder = run.join(MODEL);
    (run.join("config.toml").exists() && folder.is_dir()).then_some(folder)
}

/// Writes the training rows' answers into the config of a model that chooses among labels, where they are not its own.
pub fn resolve(value: &mut toml::Value, base: &Path) -> Result<()> {
    let mut config: FinetuningConfig = parse_task(value)?;
    let base = config.common.base_dir_or(base);
    let (Some(_), true) = (&config.answer, config.labels.is_empty()) else { return Ok(()) };
    let Some(known) = Pipeline::checkpoint_labels(&locate(&config.model, &base))? else { return Ok(()) };
    let manifest = open(&config, &base)?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in manifest.rows_in_split(Split::Train) {
        if let Some(answer) = said(&manifest, row).next() {
            *counts.entry(answer.to_owned()).or_default() += 1;
        }
    }
    if counts.keys().all(|answer| known.contains(answer)) {
        return Ok(());
    }
    let mut counted: Vec<(String, usize)> = counts.into_iter().collect();
    counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    config.labels = counted.into_iter().map(|(a, _)| a).collect();
    *value = to_value(&config)?;
    Ok(())
}

/// Texts that a row teaches to say.
fn said(manifest: &Manifest, row: usize) -> impl Iterator<Item = &str> + use<'_> {
    texts(manifest, row, &Modality::from(ANSWER))
}

fn texts<'a>(manifest: &'a Manifest, row: usize, modality: &Modality) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = manifest.rows[row].values.get(modality).into_iter().flatten();
    values.filter_map(|v| if let Source::Text(text) = v { Some(text.as_str()) } else { None })
}

/// The rows that can be learned from: the question as text, what is to be said as [`ANSWER`].
fn open(config: &FinetuningConfig, base: &Path) -> Result<Manifest> {
    let mut manifest = Manifest::open(&config.common.data, base)?;
    let of = Modality::from(config.of.as_str());
    for row in &mut manifest.rows {
        if let Some(language) = &config.language {
            row.retain_languages(&Modality::TEXT, std::slice::from_ref(language));
        }
        row.values.retain(|m, values| (*m == of || *m == Modality::TEXT) && !values.is_empty());
        let answers = match &config.answer {
            Some(column) => {
                // One question a row: the first, which is also what is measured.
                row.values.entry(Modality::TEXT).and_modify(|texts| texts.truncate(1));
                let cell = row.cells.get(column).map(|t| t.trim()).filter(|t| !t.is_empty());
                cell.map(|t| vec![Source::Text(t.to_owned())])
            }
            None => row.values.remove(&Modality::TEXT),
        };
        row.values.extend(answers.map(|a| (Modality::from(ANSWER), a)));
    }
    let asks = config.answer.is_some();
    manifest.rows.retain(|r| {
        let has = |m: &Modality| r.values.contains_key(m);
        has(&of) && has(&Modality::from(ANSWER)) && (!asks || has(&Modality::TEXT))
    });
    if manifest.rows.is_empty() {
        let wanted = match &config.answer {
            Some(column) => format!("{of}, a question as text, and an answer in the column `{column}`"),
            None => format!("{of} and text"),
        };
        return Err(Error::Config(format!("{}: no row has {wanted}", manifest.path.display())));
    }
    Ok(manifest)
}

/// Texts whose numbers are known already.
struct Written {
    /// The numbers of each, `[tokens]` or `[tokens, columns]`.
    known: HashMap<String, Vec<i64>>,
    columns: usize,
    name: &'static str,
}

impl Processor for Written {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        match source {
            Source::Text(text) => self.known.get(text),
            _ => None,
        }
        .ok_or_else(|| mm_core::Error::Sample(format!("{}: found {source:?}, wanted a text of the data", self.name)))
        .and_then(|ids| {
            let tokens = (ids.len() / self.columns) as i64;
            if self.columns == 1 {
                Tensor::from_slice(ids)
            } else {
                Tensor::from_vec(ids, &[tokens, self.columns as i64])
            }
        })
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("written {} {}", self.name, self.known.len())
    }
}

/// A checkpoint that learns further.
pub struct Finetuning {
    speaker: Pipeline,
    /// Its settings.
    pub config: FinetuningConfig,
    base: PathBuf,
    of: Modality,
    /// The checkpoint's config, with the labels that it has now.
    described: serde_json::Value,
    renewed: Vec<String>,
}

/// Figures of held-out rows, and what is beside them.
#[derive(Debug, Clone, Serialize)]
pub struct FinetuningFigures {
    /// The model's.
    pub model: Figures,
    /// Those of answering each question (or describing each picture) as the training rows most often do, without looking.
    pub blind: Figures,
    /// Samples that were left out.
    pub broken: Vec<FailedSample>,
    /// Some rows' ids, with what was asked, what was said, and what should have been.
    pub examples: Vec<(String, String, String, Vec<String>)>,
}

impl Finetuning {
    /// Loads the checkpoint of a resolved config, ready to learn.
    pub fn new(config: FinetuningConfig, base: &Path, device: Device) -> Result<Self> {
        let base = config.common.base_dir_or(base);
        manual_seed(config.common.train.seed);
        let options = LoadOptions { device, ..LoadOptions::default() };
        let labels = (!config.labels.is_empty()).then_some(config.labels.as_slice());
        let folder = locate(&config.model, &base);
        let loaded = Pipeline::load_for_training(&folder, options, config.adapter.clone(), labels)?;
        let (speaker, described, renewed) = (loaded.pipeline, loaded.config, loaded.reinitialized);
        if !speaker.can_generate() && config.answer.is_none() {
            return Err(Error::Config(format!(
                "answer: found none, but a model of family {} answers questions; wanted the column of the answers",
                speaker.family
            )));
        }
        let of = Modality::from(config.of.as_str());
        speaker.train_processor(&of)?;
        Ok(Self { speaker, config, base, of, described, renewed })
    }

    /// Loads the model of a run folder.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let model = Self::new(context.run_config(run)?, run, context.device)?;
        Run::load_weights(run, &model.speaker.params)?;
        Ok(model)
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.speaker.params
    }

    /// Its data.
    pub fn manifest(&self) -> Result<Manifest> {
        open(&self.config, &self.base)
    }

    /// Questions and what is said of all rows, in tokens: of each question its own ids; of each pair the ids that the decoder reads and says,
    /// with a mark at those that are to be learned, `[tokens, 2]`; or the number of the label.
    fn write(&self, manifest: &Manifest) -> Result<(Written, Written)> {
        let mut questions = Written { known: HashMap::new(), columns: 1, name: "question" };
        let mut answers = Written { known: HashMap::new(), columns: 2, name: ANSWER };
        let speaker = &self.speaker;
        // What a picture becomes is part of the prompt of some models.
        let seen = manifest.rows.iter().find_map(|r| {
            let source = r.values.get(&self.of)?.first()?;
            speaker.encode_media_for_training(&self.of, std::slice::from_ref(source)).ok()
        });
        let end = speaker.generation.eos_token_id.first().copied();
        for row in 0..manifest.rows.len() {
            let question = texts(manifest, row, &Modality::TEXT).next();
            for answer in said(manifest, row) {
                let key = pair(question, answer);
                if answers.known.contains_key(&key) {
                    continue;
                }
                let prompt = speaker.prompt(seen.as_ref(), self.asked(question))?;
                let (asked, begun) = (prompt.question_ids, prompt.decoder_input_ids);
                if let Some(question) = question.filter(|q| !questions.known.contains_key(*q)) {
                    let ids = if asked.is_empty() { begun.clone() } else { asked };
                    questions.known.insert(question.to_owned(), ids);
                }
                let numbers = if speaker.can_generate() {
                    let mut ids = begun.clone();
                    ids.extend(speaker.tokenizer.encode(answer, false)?.into_iter().take(self.config.longest));
                    ids.extend(end);
                    let marked = ids.iter().enumerate().flat_map(|(n, id)| [*id, i64::from(n >= begun.len())]);
                    marked.collect()
                } else {
                    // Answers that are none of the labels cannot be learned, and count as wrong.
                    let label = speaker.labels.iter().position(|l| l == answer).map_or(-1, |n| n as i64);
                    vec![label, 1]
                };
                answers.known.insert(key, numbers);
            }
        }
        Ok((questions, answers))
    }

    /// Trains on its data into its run folder, and leaves what was learned there as transformers or PEFT load it.
    pub fn fit(&self, mut manifest: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        let FitContext { progress, on_progress, stop } = context;
        on_progress("writing texts in tokens", 0, manifest.rows.len());
        let (questions, answers) = self.write(&manifest)?;
        on_progress("writing texts in tokens", manifest.rows.len(), manifest.rows.len());
        let plain = manifest.clone();
        for row in 0..manifest.rows.len() {
            let question = texts(&manifest, row, &Modality::TEXT).next();
            let keys = said(&manifest, row).map(|a| Source::Text(pair(question, a))).collect();
            manifest.rows[row].values.insert(Modality::from(ANSWER), keys);
        }
        let mut processors: BTreeMap<Modality, Arc<dyn Processor>> = BTreeMap::new();
        processors.insert(self.of.clone(), self.speaker.train_processor(&self.of)?.clone());
        processors.insert(Modality::from(ANSWER), Arc::new(answers));
        if self.config.answer.is_some() {
            processors.insert(Modality::TEXT, Arc::new(questions));
        }
        let manifest = Arc::new(manifest);
        let rows = manifest.rows_in_split(Split::Train);
        let count = rows.len();
        let loader = Loader::builder(manifest)
            .rows(rows)
            .processors(processors)
            .config(self.config.common.loader.clone())
            .seed(self.config.common.train.seed)
            .for_training()
            .build()?;
        let valid = plain.rows_in_split(Split::Valid);
        let mut evaluate_now = || -> mm_train::Result<Option<BTreeMap<String, f64>>> {
            if valid.is_empty() {
                return Ok(None);
            }
            Ok(Some(self.measure(&plain, &valid)?.0))
        };
        let hooks = TrainHooks { evaluate: &mut evaluate_now, progress, stop };
        let trainer = Trainer::new(&self.config.common.train, self, &self.speaker.params, &loader)?;
        let metric = match &self.config.answer {
            Some(_) => "accuracy",
            None if self.of == Modality::AUDIO => "words_right",
            None => "cider_d",
        };
        let outcome = trainer.with_metric(metric).fit(run, hooks)?;
        Run::load_weights(run.folder(), &self.speaker.params)?;
        self.save(&run.folder().join(MODEL))?;
        Ok(FitOutcome { training: outcome, failed: loader.failed_samples(), rows: count })
    }

    /// Writes what was learned: an adapter as PEFT lays it out, or a folder as transformers does.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let from = locate(&self.config.model, &self.base);
        let place = mm_repr::ModelPaths::resolve(&from)?;
        let failed = |e: std::io::Error| Error::Config(format!("{}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(failed)?;
        copy_model_files(&place.files, folder)?;
        let text = format!("{:#}\n", self.described);
        mm_core::checkpoint::write_atomic(&folder.join("config.json"), text.as_bytes())?;
        if self.config.adapter.is_some() {
            let name = if from.is_dir() { std::fs::canonicalize(&from).map_err(failed)? } else { from };
            self.speaker.params.save_adapter(folder, &name.to_string_lossy(), &self.renewed)?;
        } else {
            let tensors = self.speaker.params.export()?;
            let tensors = tensors.into_iter().map(|(n, t)| Ok((n, t.detach()?.contiguous()?)));
            let tensors = tensors.collect::<mm_core::Result<Vec<_>>>()?;
            mm_core::checkpoint::save(&folder.join("model.safetensors"), &tensors, &[("format", "pt".into())])?;
        }
        Ok(())
    }

    /// What it says of rows, and the figures of it; rows that cannot be read are left out.
    fn measure(
        &self,
        manifest: &Manifest,
        rows: &[usize],
    ) -> Result<(Figures, Vec<(usize, String)>, Vec<FailedSample>)> {
        let config = GenerationConfig {
            max_new_tokens: self.config.longest,
            num_beams: self.config.beams,
            ..self.speaker.generation.clone()
        };
        let (mut found, mut broken) = (Vec::new(), Vec::new());
        let mut keep = |row: usize, said: Result<String>| match said {
            Ok(text) => found.push((row, text)),
            Err(error) => broken.push(FailedSample {
                row: manifest.rows[row].number,
                id: manifest.rows[row].id.clone(),
                modality: self.of.to_string(),
                reason: error.to_string(),
            }),
        };
        let source = |row: &usize| manifest.rows[*row].values[&self.of][0].clone();
        if self.speaker.can_generate() {
            for chunk in rows.chunks(self.speaker.max_batch_size()) {
                let sources: Vec<Source> = chunk.iter().map(source).collect();
                let seen = self.speaker.encode_media_each_for_training(&self.of, &sources)?;
                let asked = |row: usize| self.asked(texts(manifest, row, &Modality::TEXT).next());
                let rows = chunk.iter().zip(&seen);
                let rows: Vec<_> =
                    rows.filter_map(|(row, s)| Some((s.as_ref().ok().map(Some)?, asked(*row)))).collect();
                let mut said = self.speaker.answer_batch(&rows, &[], &config).into_iter();
                for (row, seen) in chunk.iter().zip(seen) {
                    keep(
                        *row,
                        seen.and_then(|_| said.next().unwrap_or_else(|| Ok(Vec::new())))
                            .map(|found| found.into_iter().next().map(|best| best.answer).unwrap_or_default())
                            .map_err(Error::from),
                    );
                }
            }
        } else {
            // What is asked alike is answered together.
            let mut alike: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
            for row in rows {
                alike.entry(texts(manifest, *row, &Modality::TEXT).next()).or_default().push(*row);
            }
            for (question, rows) in alike {
                for chunk in rows.chunks(32) {
                    let sources: Vec<Source> = chunk.iter().map(source).collect();
                    // One that cannot be read, or is of another size, must not take the others with it.
                    if let Ok(labels) = self.choose(&sources, question) {
                        chunk.iter().zip(labels).for_each(|(row, label)| keep(*row, Ok(label)));
                        continue;
                    }
                    for (row, source) in chunk.iter().zip(&sources) {
                        let label = self.choose(std::slice::from_ref(source), question);
                        keep(*row, label.map(|l| l.into_iter().next().unwrap_or_default()));
                    }
                }
            }
        }
        found.sort_by_key(|(row, _)| *row);
        Ok((self.figures(manifest, &found), found, broken))
    }

    fn asked<'a>(&'a self, question: Option<&'a str>) -> Request<'a> {
        match question {
            Some(question) => Request::Question(question),
            None if self.of == Modality::AUDIO => {
                Request::Transcribe { language: self.config.language.as_deref(), timestamps: false }
            }
            None => Request::Caption(None),
        }
    }

    /// The label that each of several files gets, by a model that chooses among such.
    fn choose(&self, sources: &[Source], question: Option<&str>) -> Result<Vec<String>> {
        let speaker = &self.speaker;
        let seen = speaker.encode_media_for_training(&self.of, sources)?;
        let best: Vec<i64> = speaker.answer_logits(&seen, self.asked(question))?.argmax(1)?.to_vec()?;
        Ok(best.into_iter().filter_map(|n| speaker.labels.get(n as usize).cloned()).collect())
    }

    fn figures(&self, manifest: &Manifest, found: &[(usize, String)]) -> Figures {
        if self.config.answer.is_none() {
            let texts: Vec<String> = found.iter().map(|(_, t)| t.clone()).collect();
            let references: Vec<Vec<String>> =
                found.iter().map(|(r, _)| said(manifest, *r).map(ToOwned::to_owned).collect()).collect();
            let mut figures = captions(&texts, &references, None);
            if self.of == Modality::AUDIO {
                let rate = word_error_rate(&texts, &references);
                figures.extend([("word_error_rate".to_owned(), rate), ("words_right".into(), 1.0 - rate)]);
            }
            return figures;
        }
        let right = |(row, text): &&(usize, String)| {
            said(manifest, *row).any(|a| normalize_answer(a) == normalize_answer(text))
        };
        let accuracy = found.iter().filter(right).count() as f64 / found.len().max(1) as f64;
        let mut figures = answer_figures(found.iter().map(|(row, text)| AnsweredRow {
            said: text,
            wanted: said(manifest, *row).next(),
            question: texts(manifest, *row, &Modality::TEXT).next(),
            cells: &manifest.rows[*row].cells,
        }));
        figures.insert("accuracy".into(), accuracy);
        figures.insert("rows".into(), found.len() as f64);
        figures
    }

    /// Figures of one side of its data, beside those of answering without looking.
    pub fn evaluated(&self, split: Split) -> Result<FinetuningFigures> {
        let manifest = self.manifest()?;
        let rows = crate::rows_in_split(&manifest, split)?;
        let (model, found, broken) = self.measure(&manifest, &rows)?;
        let train = manifest.rows_in_split(Split::Train);
        let asked = |row: usize| texts(&manifest, row, &Modality::TEXT).next();
        let prior = Blind::new(train.iter().flat_map(|r| said(&manifest, *r).map(|a| (asked(*r), a))));
        let guess = |(row, _): &(usize, String)| (*row, prior.answer(asked(*row)).to_owned());
        let blind = self.figures(&manifest, &found.iter().map(guess).collect::<Vec<_>>());
        let example = |(row, text): &(usize, String)| {
            let question = texts(&manifest, *row, &Modality::TEXT).next().unwrap_or_default().to_owned();
            let wanted = said(&manifest, *row).map(ToOwned::to_owned).collect();
            (manifest.rows[*row].id.clone(), question, text.clone(), wanted)
        };
        // Spread over the rows, so that not all are of one picture.
        let step = (found.len() / 20).max(1);
        let examples = found.iter().step_by(step).take(20).map(example).collect();
        Ok(FinetuningFigures { model, blind, broken, examples })
    }
}

/// How a question and its answer are known together.
fn pair(question: Option<&str>, answer: &str) -> String {
    format!("{}\u{0}{answer}", question.unwrap_or_default())
}

/// The loss of a batch: each token of what is to be said, or each label by itself.
impl TrainingObjective<Batch> for Finetuning {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let answer = Modality::from(ANSWER);
        let wanted = [&self.of, &answer, &Modality::TEXT];
        let wanted = if self.config.answer.is_some() { &wanted[..] } else { &wanted[..2] };
        let Some((_, inputs)) = batch.rows_with_all(wanted, self.speaker.params.device())? else { return Ok(None) };
        let [seen, told, question @ ..] = &inputs[..] else { return Ok(None) };
        let told = &told.values; // [rows, tokens, 2]
        let (ids, counts) = (told.select(2, 0)?, told.select(2, 1)?);
        let mut batch_input = TrainBatch {
            modality: &self.of,
            values: &seen.values,
            question: question.first(),
            decoder_input_ids: None,
            train,
        };
        if !self.speaker.can_generate() {
            let scores = self.speaker.forward(&batch_input)?.to_dtype(DType::F32)?;
            let label = ids.select(1, 0)?; // −1 for none
            let classes = scores.size(1)?;
            let target = label.clamp_min(0.0)?.to_dtype(DType::I64)?.one_hot(classes)?.to_dtype(DType::F32)?;
            let target = target.mul(&label.gt_scalar(-0.5)?.to_dtype(DType::F32)?.unsqueeze(1)?)?;
            // As ViLT was trained: each label's own yes or no, summed over the labels.
            let loss = scores.softplus()?.sub(&scores.mul(&target)?)?.mean()?.mul_scalar(classes as f64)?;
            return Ok(Some((loss, Vec::new())));
        }
        let length = ids.size(1)? - 1;
        let given = ids.narrow(1, 0, length)?.contiguous()?;
        batch_input.decoder_input_ids = Some(&given);
        let scores = self.speaker.forward(&batch_input)?.to_dtype(DType::F32)?;
        // What is not to be learned becomes the class that is passed over.
        let counts = counts.narrow(1, 1, length)?.to_dtype(DType::F32)?;
        let passed = counts.add_scalar(-1.0)?.mul_scalar(100.0)?;
        let wanted = ids.narrow(1, 1, length)?.to_dtype(DType::F32)?.mul(&counts)?.add(&passed)?;
        let wanted = wanted.to_dtype(DType::I64)?.contiguous()?.reshape(&[-1])?;
        let loss = scores.flatten(0, 1)?.cross_entropy(&wanted, -100, self.config.smoothing)?;
        Ok(Some((loss, Vec::new())))
    }
}

/// The name that configs give as `task`.
pub const TASK: &str = "finetuning";

/// The command that uses a trained run.
const USAGE: &str = "mm answer` or `mm caption";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "fine-tune a pretrained vision-language or speech model",
        usage: USAGE,
        parse: |value| parse_task::<FinetuningConfig>(value).map(drop),
        resolve: |value, base, _, _| resolve(value, base),
        build: |value, base, context| Ok(Box::new(Finetuning::new(parse_task(value)?, base, context.device)?)),
        load: |run, context| Ok(Box::new(Finetuning::load(run, context)?)),
        report: crate::report::build_finetuning,
        owns_folder: |_| false,
    }
}

impl TaskModel for Finetuning {
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
        self.fit(dataset, run, context)
    }

    fn evaluate(&self, split: Split, _: &TaskContext<'_>, _: ProgressFn<'_>) -> Result<EvaluationReport> {
        let figures = self.evaluated(split)?;
        let json = serde_json::to_value(&figures).map_err(|e| Error::Config(e.to_string()))?;
        Ok(EvaluationReport { json, table: comparison_table(&figures.model, "without the input", &figures.blind) })
    }
}
