//! Learned representation: an autoencoder or an adversary of mm-repr on the modalities of a data set, held against what is simpler on
//! rows that it never saw: principal components of the same width, a network that learned nothing, the nearest neighbour, the mean.

use crate::{
    Error, Result,
    config::{CommonConfig, TaskConfig, parse_task, to_value},
    embedding::{Embedder, run_fingerprint},
    features::Frozen,
    metrics::{Pca, accuracy, majority, probe, retrieval_metrics, ridge},
    retrieval::Retrieval,
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskRegistry, TaskSpec},
};
use mm_core::{
    BuildContext, BuiltEncoder, DType, Device, Encoder, Features, Init, Input, InputSet, LossOutput, Modality, Params,
    Pooling, ProcessContext, Processor, Registry, RepresentationLearner, Source, Tensor, TrainingObjective, no_grad,
    seed::{Rng, manual_seed},
};
use mm_data::{Batch, Loader, Manifest, Split, TensorCache, collate};
use mm_repr::generative::{BuiltInput, InputConfig, InputSpecs, ValueType, build_input};
use mm_train::{Run, TrainHooks, Trainer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

/// Settings of a representation and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepresentationConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// How each modality's values become numbers.
    pub inputs: BTreeMap<String, InputConfig>,
    /// Languages that are kept of a modality's values; all when it is not named.
    #[serde(default)]
    pub languages: BTreeMap<String, Vec<String>>,
    /// The classes of the labels, in the order of their numbers; taken from the training rows when absent.
    #[serde(default)]
    pub classes: Option<Vec<String>>,
    /// The learner, by its `kind`.
    pub model: toml::Value,
    /// A retrieval run that ranks made pictures by the text that they were made from.
    #[serde(default)]
    pub judge: Option<PathBuf>,
}

impl TaskConfig for RepresentationConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }

    fn validate(&self) -> Result<()> {
        if self.inputs.is_empty() {
            return Err(Error::invalid("inputs", "none", "at least one modality"));
        }
        Ok(())
    }
}

/// Fills in what the inputs take from the training rows (words, characters), and the classes; nothing where they are known.
fn learn_settings(config: &mut RepresentationConfig, base: &Path) -> Result<()> {
    if config.classes.is_some() {
        return Ok(());
    }
    let manifest = manifest(config, base)?;
    let train = manifest.rows_in_split(Split::Train);
    for (name, input) in &mut config.inputs {
        let modality = Modality::from(name.as_str());
        input.fit(train.iter().flat_map(|r| manifest.rows[*r].values.get(&modality).into_iter().flatten()))?;
    }
    let mut classes: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for label in train.iter().filter_map(|r| manifest.rows[*r].label.as_ref()) {
        if seen.insert(label) {
            classes.push(label.clone());
        }
    }
    config.classes = Some(classes);
    Ok(())
}

/// Writes into a config what its training rows say, so that a run does not depend on its manifest any more.
pub fn resolve(value: &mut toml::Value, base: &Path) -> Result<()> {
    let mut config: RepresentationConfig = parse_task(value)?;
    let base = config.common.base_dir_or(base);
    learn_settings(&mut config, &base)?;
    *value = to_value(&config)?;
    Ok(())
}

/// Mean and deviation that a modality's numbers are brought to zero and one by; learned from the training rows.
struct Level {
    mean: Tensor,
    deviation: Tensor,
}

/// A learner on the modalities of a data set.
pub struct Representation {
    params: Params,
    inputs: BTreeMap<Modality, BuiltInput>,
    levels: BTreeMap<Modality, Level>,
    learner: Box<dyn RepresentationLearner>,
    labels: BTreeMap<String, i64>,
    /// The label of each row of the manifest, for learners that use them; set by [`Representation::fit`].
    row_labels: std::cell::RefCell<Vec<i64>>,
    config: RepresentationConfig,
    base: PathBuf,
    cache: TensorCache,
    /// The run folder that it was loaded from.
    run: Option<PathBuf>,
}

/// Rows that an evaluation takes at most; more would not move its figures by much, and memory is bounded.
const MOST: usize = 8000;

impl Representation {
    /// Builds the model fresh, its weights a function of the seed. What the inputs take from the training rows (words, characters) and
    /// the labels is taken from the manifest where `config` does not say it; [`Representation::config`] then does.
    pub fn new(mut config: RepresentationConfig, base: &Path, registry: &Registry, device: Device) -> Result<Self> {
        let base = config.common.base_dir_or(base);
        learn_settings(&mut config, &base)?;
        let labels: BTreeMap<String, i64> = config.classes.iter().flatten().cloned().zip(0..).collect();
        manual_seed(config.common.train.seed);
        let params = Params::new(device);
        let root = params.scope();
        let (mut inputs, mut levels, mut specs) = (BTreeMap::new(), BTreeMap::new(), InputSpecs::new());
        for (name, settings) in &config.inputs {
            let modality = Modality::from(name.as_str());
            let scope = root.pp("inputs").pp(name);
            let context =
                BuildContext { scope: scope.pp("encoder"), base_dir: base.clone(), field: format!("inputs.{name}") };
            let built = build_input(settings, registry, &context)?;
            if built.spec.value_type == ValueType::Real {
                // Of vectors each number has its own; a spectrogram is one thing.
                let width = if built.spec.shape.len() == 1 { built.spec.numel() } else { 1 };
                let level = Level {
                    mean: scope.buffer("mean", &[width], Init::Zeros)?,
                    deviation: scope.buffer("deviation", &[width], Init::Ones)?,
                };
                levels.insert(modality.clone(), level);
            }
            specs.insert(modality.clone(), built.spec.clone());
            inputs.insert(modality, built);
        }
        let learner = mm_repr::LearnerRegistry::default().build(
            &config.model,
            "model",
            &specs,
            labels.len() as i64,
            &root.pp("model"),
        )?;
        let cache = TensorCache::open_or_default(&base, config.common.cache_dir.as_deref())?;
        let row_labels = std::cell::RefCell::default();
        Ok(Self { params, inputs, levels, learner, labels, row_labels, config, base, cache, run: None })
    }

