//! Cross-modal retrieval: a tower for each modality, each with a projection into one space, learned so that what shows the same lies
//! together (two-tower models: `DeViSE`, Frome 2013; CLIP, Radford 2021), over every pair of modalities that a row has.

use crate::{
    Error, Fit, Result, Told,
    features::Frozen,
    metrics::{RetrievalMetrics, retrieval_metrics},
};
use mm_align::{Contrastive, ContrastiveConfig, diagnose};
use mm_core::{
    BuildContext, DType, Device, Encoder, Input, Modality, Module, Params, Processor, Registry, SampleContext, Scope,
    Source, Task, Tensor, config,
    nn::{Linear, Norm, NormConfig},
    seed::seed_tensors,
    without_grad,
};
use mm_data::{Batch, Cache, Cached, Loader, LoaderConfig, Manifest, ManifestConfig, Split, collate};
use mm_train::{Progress, Run, TrainConfig, TrainInput, train};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

/// What stands between an encoder and the shared space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectionConfig {
    /// Width between its two layers.
    pub hidden: i64,
    /// Rate of dropout while training.
    pub dropout: f64,
}

impl Default for ProjectionConfig {
    fn default() -> Self {
        Self { hidden: 512, dropout: 0.2 }
    }
}

/// One modality's way into the shared space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerConfig {
    /// The encoder, by its `kind`.
    pub encoder: toml::Value,
    /// What stands between it and the shared space.
    #[serde(default)]
    pub projection: ProjectionConfig,
    /// Augmented views of each sample that are encoded beside the plain one, for frozen encoders; one is drawn while training.
    #[serde(default)]
    pub views: usize,
    /// Standard deviation of the noise on unit-length features while training, times the root of their width.
    #[serde(default)]
    pub noise: f64,
    /// Values of other languages than these are left out; all are taken when empty.
    #[serde(default)]
    pub languages: Vec<String>,
}

/// Settings of a retrieval model and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalConfig {
    /// The folder that relative paths are relative to; the config's own when absent.
    #[serde(default)]
    pub base: Option<PathBuf>,
    /// The data.
    pub data: ManifestConfig,
    /// How batches are made.
    #[serde(default)]
    pub loader: LoaderConfig,
    /// A tower for each modality.
    pub towers: BTreeMap<String, TowerConfig>,
    /// Width of the shared space.
    #[serde(default = "width")]
    pub width: i64,
    /// The loss.
    #[serde(default)]
    pub loss: ContrastiveConfig,
    /// Weight of a pair of modalities in the loss (`audio-text`, names in order); 1 when absent.
    #[serde(default)]
    pub pairs: BTreeMap<String, f64>,
    /// The training.
    #[serde(default)]
    pub train: TrainConfig,
    /// Where decoded and encoded samples are kept; mm's cache when absent.
    #[serde(default)]
    pub cache: Option<PathBuf>,
}

fn width() -> i64 {
    256
}

/// Two layers with a residual, normalised: `[rows, input]` → `[rows, output]` of unit length.
struct Projection {
    norm_in: Norm,
    first: Linear,
    second: Linear,
    skip: Linear,
    dropout: f64,
}

impl Projection {
    fn new(scope: &Scope<'_>, input: i64, output: i64, config: &ProjectionConfig) -> Result<Self> {
        if config.hidden < 1 || output < 1 || !(0.0..1.0).contains(&config.dropout) {
            let found = format!("hidden {}, width {output}, dropout {}", config.hidden, config.dropout);
            return Err(Error::Config(format!(
                "towers.projection: found {found}; wanted positive sizes and a dropout in [0, 1)"
            )));
        }
        Ok(Self {
            norm_in: Norm::new(&scope.pp("norm"), input, NormConfig::default())?,
            first: Linear::new(&scope.pp("fc1"), input, config.hidden, true)?,
            second: Linear::new(&scope.pp("fc2"), config.hidden, output, true)?,
            skip: Linear::new(&scope.pp("skip"), input, output, false)?,
            dropout: config.dropout,
        })
    }
}

impl Module for Projection {
    fn forward(&self, x: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let x = self.norm_in.forward(x, train)?.dropout(self.dropout, train)?;
        let hidden = self.first.forward(&x, train)?.gelu()?.dropout(self.dropout, train)?; // [rows, hidden]
        self.second.forward(&hidden, train)?.add(&self.skip.forward(&x, train)?)?.normalize() // [rows, output]
    }
}

struct Tower {
    encoder: Box<dyn Encoder>,
    processor: Arc<dyn Processor>,
    projection: Projection,
    frozen: bool,
    fingerprint: String,
    config: TowerConfig,
}

