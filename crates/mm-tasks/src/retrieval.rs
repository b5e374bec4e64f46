//! Cross-modal retrieval: a tower for each modality, each with a projection into one space, learned so that what shows the same lies
//! together (two-tower models: `DeViSE`, Frome 2013; CLIP, Radford 2021), over every pair of modalities that a row has.

use crate::{
    Error, Result,
    attending::{self, Attending, AttentionConfig},
    config::{CommonConfig, TaskConfig, parse_task},
    embedding::{Embedder, run_fingerprint},
    features::Frozen,
    metrics::{RetrievalMetrics, retrieval_metrics, score_metrics},
    spelling::{Spelling, SpellingConfig},
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec},
};
use mm_align::{ContrastiveConfig, ContrastiveKind, ContrastiveLoss, MemoryConfig, RobustConfig, diagnose, memory};
use mm_core::{
    BuildContext, Checkpoint, DType, Device, Encoder, Features, Init, Input, Modality, Module, Params, Pooling,
    ProcessContext, Processor, Registry, Scope, Source, Tensor, TrainingObjective,
    nn::{Linear, Norm, NormConfig},
    no_grad,
    seed::manual_seed,
};
use mm_data::{Batch, CachedProcessor, Loader, Manifest, Split, TensorCache, collate};
use mm_train::{Run, TrainHooks, Trainer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
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

/// Targets that are shared out by how alike a frozen encoder finds two rows (soft alignment, Gao 2024): a caption that is nearly right
/// is not pushed as far as one that has nothing to do with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftConfig {
    /// The modality whose frozen encoder says so.
    pub modality: String,
    /// Share of the loss that goes by it.
    #[serde(default = "share")]
    pub share: f64,
    /// What its cosines are divided by before their softmax.
    #[serde(default = "sharpness")]
    pub temperature: f64,
}

fn share() -> f64 {
    0.5
}

fn sharpness() -> f64 {
    0.1
}

/// Settings of a retrieval model and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
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
    /// Soft targets; every other row is equally wrong when absent.
    #[serde(default)]
    pub soft: Option<SoftConfig>,
    /// What is done about pairs that may not belong together; all are believed when absent.
    #[serde(default)]
    pub robust: Option<RobustConfig>,
    /// A modality that is spoken also learns what is written in its own language; not when absent.
    #[serde(default)]
    pub spelling: Option<SpellingConfig>,
    /// Vectors that are completed by what the training side of another modality knows; none when absent.
    #[serde(default)]
    pub memory: Option<MemoryConfig>,
    /// Positions of one modality also look at those of another; not when absent.
    #[serde(default)]
    pub attention: Option<AttentionConfig>,
}

fn width() -> i64 {
    256
}

impl TaskConfig for RetrievalConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }
}

/// Two layers with a residual, normalised: `[rows, input]` → `[rows, output]` of unit length.
pub(crate) struct Projection {
    norm_in: Norm,
    first: Linear,
    second: Linear,
    skip: Linear,
    dropout: f64,
}