    /// Loads the model of a run folder: its best weights.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let mut model = Self::new(context.run_config(run)?, run, context.encoders, context.device)?;
        let (checkpoint, _) = Run::open_checkpoint(run, "best")?;
        model.params.load(&checkpoint, "model.")?;
        model.run = Some(run.to_owned());
        Ok(model)
    }

    /// Its settings.
    pub fn config(&self) -> &RepresentationConfig {
        &self.config
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What learned.
    pub fn learner(&self) -> &dyn RepresentationLearner {
        self.learner.as_ref()
    }

    /// The modalities that it takes.
    pub fn input_modalities(&self) -> impl Iterator<Item = &Modality> {
        self.inputs.keys()
    }

    /// What the numbers of a modality are.
    pub fn values(&self, modality: &Modality) -> Option<ValueType> {
        self.inputs.get(modality).map(|i| i.spec.value_type)
    }

    /// Its data, values of unwanted languages and other modalities left out.
    pub fn manifest(&self) -> Result<Manifest> {
        manifest(&self.config, &self.base)
    }

    fn processors(
        &self,
        manifest: &Manifest,
        on_progress: ProgressFn<'_>,
    ) -> Result<BTreeMap<Modality, Arc<dyn Processor>>> {
        let mut out: BTreeMap<Modality, Arc<dyn Processor>> = BTreeMap::new();
        for (modality, built) in &self.inputs {
            let processor: Arc<dyn Processor> = match &built.encoder {
                // Files are worth keeping decoded; what stands in the manifest is made as fast as it is read.
                None => match self.config.inputs.get(modality.name()) {
                    Some(InputConfig::Image { .. } | InputConfig::Spectrogram { .. }) => {
                        Arc::new(mm_data::CachedProcessor::new(built.processor.clone(), self.cache.clone()))
                    }
                    _ => built.processor.clone(),
                },
                Some((encoder, fingerprint)) => {
                    let frozen = Frozen {
                        encoder: encoder.as_ref(),
                        processor: &built.processor,
                        fingerprint: fingerprint.clone(),
                        views: 0,
                        positions: false,
                    };
                    let sources = manifest.rows.iter().filter_map(|r| r.values.get(modality)).flatten();
                    Arc::new(frozen.keep(
                        modality,
                        sources,
                        &self.cache,
                        self.params.device(),
                        &AtomicBool::new(false),
                        on_progress,
                    )?)
                }
            };
            out.insert(modality.clone(), processor);
        }
        Ok(out)
    }

    /// Numbers as the learner wants them.
    fn level(&self, modality: &Modality, values: &Tensor) -> mm_core::Result<Tensor> {
        match self.levels.get(modality) {
            Some(level) => values.sub(&level.mean)?.div(&level.deviation),
            None => Ok(values.clone()),
        }
    }

    /// The rows of a batch with zeros where one lacks a modality.
    fn set(&self, rows: usize, parts: Vec<(&Modality, &Tensor, &[usize])>) -> mm_core::Result<InputSet> {
        let mut out = BTreeMap::new();
        for (modality, values, has) in parts {
            let values = self.level(modality, &values.to_device(self.params.device())?)?;
            let mut present = vec![false; rows];
            has.iter().for_each(|r| present[*r] = true);
            let values = if has.len() == rows {
                values
            } else {
                let mut shape = values.shape();
                let absent = shape[0];
                shape[0] = 1;
                let blank = Tensor::zeros(&shape, values.dtype()?, values.device())?;
                let mut places = vec![absent; rows];
                has.iter().enumerate().for_each(|(place, row)| places[*row] = place as i64);
                let places = Tensor::from_slice(&places)?.to_device(values.device())?;
                Tensor::cat(&[&values, &blank], 0)?.index_select(0, &places)?
            };
            let present = Tensor::from_slice(&present)?.to_device(values.device())?;
            out.insert(modality.clone(), (Input { values, mask: None }, present));
        }
        Ok(InputSet { rows: rows as i64, parts: out, labels: None })
    }

    fn label(&self, row: &mm_data::Row) -> i64 {
        row.label.as_ref().and_then(|l| self.labels.get(l)).copied().unwrap_or(-1)
    }

    /// The modalities of which it makes a code alone.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Modality> {
        self.inputs.keys().filter(|m| self.learner.accepts(m))
    }

    fn input(&self, modality: &Modality) -> Result<&BuiltInput> {
        let known = self.inputs.keys().map(Modality::name);
        let found = self.inputs.get(modality);
        Ok(found.ok_or_else(|| mm_core::Error::unknown("modality of this run", modality.name(), known))?)
    }

    /// Vectors `[samples, width]`.
    fn embed_batch(&self, modality: &Modality, samples: &[Tensor]) -> Result<Tensor> {
        let built = self.input(modality)?;
        if !self.learner.accepts(modality) {
            let wanted = self.reads().map(Modality::name).collect::<Vec<_>>().join(", ");
            return Err(Error::Config(format!("this run makes no code of {modality} alone; wanted {wanted}")));
        }
        let mut input = collate(samples, built.processor.as_ref())?.to_device(self.params.device())?;
        Ok(no_grad(|| {
            if let Some((encoder, _)) = &built.encoder {
                input = Input { values: encoder.embed(&input, false)?, mask: None };
            }
            input.values = self.level(modality, &input.values)?;
            self.learner.encode(&InputSet::of(modality.clone(), input)?)
        })?)
    }

    /// All rows of one side, at most [`MOST`] drawn by a fixed seed; of each modality the first value.
    fn gather(
        &self,
        manifest: &Manifest,
        split: Split,
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
    ) -> Result<Gathered> {
        let mut rows = manifest.rows_in_split(split);
        if rows.len() > MOST {
            Rng::new(&[5]).shuffle(&mut rows);
            rows.truncate(MOST);
            rows.sort_unstable();
        }
        let mut parts = Vec::new();
        for (modality, processor) in processors {
            let samples: Vec<Option<Tensor>> = rows
                .par_iter()
                .map(|r| {
                    let source = manifest.rows[*r].values.get(modality)?.first()?;
                    processor.process(source, &mut ProcessContext::eval()).ok()
                })
                .collect();
            let has: Vec<usize> = samples.iter().enumerate().filter_map(|(p, s)| s.is_some().then_some(p)).collect();
            let there: Vec<&Tensor> = samples.iter().flatten().collect();
            if !there.is_empty() {
                parts.push((modality, Tensor::stack(&there, 0)?, has));
            }
        }
        let borrowed = parts.iter().map(|(m, t, h)| (*m, t, h.as_slice())).collect();
        let set = self.set(rows.len(), borrowed)?;
        let labels = rows.iter().map(|r| self.label(&manifest.rows[*r])).collect();
        Ok(Gathered { set, labels, rows })
    }

    /// Brings numbers to mean zero and variance one by the training rows.
    fn fit_levels(&self, manifest: &Manifest, processors: &BTreeMap<Modality, Arc<dyn Processor>>) -> Result<()> {
        for (modality, level) in &self.levels {
            let processor = BTreeMap::from([(modality.clone(), processors[modality].clone())]);
            let gathered = self.gather(manifest, Split::Train, &processor)?;
            let Some((input, present)) = gathered.set.parts.get(modality) else {
                return Err(Error::Config(format!("inputs.{modality}: no training row has it")));
            };
            let values = input.values.index_select(0, &present.nonzero()?)?;
            if level.mean.numel() > 1 {
                level.mean.copy_(&values.mean_dim(&[0], false)?)?;
                level.deviation.copy_(&values.std_dim(&[0], false, false)?.clamp_min(1e-4)?)?;
            } else {
                let mean = values.mean()?;
                let deviation = values.sub(&mean)?.pow(2.0)?.mean()?.sqrt()?.clamp_min(1e-4)?;
                level.mean.copy_(&mean.reshape(&[1])?)?;
                level.deviation.copy_(&deviation.reshape(&[1])?)?;
            }
        }
        Ok(())
    }

    /// Trains on its data ([`Representation::manifest`]) into its run folder.
    pub fn fit(&self, manifest: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        let FitContext { progress, on_progress, stop } = context;
        let manifest = Arc::new(manifest);
        let processors = self.processors(&manifest, on_progress)?;
        let rows = manifest.rows_in_split(Split::Train);
        if rows.len() < 2 {
            return Err(Error::Config(format!("the training side has {} rows; wanted at least two", rows.len())));
        }
        no_grad(|| self.fit_levels(&manifest, &processors))?;
        *self.row_labels.borrow_mut() = manifest.rows.iter().map(|r| self.label(r)).collect();
        let count = rows.len();
        let c = &self.config;
        let loader = Loader::builder(manifest.clone())
            .rows(rows)
            .processors(processors.clone())
            .config(c.common.loader.clone())
            .seed(c.common.train.seed)
            .for_training()
            .build()?;
        let valid = self.gather(&manifest, Split::Valid, &processors)?;
        let mut evaluate = || -> mm_train::Result<Option<BTreeMap<String, f64>>> {
            if valid.rows.is_empty() {
                return Ok(None);
            }
            manual_seed(0);
            let mut set = valid.set.clone();
            set.labels = Some(Tensor::from_slice(&valid.labels)?.to_device(self.params.device())?);
            let Some((loss, parts)) = self.learner.loss(&set, false)? else { return Ok(None) };
            let mut values: BTreeMap<String, f64> = parts.into_iter().collect();
            values.insert(TARGET.into(), -loss.to_f64()?);
            Ok(Some(values))
        };
        let hooks = TrainHooks { evaluate: &mut evaluate, progress, stop };
        let trainer = Trainer::new(&c.common.train, self, &self.params, &loader)?;
        let outcome = trainer.with_metric(TARGET).fit(run, hooks)?;
        Ok(FitOutcome { training: outcome, failed: loader.failed_samples(), rows: count })
    }

    /// The figures of a run on one side, against the same model before training; what was looked at comes beside them.
    pub fn evaluated(
        &self,
        split: Split,
        context: &TaskContext<'_>,
        on_progress: ProgressFn<'_>,
    ) -> Result<(Figures, Look)> {
        let fresh = Self::new(self.config.clone(), &self.base, context.encoders, self.params.device())?;
        // The levels of the numbers are the data's, not learned: without them nothing unlearned could be compared.
        self.lend_levels(&fresh)?;
        let look = self.look(split, on_progress)?;
        Ok((self.figures(&look, split, &fresh, context)?, look))
    }

    /// Gives another model of the same config the levels of the numbers: they are the data's.
    fn lend_levels(&self, other: &Self) -> Result<()> {
        for (modality, level) in &self.levels {
            if let Some(theirs) = other.levels.get(modality) {
                theirs.mean.copy_(&level.mean)?;
                theirs.deviation.copy_(&level.deviation)?;
            }
        }
        Ok(())
    }

    /// What a side holds and what the learner makes of it, for figures and pictures.
    fn look(&self, split: Split, on_progress: ProgressFn<'_>) -> Result<Look> {
        let manifest = self.manifest()?;
        let processors = self.processors(&manifest, on_progress)?;
        let (train, test) =
            (self.gather(&manifest, Split::Train, &processors)?, self.gather(&manifest, split, &processors)?);
        if test.rows.len() < 2 || train.rows.len() < 5 {
            let found = format!("{} rows, and {} to learn from", test.rows.len(), train.rows.len());
            return Err(Error::Config(format!("the {split} side has {found}; wanted at least two and five")));
        }
        Ok(Look { manifest, train, test })
    }
}