/// The towers and their losses.
pub struct Retrieval {
    params: Params,
    towers: BTreeMap<Modality, Tower>,
    losses: BTreeMap<(Modality, Modality), (Contrastive, f64)>,
    config: RetrievalConfig,
    base: PathBuf,
    cache: Cache,
}

/// Everything that a model knows of one side of the data: for each modality the embeddings and what they are of.
pub struct Embedded {
    /// `[entries, width]` of unit length.
    pub vectors: Tensor,
    /// What each entry is of.
    pub entries: Vec<Entry>,
}

/// One embedded value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its row in [`Manifest::rows`].
    pub row: usize,
    /// What it shows.
    pub item: String,
    /// The row's first text, folded: rows of equal texts may be counted as right.
    pub text: String,
    /// Its language, if the manifest says.
    pub language: Option<String>,
    /// The value.
    pub source: Source,
}

impl Retrieval {
    /// Builds the model fresh, its weights a function of the seed.
    pub fn new(config: RetrievalConfig, base: &Path, registry: &Registry, device: Device) -> Result<Self> {
        let base = config.base.clone().unwrap_or_else(|| base.to_owned());
        if config.towers.len() < 2 {
            return Err(Error::Config(format!(
                "towers: found {}, wanted at least two modalities",
                config.towers.len()
            )));
        }
        seed_tensors(config.train.seed);
        let params = Params::new(device);
        let root = params.scope();
        let mut towers = BTreeMap::new();
        for (name, tower) in &config.towers {
            let scope = root.pp("towers").pp(name);
            let context = BuildContext {
                scope: scope.pp("encoder"),
                base: base.clone(),
                field: format!("towers.{name}.encoder"),
            };
            let built = registry.build(&tower.encoder, &context)?;
            if built.encoder.modality().name() != name {
                let found = built.encoder.modality();
                return Err(Error::Config(format!(
                    "towers.{name}.encoder: found an encoder of {found}, wanted one of {name}"
                )));
            }
            let projection = Projection::new(
                &scope.pp("projection"),
                built.encoder.embedding_width(),
                config.width,
                &tower.projection,
            )?;
            let built = Tower {
                projection,
                encoder: built.encoder,
                processor: built.processor,
                frozen: built.frozen,
                fingerprint: built.fingerprint,
                config: tower.clone(),
            };
            towers.insert(Modality::from(name.as_str()), built);
        }
        let names: Vec<&Modality> = towers.keys().collect();
        let mut losses = BTreeMap::new();
        let mut unused: Vec<&String> = config.pairs.keys().collect();
        for (place, a) in names.iter().enumerate() {
            for b in &names[place + 1..] {
                let key = format!("{a}-{b}");
                unused.retain(|k| **k != key);
                let weight = config.pairs.get(&key).copied().unwrap_or(1.0);
                let loss = Contrastive::new(&root.pp("losses").pp(&key), &config.loss)?;
                losses.insert(((*a).clone(), (*b).clone()), (loss, weight));
            }
        }
        if let Some(key) = unused.first() {
            return Err(Error::Config(format!(
                "pairs.{key}: no such pair of towers (names stand in alphabetical order)"
            )));
        }
        let cache = Cache::of(&base, config.cache.as_deref())?;
        Ok(Self { params, towers, losses, config, base, cache })
    }

    /// Loads the model of a run folder: its best weights.
    pub fn load(run: &Path, registry: &Registry, device: Device) -> Result<Self> {
        let model = Self::fresh_from_run(run, registry, device)?;
        let (checkpoint, _) = Run::load(run, "best")?;
        model.params.load(&checkpoint, "model.")?;
        Ok(model)
    }

    /// The model of a run folder as it was before training.
    pub fn fresh_from_run(run: &Path, registry: &Registry, device: Device) -> Result<Self> {
        Self::new(parse(&config::read(&run.join("config.toml"), &[])?)?, run, registry, device)
    }