impl Projection {
    pub fn new(scope: &Scope<'_>, input: i64, output: i64, config: &ProjectionConfig) -> Result<Self> {
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
    losses: BTreeMap<(Modality, Modality), (ContrastiveLoss, f64)>,
    spelling: Option<Spelling>,
    attending: Option<Attending>,
    /// Steps of training so far, where doubt begins after some; kept with the weights, so that a resumed run goes on alike.
    steps: Option<Tensor>,
    /// `[entries, width]`, once training is done.
    memory: RefCell<Option<Tensor>>,
    config: RetrievalConfig,
    base: PathBuf,
    cache: TensorCache,
    /// The run folder that it was loaded from.
    run: Option<PathBuf>,
}

/// What is remembered, in the run folder.
const MEMORY: &str = "memory.safetensors";

/// Values that go through an encoder together outside training.
const TOGETHER: usize = 64;

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
        let base = config.common.base_dir_or(base);
        if config.towers.len() < 2 {
            return Err(Error::Config(format!(
                "towers: found {}, wanted at least two modalities",
                config.towers.len()
            )));
        }
        manual_seed(config.common.train.seed);
        let params = Params::new(device);
        let root = params.scope();
        let mut towers = BTreeMap::new();
        for (name, tower) in &config.towers {
            let scope = root.pp("towers").pp(name);
            let context = BuildContext {
                scope: scope.pp("encoder"),
                base_dir: base.clone(),
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
                built.encoder.embedding_dim(),
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
                let loss = ContrastiveLoss::new(&root.pp("losses").pp(&key), &config.loss)?;
                losses.insert(((*a).clone(), (*b).clone()), (loss, weight));
            }
        }
        if let Some(key) = unused.first() {
            return Err(Error::Config(format!(
                "pairs.{key}: no such pair of towers (names stand in alphabetical order)"
            )));
        }
        if let Some(soft) = &config.soft {
            let tower = towers.get(&Modality::from(soft.modality.as_str()));
            if tower.is_none_or(|t| !t.frozen) {
                return Err(Error::Config(format!(
                    "soft.modality: found {:?}, wanted a modality whose tower has a frozen encoder",
                    soft.modality
                )));
            }
            if !(0.0..=1.0).contains(&soft.share) || soft.temperature <= 0.0 {
                return Err(Error::Config(format!(
                    "soft.share, soft.temperature: found {}, {}; wanted a share in [0, 1] and a positive number",
                    soft.share, soft.temperature
                )));
            }
        }
        if let Some(robust) = &config.robust
            && (!(0.0..1.0).contains(&robust.noise_rate)
                || config.loss.kind != ContrastiveKind::InfoNce
                || config.soft.is_some())
        {
            return Err(Error::Config(format!(
                "robust: found noise_rate {}, loss.kind {:?}{}; wanted a noise rate in [0, 1), InfoNCE and no soft targets",
                robust.noise_rate,
                config.loss.kind,
                if config.soft.is_some() { ", soft targets" } else { "" }
            )));
        }
        if let Some(memory) = &config.memory {
            let known = |name: &String| config.towers.contains_key(name);
            if !known(&memory.modality) || !memory.apply_to.iter().all(|m| known(m) && *m != memory.modality) {
                return Err(Error::Config(format!(
                    "memory: found modality {:?}, apply_to {:?}; expected towers of this config, each other than the one that is stored",
                    memory.modality, memory.apply_to
                )));
            }
            memory.validate()?;
        }
        let steps =
            config.robust.is_some().then(|| root.pp("robust").buffer("steps", &[1], Init::Zeros)).transpose()?;
        let spelling = config.spelling.as_ref().map(|spelling| {
            let tower = towers.get(&Modality::from(spelling.modality.as_str())).filter(|t| !t.frozen);
            let Some(tower) = tower else {
                return Err(Error::Config(format!(
                    "spelling.modality: found {:?}, wanted a modality whose tower learns",
                    spelling.modality
                )));
            };
            Spelling::new(&root.pp("spelling"), tower.encoder.embedding_dim(), config.width, spelling)
        });
        let spelling = spelling.transpose()?;
        let attending = config.attention.as_ref().map(|attention| {
            let width = |name: &str| {
                let tower = towers.get(&Modality::from(name)).filter(|_| attention.queries != attention.keys);
                let Some(tower) = tower else {
                    return Err(Error::Config(format!(
                        "attention.queries, attention.keys: found {:?} and {:?}, wanted two towers of this config",
                        attention.queries, attention.keys
                    )));
                };
                let (width, vector) = (tower.encoder.dim(), tower.encoder.embedding_dim());
                if tower.frozen && width != vector {
                    return Err(Error::Config(format!(
                        "attention: the frozen encoder of {name} gives positions of {width} and vectors of {vector} numbers; wanted as many of each"
                    )));
                }
                Ok(width)
            };
            let widths = [width(&attention.queries)?, width(&attention.keys)?];
            Attending::new(&root.pp("attention"), attention, widths, config.width, &config.loss)
        });
        let attending = attending.transpose()?;
        let cache = TensorCache::open_or_default(&base, config.common.cache_dir.as_deref())?;
        let memory = RefCell::default();
        Ok(Self { params, towers, losses, spelling, attending, steps, memory, config, base, cache, run: None })
    }

    /// Loads the model of a run folder: its best weights.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let mut model = Self::new(context.run_config(run)?, run, context.encoders, context.device)?;
        let (checkpoint, _) = Run::open_checkpoint(run, "best")?;
        model.params.load(&checkpoint, "model.")?;
        let remembered = run.join(MEMORY);
        // A run that is not done has none yet.
        if model.config.memory.is_some() && remembered.exists() {
            let vectors = Checkpoint::open(&remembered)?.get("vectors")?;
            model.memory.replace(Some(vectors.to_device(context.device)?));
        }
        model.run = Some(run.to_owned());
        Ok(model)
    }

    /// The same model before training.
    pub fn untrained(&self, context: &TaskContext<'_>) -> Result<Self> {
        Self::new(self.config.clone(), &self.base, context.encoders, context.device)
    }

    /// Its settings.
    pub fn config(&self) -> &RetrievalConfig {
        &self.config
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Its data, values of unwanted languages left out.
    pub fn manifest(&self) -> Result<Manifest> {
        let mut manifest = Manifest::open(&self.config.common.data, &self.base)?;
        for row in &mut manifest.rows {
            row.values.retain(|modality, _| self.towers.contains_key(modality));
            for (modality, tower) in &self.towers {
                row.retain_languages(modality, &tower.config.languages);
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

    /// Vectors `[samples, width]`, of unit length.
    fn embed_chunks(&self, modality: &Modality, samples: &[Tensor]) -> Result<Tensor> {
        let tower = self.tower(modality)?;
        let some = |samples: &[Tensor]| -> Result<Tensor> {
            let input = collate(samples, tower.processor.as_ref())?.to_device(self.params.device())?;
            no_grad(|| self.complete(modality, Self::shared(tower, tower.encoder.embed(&input, false)?, false)?))
        };
        let rows = samples.chunks(TOGETHER).map(some).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?)
    }

    /// Encodes, with every frozen encoder, what is not yet in the cache. The processors that a loader needs come back: of the kept
    /// features where the encoder is frozen, of (kept) samples where it is not.
    fn prepare(
        &self,
        manifest: &Manifest,
        on_progress: ProgressFn<'_>,
    ) -> Result<BTreeMap<Modality, Arc<dyn Processor>>> {
        let mut processors: BTreeMap<Modality, Arc<dyn Processor>> = BTreeMap::new();
        for (modality, tower) in &self.towers {
            if !tower.frozen {
                processors.insert(
                    modality.clone(),
                    Arc::new(CachedProcessor::new(tower.processor.clone(), self.cache.clone())),
                );
                continue;
            }
            let frozen = Frozen {
                encoder: tower.encoder.as_ref(),
                processor: &tower.processor,
                fingerprint: format!("{} {}", tower.fingerprint, tower.processor.fingerprint()),
                views: tower.config.views,
                positions: self.attends(modality),
            };
            let sources = manifest.rows.iter().filter_map(|r| r.values.get(modality)).flatten();
            let kept = frozen.keep(
                modality,
                sources,
                &self.cache,
                self.params.device(),
                &AtomicBool::new(false),
                on_progress,
            )?;
            processors.insert(modality.clone(), Arc::new(kept));
        }
        Ok(processors)
    }

    /// `[rows, width]` of unit length from what the loader gives.
    fn project(&self, modality: &Modality, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let (tower, features, _) = self.encode(modality, input, train)?;
        Self::shared(tower, features, train)
    }

    /// Whether a modality's positions look, or are looked at.
    fn attends(&self, modality: &Modality) -> bool {
        self.attending.as_ref().is_some_and(|a| a.modalities().contains(&modality))
    }

    /// What a tower's encoder makes of what the loader gives, `[rows, its width]`, and its positions where attention wants them.
    fn encode(
        &self,
        modality: &Modality,
        input: &Input,
        train: bool,
    ) -> mm_core::Result<(&Tower, Tensor, Option<Features>)> {
        let Some(tower) = self.towers.get(modality) else {
            return Err(mm_core::Error::unknown("modality", modality.name(), self.towers.keys().map(Modality::name)));
        };
        let input = input.to_device(self.params.device())?;
        if !self.attends(modality) {
            let features = if tower.frozen { input.values } else { tower.encoder.embed(&input, train)? };
            return Ok((tower, features, None));
        }
        if !tower.frozen {
            let (positions, vectors) = tower.encoder.encode_and_embed(&input, train)?;
            return Ok((tower, vectors, Some(positions)));
        }
        // The vector stands before the positions.
        let below = |t: &Tensor| t.narrow(1, 1, t.size(1)? - 1);
        let positions = Features::new(below(&input.values)?, input.mask.as_ref().map(below).transpose()?)?;
        Ok((tower, input.values.select(1, 0)?, Some(positions)))
    }

    /// An encoder's features in the shared space.
    fn shared(tower: &Tower, mut x: Tensor, train: bool) -> mm_core::Result<Tensor> {
        if train && tower.config.noise > 0.0 {
            let width = x.size(-1)? as f64;
            let length = x.norm(-1, true)?.mul_scalar(tower.config.noise / width.sqrt())?;
            x = x.add(&Tensor::randn(&x.shape(), DType::F32, x.device())?.mul(&length)?)?;
        }
        tower.projection.forward(&x, train)
    }

    /// Vectors with what is remembered beside them, where the config says so and there is something.
    fn complete(&self, modality: &Modality, x: Tensor) -> Result<Tensor> {
        match (&self.config.memory, &*self.memory.borrow()) {
            (Some(config), Some(remembered)) if config.apply_to.iter().any(|m| m == modality.name()) => {
                Ok(memory::interpolate(&x, remembered, config.weight, config.temperature)?)
            }
            _ => Ok(x),
        }
    }

    /// Remembers the training side of the modality that the config names, as the best weights see it, beside them in the run folder.
    fn remember(
        &self,
        manifest: &Manifest,
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
        run: &Path,
    ) -> Result<()> {
        let Some(config) = &self.config.memory else { return Ok(()) };
        let (checkpoint, _) = Run::open_checkpoint(run, "best")?;
        self.params.load(&checkpoint, "model.")?;
        let modality = Modality::from(config.modality.as_str());
        let one = processors.iter().filter(|(m, _)| **m == modality).map(|(m, p)| (m.clone(), p.clone())).collect();
        let Some(embedded) = self.embed_with(manifest, Split::Train, &one)?.remove(&modality) else {
            return Err(Error::Config(format!("memory: no row of the training side has {modality}")));
        };
        mm_core::checkpoint::save(&run.join(MEMORY), &[("vectors".to_owned(), embedded.vectors.clone())], &[])?;
        self.memory.replace(Some(embedded.vectors.to_device(self.params.device())?));
        Ok(())
    }

    /// All values of one side, embedded: of texts and pictures the first of each row, of other modalities every one.
    pub fn embed_side(
        &self,
        manifest: &Arc<Manifest>,
        split: Split,
        on_progress: ProgressFn<'_>,
    ) -> Result<BTreeMap<Modality, Embedded>> {
        let processors = self.prepare(manifest, on_progress)?;
        self.embed_with(manifest, split, &processors)
    }

    /// Its data with the texts of all languages, for what voices say.
    fn whole(&self, spelling: &Spelling) -> Result<Manifest> {
        let modality = Modality::from(spelling.modality());
        let mut manifest = Manifest::open(&self.config.common.data, &self.base)?;
        for row in &mut manifest.rows {
            row.retain_languages(&modality, &self.config.towers[spelling.modality()].languages);
        }
        Ok(manifest)
    }

    /// All values of one side as [`Retrieval::embed_side`] embeds them, and their figures, with what voices say and how words look at pictures
    /// where the model learned that.
    pub fn evaluated(
        &self,
        manifest: &Arc<Manifest>,
        split: Split,
        on_progress: ProgressFn<'_>,
    ) -> Result<(BTreeMap<Modality, Embedded>, Evaluation)> {
        let processors = self.prepare(manifest, on_progress)?;
        let embedded = self.embed_with(manifest, split, &processors)?;
        let (spelling, attention) = (self.heard(split)?, self.looked(&embedded, &processors)?);
        let evaluation = Evaluation { spelling, attention, ..evaluate(&embedded, split)? };
        Ok((embedded, evaluation))
    }

    /// How well pairs are ranked by attention, and by attention and vectors together; nothing where the model did not learn to look.
    fn looked(
        &self,
        embedded: &BTreeMap<Modality, Embedded>,
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
    ) -> Result<BTreeMap<String, RetrievalMetrics>> {
        let mut out = BTreeMap::new();
        let Some(attending) = &self.attending else { return Ok(out) };
        let [asking, asked] = attending.modalities();
        let (Some(queries), Some(keys)) = (embedded.get(asking), embedded.get(asked)) else { return Ok(out) };
        // Where they are compared, in pieces.
        let positions = |side: usize, modality: &Modality, entries: &[Entry]| -> Result<Vec<Features>> {
            let processor = &processors[modality];
            let piece = |entries: &[Entry]| -> Result<Features> {
                let make = |entry: &Entry| processor.process(&entry.source, &mut ProcessContext::eval());
                let samples = entries.par_iter().map(make).collect::<Result<Vec<_>, _>>()?;
                let input = collate(&samples, processor.as_ref())?;
                let (.., positions) = no_grad(|| self.encode(modality, &input, false))?;
                let positions = positions.ok_or_else(|| Error::Config(format!("{modality} has no positions")))?;
                Ok(no_grad(|| attending.project(side, &positions, false))?)
            };
            attending::pieces(entries).map(piece).collect()
        };
        let (left, right) = (positions(0, asking, &queries.entries)?, positions(1, asked, &keys.entries)?);
        let agreement = no_grad(|| attending.agreement(&left, &right))?.to_device(Device::Cpu)?;
        let both = agreement.add(&queries.vectors.matmul(&keys.vectors.transpose(0, 1)?)?)?;
        for (how, scores) in [("attention", agreement), ("attention and vectors", both)] {
            let fits = |q: usize, k: usize| queries.entries[q].item == keys.entries[k].item;
            let ways = [
                (format!("{asking} → {asked}, {how}"), score_metrics(&scores, fits)),
                (format!("{asked} → {asking}, {how}"), score_metrics(&scores.transpose(0, 1)?, |k, q| fits(q, k))),
            ];
            out.extend(ways.into_iter().filter_map(|(name, found)| Some((name, found.ok()?))));
        }
        Ok(out)
    }

    /// Where each position of one value looks in the other, for showing; none where the model did not learn to look.
    pub fn look(&self, queries: &Source, keys: &Source) -> Result<Option<Gaze>> {
        let Some(attending) = &self.attending else { return Ok(None) };
        let [asking, asked] = attending.modalities();
        let side = |side: usize, modality: &Modality, source: &Source| -> Result<(Tensor, Features)> {
            let tower = self.tower(modality)?;
            let sample = tower.processor.process(source, &mut ProcessContext::eval())?;
            let input = collate(std::slice::from_ref(&sample), tower.processor.as_ref())?;
            let input = input.to_device(self.params.device())?;
            let positions = no_grad(|| attending.project(side, &tower.encoder.encode(&input, false)?, false))?;
            Ok((sample, positions))
        };
        let ((_, queried), (ground, keyed)) = (side(0, asking, queries)?, side(1, asked, keys)?);
        let map = no_grad(|| attending.map(&queried, &keyed))?;
        let across = map.size(1)? as usize;
        let side = (across as f64).sqrt().round() as usize;
        let grid = if *asked == Modality::IMAGE && side * side == across { [side, side] } else { [1, across] };
        let rows = map.to_vec::<f32>()?;
        let names = self.tower(asking)?.processor.token_names(queries)?;
        let named = names.into_iter().chain(std::iter::repeat(String::new()));
        let looks = rows.chunks(across.max(1)).zip(named).map(|(weights, name)| (name, weights.to_vec())).collect();
        Ok(Some(Gaze { ground, grid, looks }))
    }

    /// Who looks, and who is looked at, where the model learned it.
    pub fn looks(&self) -> Option<[&Modality; 2]> {
        self.attending.as_ref().map(Attending::modalities)
    }

    /// How the voices of one side find the text of their row among all in their own language, by language; nothing where the model did
    /// not learn what is written.
    pub fn heard(&self, split: Split) -> Result<BTreeMap<String, RetrievalMetrics>> {
        let mut out = BTreeMap::new();
        let Some(spelling) = &self.spelling else { return Ok(out) };
        let manifest = self.whole(spelling)?;
        let modality = Modality::from(spelling.modality());
        let tower = self.tower(&modality)?;
        let processor = CachedProcessor::new(tower.processor.clone(), self.cache.clone());
        let side = manifest.rows_in_split(split);
        let mut spoken: BTreeMap<&str, Vec<(usize, &Source)>> = BTreeMap::new();
        for row in &side {
            for (language, source) in spoken_values(&manifest, *row, &modality) {
                spoken.entry(language).or_default().push((*row, source));
            }
        }
        let written = written(&manifest, &side);
        for (language, voices) in spoken {
            let Some(texts) = written.get(language) else { continue };
            let (mut rows, mut vectors) = (Vec::new(), Vec::new());
            for chunk in voices.chunks(TOGETHER) {
                let make = |(row, source): &(usize, &Source)| {
                    Some((*row, processor.process(source, &mut ProcessContext::eval()).ok()?))
                };
                let (some, samples): (Vec<usize>, Vec<Tensor>) = chunk.par_iter().filter_map(make).unzip();
                if samples.is_empty() {
                    continue;
                }
                let input = collate(&samples, tower.processor.as_ref())?;
                let found = no_grad(|| spelling.spoken(&self.encode(&modality, &input, false)?.1, false))?;
                vectors.push(found.to_device(Device::Cpu)?);
                rows.extend(some);
            }
            if vectors.is_empty() {
                continue;
            }
            let vectors = Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?;
            let letters = self.letters(spelling, texts)?;
            let item = |row: usize| &manifest.rows[row].item;
            let right = |voice: usize, text: usize| item(rows[voice]) == item(texts[text].0);
            if let Ok(metrics) = retrieval_metrics(&vectors, &letters, right) {
                out.insert(language.to_owned(), metrics);
            }
        }
        Ok(out)
    }

    /// The texts of a language, the first of each row, by how well a voice says them, best first.
    pub fn words(&self, voice: &Source, language: &str, sides: &[Split]) -> Result<Vec<Said>> {
        let Some(spelling) = &self.spelling else {
            return Err(Error::Config(
                "this run did not learn what is written; wanted one with `[spelling]` in its config".into(),
            ));
        };
        let manifest = self.whole(spelling)?;
        let modality = Modality::from(spelling.modality());
        let tower = self.tower(&modality)?;
        let sample = tower.processor.process(voice, &mut ProcessContext::eval())?;
        let input = collate(&[sample], tower.processor.as_ref())?;
        let spoken = no_grad(|| spelling.spoken(&self.encode(&modality, &input, false)?.1, false))?;
        let rows: Vec<usize> = sides.iter().flat_map(|side| manifest.rows_in_split(*side)).collect();
        let written = written(&manifest, &rows);
        let texts = written
            .get(language)
            .ok_or_else(|| mm_core::Error::unknown("language of its texts", language, written.keys().copied()))?;
        let scores = self.letters(spelling, texts)?.matmul(&spoken.to_device(Device::Cpu)?.transpose(0, 1)?)?;
        let mut out: Vec<Said> = texts
            .iter()
            .zip(scores.to_vec::<f64>()?)
            .map(|((row, text), score)| Said { id: manifest.rows[*row].id.clone(), text: (*text).to_owned(), score })
            .collect();
        out.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(out)
    }

    /// Texts by their letters, `[texts, width]` of unit length.
    fn letters(&self, spelling: &Spelling, texts: &[(usize, &str)]) -> Result<Tensor> {
        let grams: Vec<Vec<i64>> = texts.iter().map(|(_, text)| spelling.grams(text)).collect();
        let grams: Vec<&[i64]> = grams.iter().map(Vec::as_slice).collect();
        Ok(no_grad(|| spelling.letters(&grams, self.params.device(), false))?.to_device(Device::Cpu)?)
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
            for row in manifest.rows_in_split(split) {
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
                if let Source::Path(path) = s { std::fs::metadata(path).map_or(0, |m| m.len()) } else { 0 }
            };
            entries.sort_by_cached_key(|e| (size(&e.source), e.row));
            for chunk in entries.chunks(TOGETHER) {
                let samples: Vec<_> =
                    chunk.par_iter().map(|e| processor.process(&e.source, &mut ProcessContext::eval())).collect();
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
                    let made = no_grad(|| self.complete(modality, self.project(modality, &input, false)?))?;
                    vectors.push(made.to_device(Device::Cpu)?);
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

/// `[names, names]` bool: which are the same.
pub(crate) fn equal(names: &[&str]) -> mm_core::Result<Tensor> {
    let mut numbers = HashMap::new();
    let each: Vec<i64> = names
        .iter()
        .map(|name| {
            let next = numbers.len() as i64;
            *numbers.entry(*name).or_insert(next)
        })
        .collect();
    let each = Tensor::from_slice(&each)?;
    each.unsqueeze(0)?.eq(&each.unsqueeze(1)?)
}

/// The values of a row that say their language, with it.
fn spoken_values<'m>(
    manifest: &'m Manifest,
    row: usize,
    modality: &Modality,
) -> impl Iterator<Item = (&'m str, &'m Source)> + use<'m> {
    let row = &manifest.rows[row];
    let languages = row.languages.get(modality).into_iter().flatten();
    let values = row.values.get(modality).into_iter().flatten();
    values.zip(languages).filter_map(|(value, language)| Some((language.as_deref()?, value)))
}

/// The first text of each row, by language.
fn written<'m>(manifest: &'m Manifest, rows: &[usize]) -> BTreeMap<&'m str, Vec<(usize, &'m str)>> {
    let mut out: BTreeMap<&str, Vec<(usize, &str)>> = BTreeMap::new();
    for row in rows {
        for (language, source) in spoken_values(manifest, *row, &Modality::TEXT) {
            let texts = out.entry(language).or_default();
            if let (Source::Text(text), false) = (source, texts.last().is_some_and(|(last, _)| last == row)) {
                texts.push((*row, text.as_str()));
            }
        }
    }
    out
}

/// Where the positions of one value look in another.
#[derive(Debug, Clone)]
pub struct Gaze {
    /// What is looked at, as its encoder takes it: a picture `[3, height, width]`, a sound `[frames, bands]`.
    pub ground: Tensor,
    /// Rows and columns of what is looked at: a square of a picture, one row of a sound.
    pub grid: [usize; 2],
    /// Each position's name, empty where it has none, and its weights on the grid, summing to one.
    pub looks: Vec<(String, Vec<f32>)>,
}

/// A text and how well a voice says it.
#[derive(Debug, Clone)]
pub struct Said {
    /// The row that it is of.
    pub id: String,
    /// The text.
    pub text: String,
    /// Cosine of the voice and the text's letters.
    pub score: f64,
}

/// `[rows, rows]`, each summing to one: how alike rows of a batch are by a frozen encoder's features. A row that lacks them is like
/// itself alone.
fn soft_targets(config: &SoftConfig, batch: &Batch, rows: &[usize]) -> mm_core::Result<Tensor> {
    let own = Tensor::eye(rows.len() as i64, DType::F32, Device::Cpu)?;
    let Some(part) = batch.modalities.get(&Modality::from(config.modality.as_str())) else { return Ok(own) };
    let places: Vec<Option<usize>> = rows.iter().map(|r| part.rows.iter().position(|o| o == r)).collect();
    let picked: Vec<i64> = places.iter().map(|p| p.unwrap_or(0) as i64).collect();
    let there: Vec<bool> = places.iter().map(Option::is_some).collect();
    let features = part.input.values.index_select(0, &Tensor::from_slice(&picked)?)?.normalize()?;
    let cosines = features.matmul(&features.transpose(0, 1)?)?.mul_scalar(1.0 / config.temperature)?;
    let there = Tensor::from_slice(&there)?;
    let known = there.unsqueeze(0)?.logical_and(&there.unsqueeze(1)?)?.logical_or(&own.gt_scalar(0.5)?)?;
    cosines.masked_fill(&known.logical_not()?, DType::F32.mask_value())?.softmax(1)
}

/// The rows that stand in both.
fn common(left: &[usize], right: &[usize]) -> Vec<usize> {
    left.iter().copied().filter(|r| right.contains(r)).collect()
}

/// Of what stands for `rows`, what stands for some of them, in their order.
fn pick(x: &Tensor, rows: &[usize], some: &[usize]) -> mm_core::Result<Tensor> {
    let places: Vec<i64> = some.iter().filter_map(|r| rows.iter().position(|o| o == r)).map(|p| p as i64).collect();
    x.index_select(0, &Tensor::from_slice(&places)?.to_device(x.device())?)
}

/// `[rows, rows]` bool: rows of a batch that show the same thing, or are captioned alike, are no negatives of each other.
fn alike(batch: &Batch, rows: &[usize]) -> mm_core::Result<Tensor> {
    let shown: Vec<&str> = rows.iter().map(|r| batch.items[*r].as_str()).collect();
    equal(&shown)
}

impl TrainingObjective<Batch> for Retrieval {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<(Tensor, Vec<(String, f64)>)>> {
        let mut embedded = BTreeMap::new();
        let mut written = None;
        let mut positions = BTreeMap::new();
        for (modality, part) in &batch.modalities {
            let (tower, features, each) = self.encode(modality, &part.input, train)?;
            positions.extend(each.map(|each| (modality, (each, &part.rows))));
            if let Some(spelling) = self.spelling.as_ref().filter(|s| s.modality() == modality.name()) {
                let value = spelling.loss(&features, part, &batch.rows, train)?;
                written = value.map(|v| (v, spelling.weight()));
            }
            embedded.insert(modality, (Self::shared(tower, features, train)?, &part.rows));
        }
        let step = match &self.steps {
            Some(steps) if train => {
                let now = steps.to_f64()?;
                steps.copy_(&steps.add_scalar(1.0)?)?;
                Some(now as u64)
            }
            _ => None,
        };
        let (mut total, mut weights, mut parts): (Option<Tensor>, f64, Vec<_>) = (None, 0.0, Vec::new());
        for ((a, b), (loss, weight)) in &self.losses {
            let (Some((left, left_rows)), Some((right, right_rows))) = (embedded.get(a), embedded.get(b)) else {
                continue;
            };
            let shared = common(left_rows, right_rows);
            if shared.len() < 2 || *weight == 0.0 {
                continue;
            }
            let (left, right) = (pick(left, left_rows, &shared)?, pick(right, right_rows, &shared)?);
            let same = alike(batch, &shared)?.to_device(left.device())?;
            let mut value = match (&self.config.robust, step) {
                (Some(robust), Some(step)) => loss.forward_robust(&left, &right, Some(&same), robust, step)?,
                _ => loss.forward(&left, &right, Some(&same))?,
            };
            if let Some(soft) = &self.config.soft {
                let target = soft_targets(soft, batch, &shared)?.to_device(left.device())?;
                let by = loss.forward_soft_targets(&left, &right, &target)?;
                value = value.mul_scalar(1.0 - soft.share)?.add(&by.mul_scalar(soft.share)?)?;
            }
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
        let mut total = total.mul_scalar(1.0 / weights)?;
        if let Some((value, weight)) = written {
            parts.push(("loss_spelling".to_owned(), value.to_f64()?));
            total = total.add(&value.mul_scalar(weight)?)?;
        }
        if let Some(attending) = &self.attending {
            let [asking, asked] = attending.modalities();
            if let (Some((queries, of_queries)), Some((keys, of_keys))) = (positions.get(asking), positions.get(asked))
            {
                let shared = common(of_queries, of_keys);
                if shared.len() > 1 {
                    let some = |x: &Features, rows: &[usize]| {
                        let mask = x.mask.as_ref().map(|m| pick(m, rows, &shared)).transpose()?;
                        Features::new(pick(&x.values, rows, &shared)?, mask)
                    };
                    let queries = attending.project(0, &some(queries, of_queries)?, train)?;
                    let keys = attending.project(1, &some(keys, of_keys)?, train)?;
                    let same = alike(batch, &shared)?.to_device(keys.values.device())?;
                    let value = attending.loss(&queries, &keys, &same).map_err(mm_core::Error::from)?;
                    parts.push(("loss_attention".to_owned(), value.to_f64()?));
                    total = total.add(&value.mul_scalar(attending.weight())?)?;
                }
            }
        }
        Ok(Some((total, parts)))
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
    /// Where voices learned what is written: how they find the text of their row among those in their own language, by language.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spelling: BTreeMap<String, RetrievalMetrics>,
    /// Where positions learned to look: how pairs are ranked by that, by direction.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attention: BTreeMap<String, RetrievalMetrics>,
}

/// Figures of embedded modalities, every one against every other.
pub fn evaluate(embedded: &BTreeMap<Modality, Embedded>, split: Split) -> Result<Evaluation> {
    let mut out = Evaluation {
        split,
        directions: BTreeMap::new(),
        equal_captions: BTreeMap::new(),
        languages: BTreeMap::new(),
        gaps: BTreeMap::new(),
        spelling: BTreeMap::new(),
        attention: BTreeMap::new(),
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
                    let gap =
                        diagnose::modality_gap(&pick(&queries.vectors, &left)?, &pick(&gallery.vectors, &right)?)?;
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
pub fn fit(model: &Retrieval, manifest: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
    let FitContext { progress, on_progress, stop } = context;
    let manifest = Arc::new(manifest);
    let processors = model.prepare(&manifest, on_progress)?;
    let rows = manifest.rows_in_split(Split::Train);
    if rows.len() < 2 {
        return Err(Error::Config(format!("the training side has {} rows; wanted at least two", rows.len())));
    }
    let count = rows.len();
    let config = &model.config;
    if let Some(spelling) = &model.spelling {
        spelling.read(&model.whole(spelling)?)?;
    }
    let loader = Loader::builder(manifest.clone())
        .rows(rows)
        .processors(processors.clone())
        .config(config.common.loader.clone())
        .seed(config.common.train.seed)
        .for_training()
        .build()?;
    let has_valid = !manifest.rows_in_split(Split::Valid).is_empty();
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
    let hooks = TrainHooks { evaluate: &mut evaluate_now, progress, stop };
    let trainer = Trainer::new(&config.common.train, model, &model.params, &loader)?;
    let outcome = trainer.with_metric(TARGET).fit(run, hooks)?;
    if !outcome.stopped {
        model.remember(&manifest, &processors, run.folder())?;
    }
    Ok(FitOutcome { training: outcome, failed: loader.failed_samples(), rows: count })
}

/// The name that configs give as `task`.
pub const TASK: &str = "retrieval";

/// The command that uses a trained run.
const USAGE: &str = "mm search";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "find a value of one modality by a value of another",
        usage: USAGE,
        parse: |value| parse_task::<RetrievalConfig>(value).map(drop),
        resolve: |_, _, _, _| Ok(()),
        build: |value, base, context| {
            Ok(Box::new(Retrieval::new(parse_task(value)?, base, context.encoders, context.device)?))
        },
        load: |run, context| Ok(Box::new(Retrieval::load(run, context)?)),
        report: crate::report::build,
        owns_folder: |_| false,
    }
}

impl TaskModel for Retrieval {
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
        fit(self, dataset, run, context)
    }

    fn evaluate(&self, split: Split, _: &TaskContext<'_>, on_progress: ProgressFn<'_>) -> Result<EvaluationReport> {
        let manifest = Arc::new(self.manifest()?);
        let (_, evaluation) = self.evaluated(&manifest, split, on_progress)?;
        let json = serde_json::to_value(&evaluation).map_err(|e| Error::Config(e.to_string()))?;
        Ok(EvaluationReport { json, table: table(&evaluation) })
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }
}

impl Embedder for Retrieval {
    fn modalities(&self) -> Vec<Modality> {
        self.towers.keys().cloned().collect()
    }

    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>> {
        Ok(self.tower(modality)?.processor.clone())
    }

    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], _: Option<Pooling>) -> Result<Tensor> {
        self.embed_chunks(modality, samples)
    }

    fn fingerprint(&self) -> Result<String> {
        run_fingerprint(self.run.as_deref())
    }
}

fn table(evaluation: &Evaluation) -> Vec<Vec<String>> {
    let head = ["direction", "R@1", "R@5", "R@10", "median rank", "mAP", "chance R@10", "queries", "candidates"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    let written = evaluation.spelling.iter().map(|(language, m)| (format!("voice → its own words, {language}"), m));
    let directions = evaluation.directions.iter().map(|(direction, m)| (direction.clone(), m));
    let looked = evaluation.attention.iter().map(|(direction, m)| (direction.clone(), m));
    for (direction, m) in directions.chain(looked).chain(written) {
        let [one, five, ten] = m.recall.map(|v| format!("{v:.3}"));
        rows.push(vec![
            direction,
            one,
            five,
            ten,
            format!("{:.1}", m.median_rank),
            format!("{:.3}", m.map),
            format!("{:.3}", m.chance[2]),
            m.queries.to_string(),
            m.gallery.to_string(),
        ]);
    }
    rows
}