/// The figure that training watches: the loss on rows held out for choosing, turned round.
const TARGET: &str = "negative_loss";

/// Rows of one side.
pub struct Gathered {
    /// Their numbers.
    pub set: InputSet,
    /// Their labels; −1 where a row has none that training knows.
    pub labels: Vec<i64>,
    /// Their places in the manifest.
    pub rows: Vec<usize>,
}

/// A model's data, both sides.
pub struct Look {
    /// The manifest.
    pub manifest: Manifest,
    /// The training side.
    pub train: Gathered,
    /// The side that is looked at.
    pub test: Gathered,
}

fn manifest(config: &RepresentationConfig, base: &Path) -> Result<Manifest> {
    let mut manifest = Manifest::open(&config.common.data, base)?;
    for row in &mut manifest.rows {
        row.values.retain(|modality, _| config.inputs.contains_key(modality.name()));
        for (name, wanted) in &config.languages {
            row.retain_languages(&Modality::from(name.as_str()), wanted);
        }
        row.values.retain(|_, values| !values.is_empty());
    }
    for name in config.inputs.keys() {
        let modality = Modality::from(name.as_str());
        if !manifest.rows_in_split(Split::Train).iter().any(|r| manifest.rows[*r].values.contains_key(&modality)) {
            return Err(Error::Config(format!(
                "{}: no training row has {name}, which the config names under inputs",
                manifest.path.display()
            )));
        }
    }
    // A row that has nothing teaches nothing.
    manifest.rows.retain(|r| !r.values.is_empty());
    Ok(manifest)
}