    /// Its settings.
    pub fn config(&self) -> &RetrievalConfig {
        &self.config
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The modalities that it has towers for.
    pub fn modalities(&self) -> impl Iterator<Item = &Modality> {
        self.towers.keys()
    }

    /// Its data, values of unwanted languages left out.
    pub fn manifest(&self) -> Result<Manifest> {
        let mut manifest = Manifest::open(&self.config.data, &self.base)?;
        for row in &mut manifest.rows {
            row.values.retain(|modality, _| self.towers.contains_key(modality));
            for (modality, tower) in &self.towers {
                row.keep_languages(modality, &tower.config.languages);
            }
            row.values.retain(|_, values| !values.is_empty());
        }
        if let Some(missing) = self.towers.keys().find(|m| !manifest.rows.iter().any(|r| r.values.contains_key(m))) {
            return Err(Error::Config(format!(
                "{}: no row has {missing}, for which the config has a tower",
                manifest.path.display()
            )));
        }
        Ok(manifest)
    }

    fn tower(&self, modality: &Modality) -> Result<&Tower> {
        let known = self.towers.keys().map(Modality::name);
        Ok(self
            .towers
            .get(modality)
            .ok_or_else(|| mm_core::Error::unknown("modality of this run", modality.name(), known))?)
    }

    /// Vectors `[sources, width]` of raw values, of unit length.
    pub fn embed(&self, modality: &Modality, sources: &[Source]) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        let samples = sources
            .iter()
            .map(|s| tower.processor.process(s, &mut SampleContext::plain()))
            .collect::<Result<Vec<_>, _>>()?;
        let input = collate(&samples, tower.processor.as_ref())?.to_device(self.params.device())?;
        Ok(without_grad(|| tower.projection.forward(&tower.encoder.embed(&input, false)?, false))?)
    }

    /// Encodes, with every frozen encoder, what is not yet in the cache. The processors that a loader needs come back: of the kept
    /// features where the encoder is frozen, of (kept) samples where it is not.
    fn prepare(&self, manifest: &Manifest, told: Told<'_>) -> Result<BTreeMap<Modality, Arc<dyn Processor>>> {
        let mut processors: BTreeMap<Modality, Arc<dyn Processor>> = BTreeMap::new();
        for (modality, tower) in &self.towers {
            if !tower.frozen {
                processors.insert(modality.clone(), Arc::new(Cached::new(tower.processor.clone(), self.cache.clone())));
                continue;
            }
            let frozen = Frozen {
                encoder: tower.encoder.as_ref(),
                processor: &tower.processor,
                fingerprint: &format!("{} {}", tower.fingerprint, tower.processor.fingerprint()),
                views: tower.config.views,
            };
            let sources = manifest.rows.iter().filter_map(|r| r.values.get(modality)).flatten();
            let kept =
                frozen.keep(modality, sources, &self.cache, self.params.device(), &AtomicBool::new(false), told)?;
            processors.insert(modality.clone(), Arc::new(kept));
        }
        Ok(processors)
    }

    /// `[rows, width]` of unit length from what the loader gives.
    fn project(&self, modality: &Modality, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let Some(tower) = self.towers.get(modality) else {
            return Err(mm_core::Error::unknown("modality", modality.name(), self.towers.keys().map(Modality::name)));
        };
        let input = input.to_device(self.params.device())?;
        let mut x = if tower.frozen { input.values } else { tower.encoder.embed(&input, train)? };
        if train && tower.config.noise > 0.0 {
            let width = x.size(-1)? as f64;
            let length = x.norm(-1, true)?.mul_scalar(tower.config.noise / width.sqrt())?;
            x = x.add(&Tensor::randn(&x.shape(), DType::F32, x.device())?.mul(&length)?)?;
        }
        tower.projection.forward(&x, train)
    }

    /// All values of one side, embedded: of texts and pictures the first of each row, of other modalities every one.
    pub fn embed_side(
        &self,
        manifest: &Arc<Manifest>,
        split: Split,
        told: Told<'_>,
    ) -> Result<BTreeMap<Modality, Embedded>> {
        let processors = self.prepare(manifest, told)?;
        self.embed_with(manifest, split, &processors)
    }