impl TrainingObjective<Batch> for Representation {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let parts = batch.modalities.iter().map(|(m, p)| (m, &p.input.values, p.rows.as_slice())).collect();
        let mut set = self.set(batch.rows.len(), parts)?;
        // Learners ask for every modality of theirs; one that the whole batch lacks is there with no row.
        for (modality, built) in &self.inputs {
            if !set.parts.contains_key(modality) {
                let shape: Vec<i64> = std::iter::once(set.rows).chain(built.spec.shape.iter().copied()).collect();
                let symbols = matches!(built.spec.value_type, ValueType::Tokens(_));
                let dtype = if symbols { DType::I64 } else { DType::F32 };
                let values = Tensor::zeros(&shape, dtype, self.params.device())?;
                let present = Tensor::zeros(&[set.rows], DType::Bool, self.params.device())?;
                set.parts.insert(modality.clone(), (Input { values, mask: None }, present));
            }
        }
        let labels = self.row_labels.borrow();
        if !labels.is_empty() {
            let own: Vec<i64> = batch.rows.iter().map(|r| labels[*r]).collect();
            set.labels = Some(Tensor::from_slice(&own)?.to_device(self.params.device())?);
        }
        self.learner.loss(&set, train)
    }
}

/// A run's learner as the frozen encoder of one of its modalities.
struct Learned {
    model: Representation,
    modality: Modality,
    width: i64,
    embedding_dim: i64,
}

impl Learned {
    fn set(&self, input: &Input) -> mm_core::Result<InputSet> {
        let encoder = self.model.inputs.get(&self.modality).and_then(|b| b.encoder.as_ref());
        let values = match encoder {
            Some((encoder, _)) => encoder.embed(input, false)?,
            None => input.values.clone(),
        };
        InputSet::of(self.modality.clone(), Input { values: self.model.level(&self.modality, &values)?, mask: None })
    }
}

impl Encoder for Learned {
    fn encode(&self, input: &Input, _train: bool) -> mm_core::Result<Features> {
        self.model.learner.features(&self.set(input)?)
    }

    fn embed(&self, input: &Input, _train: bool) -> mm_core::Result<Tensor> {
        self.model.learner.encode(&self.set(input)?)
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn embedding_dim(&self) -> i64 {
        self.embedding_dim
    }

    fn modality(&self) -> Modality {
        self.modality.clone()
    }
}

/// A run folder of this task, used as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LearnedSettings {
    /// The run folder, relative to the config's.
    run: PathBuf,
    /// Which of its modalities; its only one when absent.
    #[serde(default)]
    modality: Option<Modality>,
}

/// Adds `learned`: the representation of a run as a frozen encoder, in any config.
pub(crate) fn register(registry: &mut Registry) {
    registry.register_encoder("learned", |settings, context| {
        let settings: LearnedSettings = mm_core::config::parse(settings, &context.field)?;
        let run = context.base_dir.join(&settings.run);
        let as_core = |e: Error| mm_core::Error::file(&run, e);
        let model = {
            let (encoders, tasks) = (crate::registry(), TaskRegistry::new());
            let context = TaskContext { encoders: &encoders, tasks: &tasks, device: context.scope.device() };
            Representation::load(&run, &context).map_err(as_core)?
        };
        let known = || model.inputs.keys().map(Modality::name);
        let modality = match settings.modality {
            Some(modality) if model.inputs.contains_key(&modality) => modality,
            Some(other) => return Err(mm_core::Error::unknown("modality of the run", other.name(), known())),
            None if model.inputs.len() == 1 => Modality::from(known().next().unwrap_or_default()),
            None => {
                let found = known().collect::<Vec<_>>().join(", ");
                return Err(mm_core::Error::config(
                    format!("{}.modality", context.field),
                    "nothing",
                    format!("one of {found}"),
                ));
            }
        };
        let weights = Run::checkpoint_path(&run, "best");
        let mut hasher = blake3::Hasher::new();
        let hashed = std::fs::File::open(&weights).and_then(|f| hasher.update_reader(f).map(drop));
        hashed.map_err(|e| mm_core::Error::file(&weights, e))?;
        let fingerprint = format!("learned {modality} {}", &hasher.finalize().to_hex()[..32]);
        let built = &model.inputs[&modality];
        let processor = built.processor.clone();
        // A sample of zeros says how wide a place of its features is.
        let embedding_dim = model.learner.dim();
        let shape: Vec<i64> = std::iter::once(1).chain(built.spec.shape.iter().copied()).collect();
        let symbols = matches!(built.spec.value_type, ValueType::Tokens(_));
        let blank = Tensor::zeros(&shape, if symbols { DType::I64 } else { DType::F32 }, context.scope.device())?;
        let set = InputSet::of(modality.clone(), Input { values: blank, mask: None })?;
        let width = no_grad(|| model.learner.features(&set))?.dim()?;
        let encoder = Box::new(Learned { model, modality, width, embedding_dim });
        Ok(BuiltEncoder { processor, encoder, frozen: true, fingerprint })
    });
}

/// One figure, and what is simpler beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The model's.
    pub model: f64,
    /// Others', by name.
    pub beside: BTreeMap<String, f64>,
    /// Whether more is better.
    pub more_is_better: bool,
}

/// What an evaluation of a representation finds: figures by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The side.
    pub split: Split,
    /// Its rows.
    pub rows: usize,
    /// The figures.
    pub figures: BTreeMap<String, Figure>,
}

impl Representation {
    /// Figures of a side. `fresh` is the same model before training.
    fn figures(&self, look: &Look, split: Split, fresh: &Self, context: &TaskContext<'_>) -> Result<Figures> {
        no_grad(|| {
            let mut figures = BTreeMap::new();
            self.rebuild(look, &mut figures)?;
            self.read_labels(look, fresh, &mut figures)?;
            self.across(look, fresh, &mut figures)?;
            self.likelihood(look, &mut figures)?;
            self.judged(look, context, &mut figures)?;
            Ok(Figures { split, rows: look.test.rows.len(), figures })
        })
    }