    fn embed_with(
        &self,
        manifest: &Manifest,
        split: Split,
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
    ) -> Result<BTreeMap<Modality, Embedded>> {
        let mut out = BTreeMap::new();
        for (modality, processor) in processors {
            let mut entries = Vec::new();
            for row in manifest.side(split) {
                let about = &manifest.rows[row];
                let text = match about.values.get(&Modality::TEXT).and_then(|v| v.first()) {
                    Some(Source::Text(text)) => text.trim().to_lowercase(),
                    _ => about.item.clone(),
                };
                let values = about.values.get(modality).map(Vec::as_slice).unwrap_or_default();
                let one = *modality == Modality::TEXT || *modality == Modality::IMAGE;
                for (place, source) in values.iter().enumerate().take(if one { 1 } else { usize::MAX }) {
                    let language = about.languages.get(modality).and_then(|l| l.get(place)).cloned().flatten();
                    entries.push(Entry {
                        row,
                        item: about.item.clone(),
                        text: text.clone(),
                        language,
                        source: source.clone(),
                    });
                }
            }
            let mut vectors = Vec::new();
            let mut good = Vec::new();
            // Of about one length together; a broken value is left out, as in training.
            let size = |s: &Source| {
                if let Source::File(path) = s { std::fs::metadata(path).map_or(0, |m| m.len()) } else { 0 }
            };
            entries.sort_by_cached_key(|e| (size(&e.source), e.row));
            for chunk in entries.chunks(64) {
                let samples: Vec<_> =
                    chunk.par_iter().map(|e| processor.process(&e.source, &mut SampleContext::plain())).collect();
                let mut kept = Vec::new();
                for (entry, sample) in chunk.iter().zip(samples) {
                    match sample {
                        Ok(sample) => {
                            kept.push(sample);
                            good.push(entry.clone());
                        }
                        Err(error) => tracing::warn!(
                            "left out of the evaluation: row {}, {modality}: {error}",
                            manifest.rows[entry.row].number
                        ),
                    }
                }
                if !kept.is_empty() {
                    let input = collate(&kept, processor.as_ref())?;
                    vectors.push(without_grad(|| self.project(modality, &input, false))?.to_device(Device::Cpu)?);
                }
            }
            if !vectors.is_empty() {
                let vectors = Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?;
                out.insert(modality.clone(), Embedded { vectors, entries: good });
            }
        }
        Ok(out)
    }
}

/// A retrieval config from a value, its `task` left out.
pub fn parse(value: &toml::Value) -> Result<RetrievalConfig> {
    let mut value = value.clone();
    value.as_table_mut().and_then(|t| t.remove("task"));
    let config: RetrievalConfig = config::parse(&value, "")?;
    config.loader.check()?;
    config.train.check()?;
    Ok(config)
}