    /// The code of a set, in pieces.
    pub fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let mut out = Vec::new();
        for piece in pieces(set)? {
            out.push(self.learner.encode(&piece)?);
        }
        Ok(Tensor::cat(&out.iter().collect::<Vec<_>>(), 0)?)
    }

    /// What the learner makes of a set in one modality, in pieces; none where it cannot.
    pub fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        manual_seed(0);
        let mut out = Vec::new();
        for piece in pieces(set)? {
            match self.learner.reconstruct(&piece, modality)? {
                Some(made) => out.push(made),
                None => return Ok(None),
            }
        }
        Ok(Some(Tensor::cat(&out.iter().collect::<Vec<_>>(), 0)?))
    }

    /// Each modality from itself, against principal components of the code's width and against the mean.
    fn rebuild(&self, look: &Look, figures: &mut BTreeMap<String, Figure>) -> Result<()> {
        for (modality, built) in &self.inputs {
            let (train, test) = (having(&look.train.set, &[modality])?, having(&look.test.set, &[modality])?);
            let (Some((train, _)), Some((test, _))) = (train, test) else { continue };
            let Some(made) = self.reconstruct(&test.only(&[modality]), modality)? else { continue };
            let (own, other) = (&test.parts[modality].0.values, &train.parts[modality].0.values);
            let components = self.learner.dim().min(other.size(0)? - 1);
            if let ValueType::Tokens(symbols) = built.spec.value_type {
                // Symbols are components of their ones and zeros, place by place.
                let hot =
                    |x: &Tensor| -> Result<Tensor> { Ok(x.one_hot(symbols)?.to_dtype(DType::F32)?.flatten(1, -1)?) };
                let pca = Pca::fit(&hot(other)?, components)?;
                let places = built.spec.numel();
                let restored = pca.restore(&pca.project(&hot(own)?)?)?.reshape(&[-1, places, symbols])?.argmax(2)?;
                let usual = hot(other)?.mean_dim(&[0], true)?.reshape(&[1, places, symbols])?.argmax(2)?;
                let share = |x: &Tensor| -> Result<f64> {
                    let there = own.gt_scalar(1.5)?; // neither padding nor the beginning
                    let right = x.eq(own)?.logical_and(&there)?.to_dtype(DType::F32)?.sum()?.to_f64()?;
                    Ok(right / there.to_dtype(DType::F32)?.sum()?.to_f64()?.max(1.0))
                };
                let beside = [("pca", share(&restored)?), ("most frequent", share(&usual.expand(&own.shape())?)?)];
                insert(figures, format!("{modality}: symbols right"), share(&made)?, beside, true);
                continue;
            }
            let flat = |x: &Tensor| x.flatten(1, -1);
            let pca = Pca::fit(&flat(other)?, components)?;
            let mean = flat(other)?.mean_dim(&[0], true)?;
            let off = |x: &Tensor| -> Result<f64> { Ok(flat(own)?.sub(x)?.pow(2.0)?.mean()?.to_f64()?) };
            let made = if built.spec.value_type == ValueType::Binary { made.sigmoid()? } else { made };
            // What a masked autoencoder saw it returns as it was; then only the rest is compared.
            let seen = flat(&made)?.eq(&flat(own)?)?.to_dtype(DType::F32)?;
            let share = 1.0 - seen.mean()?.to_f64()?;
            let masked = self.config.model.get("kind").and_then(toml::Value::as_str) == Some("mae");
            if masked {
                let hidden = |x: &Tensor| -> Result<f64> {
                    let error = flat(own)?.sub(x)?.pow(2.0)?.mul(&seen.neg()?.add_scalar(1.0)?)?;
                    Ok(error.mean()?.to_f64()? / share.max(1e-9))
                };
                let filled = pca.fill(&flat(own)?.mul(&seen)?, &seen)?;
                let beside = [("pca, filled in", hidden(&filled)?), ("mean", hidden(&mean)?)];
                let name = format!("{modality}: squared error where hidden ({:.0} %)", share * 100.0);
                insert(figures, name, hidden(&flat(&made)?)?, beside, false);
            } else {
                let restored = pca.restore(&pca.project(&flat(own)?)?)?;
                let beside = [("pca", off(&restored)?), ("mean", off(&mean)?)];
                insert(figures, format!("{modality}: squared error"), off(&flat(&made)?)?, beside, false);
            }
        }
        Ok(())
    }

    /// The label read off the code by logistic regression, against the same off principal components and an unlearned network.
    fn read_labels(&self, look: &Look, fresh: &Self, figures: &mut BTreeMap<String, Figure>) -> Result<()> {
        let classes = self.labels.len() as i64;
        if classes < 2 {
            return Ok(());
        }
        for modality in self.reads() {
            let pick = |g: &Gathered| -> Result<Option<(InputSet, Vec<i64>)>> {
                let Some((set, rows)) = having(&g.set, &[modality])? else { return Ok(None) };
                let known: Vec<i64> = (0..rows.len() as i64).filter(|r| g.labels[rows[*r as usize]] >= 0).collect();
                let labels = known.iter().map(|r| g.labels[rows[*r as usize]]).collect();
                let set = select(&set, &Tensor::from_slice(&known)?)?.only(&[modality]);
                Ok((!known.is_empty()).then_some((set, labels)))
            };
            let (Some((train, truth)), Some((test, wanted))) = (pick(&look.train)?, pick(&look.test)?) else {
                continue;
            };
            if truth.len() < 10 {
                continue;
            }
            let read =
                |a: &Tensor, b: &Tensor| -> Result<f64> { Ok(accuracy(&probe(a, &truth, b, classes)?, &wanted)) };
            let flat = |s: &InputSet| -> Result<Tensor> {
                let values = &s.parts[modality].0.values;
                match self.values(modality) {
                    Some(ValueType::Tokens(n)) => Ok(values.one_hot(n)?.to_dtype(DType::F32)?.flatten(1, -1)?),
                    _ => Ok(values.flatten(1, -1)?),
                }
            };
            let own = read(&self.encode(&train)?, &self.encode(&test)?)?;
            let pca = Pca::fit(&flat(&train)?, self.learner.dim().min(train.rows - 1))?;
            let beside = [
                ("pca", read(&pca.project(&flat(&train)?)?, &pca.project(&flat(&test)?)?)?),
                ("unlearned network", read(&fresh.encode(&train)?, &fresh.encode(&test)?)?),
                ("majority", majority(&truth, &wanted, classes)),
            ];
            insert(figures, format!("{modality}: label read off the code"), own, beside, true);
        }
        Ok(())
    }

    /// One modality from another: made again, found again; and whether the space tells them apart.
    fn across(&self, look: &Look, fresh: &Self, figures: &mut BTreeMap<String, Figure>) -> Result<()> {
        for from in self.inputs.keys() {
            for to in self.inputs.keys().filter(|m| *m != from) {
                let both = [from, to];
                let (Some((train, _)), Some((test, places))) =
                    (having(&look.train.set, &both)?, having(&look.test.set, &both)?)
                else {
                    continue;
                };
                if train.rows < 5 || test.rows < 2 {
                    continue;
                }
                let same = |a: usize, b: usize| {
                    let row = |p: usize| &look.manifest.rows[look.test.rows[places[p]]];
                    row(a).item == row(b).item
                };
                let label = |p: usize| look.test.labels[places[p]];
                let alike = |a: usize, b: usize| label(a) >= 0 && label(a) == label(b);
                let flat = |s: &InputSet, m: &Modality| s.parts[m].0.values.flatten(1, -1);
                let numbers = |m: &Modality| !matches!(self.values(m), Some(ValueType::Tokens(_)));
                if numbers(from)
                    && numbers(to)
                    && let Some(made) = self.reconstruct(&test.only(&[from]), to)?
                {
                    let binary = self.values(to) == Some(ValueType::Binary);
                    let made = if binary { made.sigmoid()? } else { made }.flatten(1, -1)?;
                    let (x, y) = (flat(&train, from)?, flat(&train, to)?);
                    let (given, wanted) = (flat(&test, from)?, flat(&test, to)?);
                    let off = |x: &Tensor| -> Result<f64> { Ok(wanted.sub(x)?.pow(2.0)?.mean()?.to_f64()?) };
                    let nearest = given.normalize()?.matmul(&x.normalize()?.transpose(0, 1)?)?.argmax(1)?;
                    let mean = y.mean_dim(&[0], true)?;
                    let linear = if x.size(1)? <= 4096 { Some(ridge(&x, &y, &given)?) } else { None };
                    let mut beside =
                        vec![("mean", off(&mean)?), ("nearest neighbour", off(&y.index_select(0, &nearest)?)?)];
                    if let Some(linear) = &linear {
                        beside.push(("ridge", off(linear)?));
                    }
                    insert(figures, format!("{to} from {from}: squared error"), off(&made)?, beside, false);
                    // As a query for the other modality's own vectors, the mean taken out of both.
                    let centred = |x: &Tensor| -> Result<Tensor> { Ok(x.sub(&mean)?.normalize()?) };
                    let gallery = centred(&wanted)?;
                    let found = retrieval_metrics(&centred(&made)?, &gallery, same)?;
                    let mut beside = vec![("chance", found.chance[2])];
                    if let Some(linear) = &linear {
                        beside.push(("ridge", retrieval_metrics(&centred(linear)?, &gallery, same)?.recall[2]));
                    }
                    insert(figures, format!("{from} → {to}: recall at 10 by making it"), found.recall[2], beside, true);
                }
                if !self.learner.is_joint() {
                    continue;
                }
                let ends = |model: &Self| -> Result<(Tensor, Tensor)> {
                    let code = |m: &Modality| -> Result<Tensor> { Ok(model.encode(&test.only(&[m]))?.normalize()?) };
                    Ok((code(from)?, code(to)?))
                };
                let ((a, b), (u, v)) = (ends(self)?, ends(fresh)?);
                let (found, before) = (retrieval_metrics(&a, &b, same)?, retrieval_metrics(&u, &v, same)?);
                let beside = [("unlearned network", before.recall[2]), ("chance", found.chance[2])];
                insert(figures, format!("{from} → {to}: recall at 10 in the space"), found.recall[2], beside, true);
                if self.labels.len() > 1 {
                    let (found, before) = (retrieval_metrics(&a, &b, alike)?, retrieval_metrics(&u, &v, alike)?);
                    let beside = [("unlearned network", before.map)];
                    insert(figures, format!("{from} → {to}: mAP by label in the space"), found.map, beside, true);
                    // A classifier of one modality reads the other, whose labels it never saw.
                    if let Some((_, rows)) = having(&look.train.set, &both)? {
                        let truth: Vec<i64> = rows.iter().map(|r| look.train.labels[*r]).collect();
                        if truth.iter().all(|l| *l >= 0) {
                            let codes = self.encode(&train.only(&[from]))?.normalize()?;
                            let wanted: Vec<i64> = (0..places.len()).map(label).collect();
                            let read = |x: &Tensor| -> Result<f64> {
                                Ok(accuracy(&probe(&codes, &truth, x, self.labels.len() as i64)?, &wanted))
                            };
                            let beside = [("on its own modality", read(&a)?)];
                            let name = format!("{to}: label read by a probe of {from} codes");
                            insert(figures, name, read(&b)?, beside, true);
                        }
                    }
                }
                if from < to {
                    let told = |model: &Self| -> Result<f64> {
                        let stack = |s: &InputSet| -> Result<(Tensor, Vec<i64>)> {
                            let a = model.encode(&s.only(&[from]))?.normalize()?;
                            let b = model.encode(&s.only(&[to]))?.normalize()?;
                            let count = s.rows as usize;
                            Ok((Tensor::cat(&[&a, &b], 0)?, [vec![0; count], vec![1; count]].concat()))
                        };
                        let ((x, truth), (y, wanted)) = (stack(&train)?, stack(&test)?);
                        Ok(accuracy(&probe(&x, &truth, &y, 2)?, &wanted))
                    };
                    let beside = [("unlearned network", told(fresh)?), ("chance", 0.5)];
                    insert(figures, format!("{from} or {to} told from the code"), told(self)?, beside, false);
                }
            }
        }
        Ok(())
    }

    /// The likelihood of whole rows: the bound, and how much of it a hundred samples win back.
    fn likelihood(&self, look: &Look, figures: &mut BTreeMap<String, Figure>) -> Result<()> {
        let all: Vec<&Modality> = self.inputs.keys().collect();
        let Some((set, _)) = having(&look.test.set, &all)? else { return Ok(()) };
        let mean = |samples: usize| -> Result<Option<f64>> {
            manual_seed(0);
            let (mut sum, mut count) = (0.0, 0.0);
            for piece in pieces(&set)? {
                let Some(each) = self.learner.log_likelihood(&piece, samples)? else { return Ok(None) };
                sum += each.sum()?.to_f64()?;
                count += piece.rows as f64;
            }
            Ok(Some(sum / count))
        };
        if let (Some(one), Some(many)) = (mean(1)?, mean(64)?) {
            let name = "log-likelihood of a row in nats (64 samples)";
            insert(figures, name.into(), many, [("bound (1 sample)", one)], true);
        }
        Ok(())
    }

    /// Pictures made from texts, as a retriever that never saw the maker ranks them.
    fn judged(&self, look: &Look, context: &TaskContext<'_>, figures: &mut BTreeMap<String, Figure>) -> Result<()> {
        let Some(judge) = &self.config.judge else { return Ok(()) };
        let judge = Retrieval::load(&self.base.join(judge), context)?;
        let both = [&Modality::IMAGE, &Modality::TEXT];
        let Some((test, places)) = having(&look.test.set, &both)? else { return Ok(()) };
        let Some(maker) = self.learner.decoder() else { return Ok(()) };
        manual_seed(0);
        let Some(codes) = maker.sample_prior(test.rows, Some(&test.only(&[&Modality::TEXT])))? else { return Ok(()) };
        let made = maker.decode(&codes, &Modality::IMAGE)?;
        let row = |p: usize| &look.manifest.rows[look.test.rows[places[p]]];
        let folder = std::env::temp_dir().join(format!("mm-judged-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| Error::File { path: folder.clone(), reason: e.to_string() })?;
        let files: Result<Vec<Source>> = (0..places.len())
            .map(|p| {
                let path = folder.join(format!("{p}.png"));
                crate::report::save_png(&made.narrow(0, p as i64, 1)?, 1, &path)?;
                Ok(Source::Path(path))
            })
            .collect();
        let values = |m: &Modality| (0..places.len()).filter_map(|p| row(p).values.get(m)?.first().cloned()).collect();
        let texts: Vec<Source> = values(&Modality::TEXT);
        let real: Vec<Source> = values(&Modality::IMAGE);
        let told = |s: &Source| if let Source::Text(t) = s { t.to_lowercase() } else { String::new() };
        let same = |a: usize, b: usize| told(&texts[a]) == told(&texts[b]);
        let rank = |pictures: &[Source]| -> Result<crate::metrics::RetrievalMetrics> {
            let embed = |m: &Modality, sources: &[Source]| -> Result<Tensor> {
                let each = sources.chunks(64).map(|c| judge.embed(m, c)).collect::<Result<Vec<_>>>()?;
                Ok(Tensor::cat(&each.iter().collect::<Vec<_>>(), 0)?)
            };
            retrieval_metrics(&embed(&Modality::IMAGE, pictures)?, &embed(&Modality::TEXT, &texts)?, same)
        };
        let found = files.and_then(|f| Ok((rank(&f)?, rank(&real)?)));
        let _ = std::fs::remove_dir_all(&folder);
        let (made, real) = found?;
        let beside = [("real pictures", real.recall[2]), ("chance", made.chance[2])];
        insert(figures, "made picture → its text: recall at 10, by the judge".into(), made.recall[2], beside, true);
        let middle = [("real pictures", real.median_rank), ("chance", (made.gallery as f64 + 1.0) / 2.0)];
        insert(figures, "made picture → its text: median rank, by the judge".into(), made.median_rank, middle, false);
        Ok(())
    }
}

fn insert<'a>(
    figures: &mut BTreeMap<String, Figure>,
    name: String,
    model: f64,
    beside: impl IntoIterator<Item = (&'a str, f64)>,
    more_is_better: bool,
) {
    let beside = beside.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    figures.insert(name, Figure { model, beside, more_is_better });
}

/// The rows of a set that have all of these modalities, and their places; none when there are none.
fn having(set: &InputSet, wanted: &[&Modality]) -> Result<Option<(InputSet, Vec<usize>)>> {
    let mut there = vec![true; set.rows as usize];
    for modality in wanted {
        let Some((_, present)) = set.parts.get(*modality) else { return Ok(None) };
        there.iter_mut().zip(present.to_vec::<bool>()?).for_each(|(t, p)| *t &= p);
    }
    let places: Vec<usize> = there.iter().enumerate().filter_map(|(p, t)| t.then_some(p)).collect();
    if places.is_empty() {
        return Ok(None);
    }
    let index: Vec<i64> = places.iter().map(|p| *p as i64).collect();
    Ok(Some((select(set, &Tensor::from_slice(&index)?)?, places)))
}

/// Some rows of a set, by their places.
pub(crate) fn select(set: &InputSet, places: &Tensor) -> Result<InputSet> {
    let mut parts = BTreeMap::new();
    for (modality, (input, present)) in &set.parts {
        let places = places.to_device(present.device())?;
        let values = input.values.index_select(0, &places)?;
        parts.insert(modality.clone(), (Input { values, mask: None }, present.index_select(0, &places)?));
    }
    Ok(InputSet { rows: places.numel() as i64, parts, labels: None })
}

/// A set in pieces that fit into memory whatever the network.
fn pieces(set: &InputSet) -> Result<Vec<InputSet>> {
    (0..set.rows)
        .step_by(256)
        .map(|from| select(set, &Tensor::arange(from, (from + 256).min(set.rows), Device::Cpu)?))
        .collect()
}

/// The name that configs give as `task`.
pub const TASK: &str = "representation";

/// The command that uses a trained run.
const USAGE: &str = "mm embed";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "learn a representation of one or several modalities",
        usage: USAGE,
        parse: |value| parse_task::<RepresentationConfig>(value).map(drop),
        resolve: |value, base, _, _| resolve(value, base),
        build: |value, base, context| {
            Ok(Box::new(Representation::new(parse_task(value)?, base, context.encoders, context.device)?))
        },
        load: |run, context| Ok(Box::new(Representation::load(run, context)?)),
        report: crate::report::build_representation,
        owns_folder: |_| false,
    }
}

impl TaskModel for Representation {
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

    fn evaluate(
        &self,
        split: Split,
        context: &TaskContext<'_>,
        on_progress: ProgressFn<'_>,
    ) -> Result<EvaluationReport> {
        let (figures, _) = self.evaluated(split, context, on_progress)?;
        let json = serde_json::to_value(&figures).map_err(|e| Error::Config(e.to_string()))?;
        Ok(EvaluationReport { json, table: figure_table(&[figures]) })
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }
}

impl Embedder for Representation {
    fn modalities(&self) -> Vec<Modality> {
        self.reads().cloned().collect()
    }

    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>> {
        Ok(self.input(modality)?.processor.clone())
    }

    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], _: Option<Pooling>) -> Result<Tensor> {
        self.embed_batch(modality, samples)
    }

    fn fingerprint(&self) -> Result<String> {
        run_fingerprint(self.run.as_deref())
    }
}

/// One row a figure: the model's (mean ± spread over runs), and what is beside it.
pub(crate) fn figure_table(runs: &[Figures]) -> Vec<Vec<String>> {
    let mut rows = vec![["figure", "model", "beside it"].map(ToOwned::to_owned).to_vec()];
    let Some(first) = runs.first() else { return rows };
    for (name, figure) in &first.figures {
        let all = |pick: &dyn Fn(&Figure) -> Option<f64>| -> String {
            let values: Vec<f64> = runs.iter().filter_map(|r| pick(r.figures.get(name)?)).collect();
            crate::report::mean_with_spread(&values)
        };
        let beside = figure
            .beside
            .keys()
            .map(|other| format!("{other} {}", all(&|f| f.beside.get(other).copied())))
            .collect::<Vec<_>>()
            .join(", ");
        let better = if figure.more_is_better { "↑" } else { "↓" };
        rows.push(vec![format!("{name} {better}"), all(&|f| Some(f.model)), beside]);
    }
    rows
}