impl Task<Batch> for Retrieval {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<(Tensor, Vec<(String, f64)>)>> {
        let mut embedded = BTreeMap::new();
        for (modality, part) in &batch.parts {
            embedded.insert(modality, (self.project(modality, &part.input, train)?, &part.rows));
        }
        // Rows that show the same thing, or are captioned alike, are no negatives of each other.
        let mut numbers = HashMap::new();
        let mut number = |text: &str| -> i64 {
            let next = numbers.len() as i64;
            *numbers.entry(text.to_owned()).or_insert(next)
        };
        let items: Vec<i64> = batch.items.iter().map(|i| number(i)).collect();
        let (mut total, mut weights, mut parts): (Option<Tensor>, f64, Vec<_>) = (None, 0.0, Vec::new());
        for ((a, b), (loss, weight)) in &self.losses {
            let (Some((left, left_rows)), Some((right, right_rows))) = (embedded.get(a), embedded.get(b)) else {
                continue;
            };
            let shared: Vec<usize> = left_rows.iter().copied().filter(|r| right_rows.contains(r)).collect();
            if shared.len() < 2 || *weight == 0.0 {
                continue;
            }
            let pick = |x: &Tensor, rows: &[usize]| -> mm_core::Result<Tensor> {
                let places: Vec<i64> =
                    shared.iter().filter_map(|r| rows.iter().position(|o| o == r)).map(|p| p as i64).collect();
                x.index_select(0, &Tensor::from_slice(&places)?.to_device(x.device())?)
            };
            let (left, right) = (pick(left, left_rows)?, pick(right, right_rows)?);
            let shown =
                Tensor::from_slice(&shared.iter().map(|r| items[*r]).collect::<Vec<_>>())?.to_device(left.device())?;
            let same = shown.unsqueeze(0)?.eq(&shown.unsqueeze(1)?)?;
            let value = loss.loss(&left, &right, Some(&same))?;
            parts.push((format!("loss_{a}_{b}"), value.to_f64()?));
            parts.push((format!("temperature_{a}_{b}"), loss.temperature()?));
            let term = value.mul_scalar(*weight)?;
            weights += weight;
            total = Some(match total {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
        let Some(total) = total else { return Ok(None) };
        Ok(Some((total.mul_scalar(1.0 / weights)?, parts)))
    }
}

/// What an evaluation finds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evaluation {
    /// The side that was evaluated.
    pub split: Split,
    /// `image → text` and so on.
    pub directions: BTreeMap<String, RetrievalMetrics>,
    /// The same, with candidates of equal caption counted as right.
    pub equal_captions: BTreeMap<String, RetrievalMetrics>,
    /// Directions from a modality with languages, by language.
    pub languages: BTreeMap<String, BTreeMap<String, RetrievalMetrics>>,
    /// Distance between the modalities' centres, by pair.
    pub gaps: BTreeMap<String, f64>,
}

/// Figures of embedded modalities, every one against every other.
pub fn evaluate(embedded: &BTreeMap<Modality, Embedded>, split: Split) -> Result<Evaluation> {
    let mut out = Evaluation {
        split,
        directions: BTreeMap::new(),
        equal_captions: BTreeMap::new(),
        languages: BTreeMap::new(),
        gaps: BTreeMap::new(),
    };
    for (from, queries) in embedded {
        for (to, gallery) in embedded {
            if from == to {
                continue;
            }
            let name = format!("{from} → {to}");
            let (q, g) = (&queries.entries, &gallery.entries);
            let Ok(strict) = retrieval_metrics(&queries.vectors, &gallery.vectors, |a, b| q[a].item == g[b].item)
            else {
                continue;
            };
            let loose = retrieval_metrics(&queries.vectors, &gallery.vectors, |a, b| {
                q[a].item == g[b].item || q[a].text == g[b].text
            })?;
            let mut spoken: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
            for (place, entry) in q.iter().enumerate() {
                if let Some(language) = &entry.language {
                    spoken.entry(language).or_default().push(place as i64);
                }
            }
            if spoken.len() > 1 {
                for (language, places) in spoken {
                    let some = queries.vectors.index_select(0, &Tensor::from_slice(&places)?)?;
                    let right = |a: usize, b: usize| q[places[a] as usize].item == g[b].item;
                    if let Ok(metrics) = retrieval_metrics(&some, &gallery.vectors, right) {
                        out.languages.entry(name.clone()).or_default().insert(language.to_owned(), metrics);
                    }
                }
            }
            if from < to {
                let pairs: Vec<(i64, i64)> = q
                    .iter()
                    .enumerate()
                    .filter_map(|(a, e)| Some((a as i64, g.iter().position(|o| o.item == e.item)? as i64)))
                    .collect();
                let (left, right): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
                let pick = |x: &Tensor, places: &[i64]| x.index_select(0, &Tensor::from_slice(places)?);
                if left.len() > 1 {
                    let gap = diagnose::gap(&pick(&queries.vectors, &left)?, &pick(&gallery.vectors, &right)?)?;
                    out.gaps.insert(format!("{from}-{to}"), gap.centroid_distance);
                }
            }
            out.directions.insert(name.clone(), strict);
            out.equal_captions.insert(name, loose);
        }
    }
    if out.directions.is_empty() {
        return Err(Error::Config(format!(
            "the {split} side has no two modalities to retrieve between; data.split says how rows are split"
        )));
    }
    Ok(out)
}

/// The figure that training watches: the mean of recall at 10 over all directions.
pub const TARGET: &str = "recall_at_10";

/// Trains a model on its data ([`Retrieval::manifest`]) into its run folder.
pub fn fit(
    model: &Retrieval,
    manifest: Manifest,
    run: &mut Run,
    progress: &mut dyn Progress,
    told: Told<'_>,
    stop: &AtomicBool,
) -> Result<Fit> {
    let manifest = Arc::new(manifest);
    let processors = model.prepare(&manifest, told)?;
    let rows = manifest.side(Split::Train);
    if rows.len() < 2 {
        return Err(Error::Config(format!("the training side has {} rows; wanted at least two", rows.len())));
    }
    let count = rows.len();
    let config = &model.config;
    let loader =
        Loader::new(manifest.clone(), rows, processors.clone(), config.loader.clone(), config.train.seed, true)?;
    let has_valid = !manifest.side(Split::Valid).is_empty();
    let mut evaluate_now = || -> mm_train::Result<Option<BTreeMap<String, f64>>> {
        if !has_valid {
            return Ok(None);
        }
        let found = evaluate(&model.embed_with(&manifest, Split::Valid, &processors)?, Split::Valid)?;
        let mean = found.directions.values().map(|m| m.recall[2]).sum::<f64>() / found.directions.len() as f64;
        let mut values = BTreeMap::from([(TARGET.to_owned(), mean)]);
        for (direction, metrics) in &found.directions {
            let name = direction.replace(" → ", "_");
            values.insert(format!("{name}_at_1"), metrics.recall[0]);
            values.insert(format!("{name}_at_10"), metrics.recall[2]);
        }
        Ok(Some(values))
    };
    let input = TrainInput {
        config: &config.train,
        task: model,
        params: &model.params,
        loader: &loader,
        evaluate: &mut evaluate_now,
        target: TARGET,
        progress,
        stop,
    };
    let outcome = train(input, run)?;
    Ok(Fit { outcome, broken: loader.counts().broken, rows: count })
}
