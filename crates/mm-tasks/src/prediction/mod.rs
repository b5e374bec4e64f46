//! Prediction: classes, sets of labels, numbers or sentiment from whatever modalities a row has. A way in for each modality, a fusion, a head
//! (and one on each modality alone), learned together; afterwards calibrated, and the heads pooled with weights fitted on held-out rows.

mod attribution;
mod blind;
mod config;
mod evaluation;
mod keeping;
mod network;
mod plan;
mod predictor;
mod robustness;
mod search;
mod stack;
mod target;
mod task;

pub use attribution::{Attribution, Contribution};
pub use config::{ContextConfig, Ensembling, InputConfig, LossConfig, PredictionConfig};
pub use evaluation::Evaluation;
use evaluation::{measure, selection_score};
pub use plan::{Fitted, Fitting, Preset, fit_table};
pub use predictor::{Asked, Predicted, Predictor, write_predictions};
pub use robustness::{Curve, robustness, robustness_page};
pub use search::{Search, Trial, search, space as search_space};
pub use target::{Label, Problem, Target};
pub use task::{TASK, spec};

use crate::{
    Error, FitOutcome, ProgressFn, Result,
    features::{CachedFeatures, FrozenEncoder},
};
use mm_core::{
    Device, Modality, Params, ProcessContext, Processor, Registry, Source, Tensor, TrainingObjective,
    config as settings, no_grad,
    seed::{Rng, manual_seed},
};
use mm_data::{
    Batch, CachedProcessor, FailedSample, Loader, Manifest, Split, TensorCache, collate, group_rows_by_item,
    process_catching_panics,
};
use mm_train::{Progress, Run, TrainHooks, Trainer};
pub use network::Look;
use network::{Answer, Network, Parts};
use rayon::prelude::*;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

/// Features of frozen encoders that have been made, by modality.
type Ready = BTreeMap<Modality, Arc<CachedFeatures>>;

/// A model that predicts a column.
pub struct Prediction {
    params: Params,
    network: Network,
    target: Target,
    /// Mean and deviation of the numbers that are predicted; what was learned on is level.
    level: Tensor,
    config: PredictionConfig,
    base: PathBuf,
    cache: TensorCache,
    /// Labels of the rows that the trainer's batches name.
    labels: std::cell::RefCell<Vec<Option<Label>>>,
    made: std::cell::RefCell<Vec<Modality>>,
    /// Features that all rows of its data are known to have.
    ready: std::cell::RefCell<Ready>,
    /// What it finds out while it learns.
    keeping: std::cell::RefCell<keeping::Keeping>,
}

/// Answers for some rows.
pub(crate) struct Answers {
    /// The rows, by number in [`Manifest::rows`].
    pub(crate) rows: Vec<usize>,
    /// `[rows, outputs]`.
    pub(crate) fused: Tensor,
    /// Of each modality alone, and `[rows]` f32 which rows have it.
    pub(crate) own: BTreeMap<Modality, (Tensor, Tensor)>,
    /// Which modalities each row had.
    pub(crate) present: Vec<Vec<Modality>>,
    /// How much each modality counted in each row, where the operator says.
    pub(crate) weights: BTreeMap<Modality, Vec<f64>>,
    /// Values that could not be read; their rows went without them.
    pub(crate) broken: Vec<FailedSample>,
    /// What counted in each row; none where that was not asked for.
    pub(crate) looks: Vec<Look>,
}

/// A prediction config from a value.
pub(crate) fn parse(value: &toml::Value) -> Result<PredictionConfig> {
    crate::config::parse_task(value)
}

/// Writes into a config what its training rows say: the problem, the classes, encoders that were not named. What was found out is told in
/// words.
pub fn resolve(value: &mut toml::Value, base: &Path, registry: &Registry, tell: &mut dyn FnMut(String)) -> Result<()> {
    resolve_all(value, base, registry, tell).map(drop)
}

/// The same; what else could serve a modality comes back: its settings, and whether features are to be standardised.
pub(crate) fn resolve_all(
    value: &mut toml::Value,
    base: &Path,
    registry: &Registry,
    tell: &mut dyn FnMut(String),
) -> Result<BTreeMap<String, (toml::Value, bool)>> {
    let mut config = parse(value)?;
    let open = config.problem == Problem::Auto
        || (config.classes.is_empty() && config.problem != Problem::Regression)
        || config.inputs.values().any(|i| i.encoder.as_ref().is_none_or(|e| registry.is_open(e)));
    let mut others = BTreeMap::new();
    if !open {
        return Ok(others);
    }
    let base = config.common.base_dir_or(base);
    let manifest = open_manifest(&config, &base)?;
    let train = manifest.rows_in_split(Split::Train);
    // Rows to choose by tell of oddities and of classes too; rows to be tested on tell nothing.
    let labels: Vec<(usize, &str)> = train
        .iter()
        .chain(&manifest.rows_in_split(Split::Valid))
        .filter_map(|r| Some((manifest.rows[*r].number, manifest.rows[*r].cells.get(&config.label)?.as_str())))
        .collect();
    let known = || manifest.rows.iter().take(1000).flat_map(|r| r.cells.keys());
    if labels.is_empty() && !known().any(|k| *k == config.label) {
        let known: std::collections::BTreeSet<&String> = known().collect();
        let names = known.into_iter().map(String::as_str);
        return Err(Error::Config(format!(
            "{}: {}",
            manifest.path.display(),
            mm_core::Error::unknown("label column", &config.label, names)
        )));
    }
    if config.classes.is_empty() {
        let (target, why) = Target::fit(&config.label, config.problem, &labels)?;
        let classes = match target.classes.len() {
            0 => String::new(),
            n if n <= 8 => format!(" of {}", target.classes.join(", ")),
            n => format!(" of {n} classes"),
        };
        tell(format!("{}: {:?}{classes} ({why})", config.label, target.problem).to_lowercase());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        labels.iter().for_each(|(_, l)| *counts.entry(l.trim()).or_default() += 1);
        if target.is_classes() {
            let numbers = counts.keys().filter(|l| l.parse::<f64>().is_ok()).count();
            if (1..counts.len()).contains(&numbers) {
                let words = counts.len() - numbers;
                tell(format!(
                    "`{}` holds numbers and words: {numbers} and {words} different ones, each taken for a class",
                    config.label
                ));
            }
            let few: Vec<&str> = counts.iter().filter(|(_, c)| **c == 1).map(|(l, _)| *l).collect();
            if !few.is_empty() {
                let shown = few.iter().take(5).copied().collect::<Vec<_>>().join(", ");
                tell(format!("{} classes have one row to learn from: {shown}", few.len()));
            }
        }
        config.problem = target.problem;
        config.classes = target.classes;
    } else if config.problem == Problem::Auto {
        config.problem = if config.classes.len() == 2 { Problem::Binary } else { Problem::Multiclass };
    }
    for (name, input) in &mut config.inputs {
        if input.encoder.as_ref().is_some_and(|e| !registry.is_open(e)) {
            continue;
        }
        let modality = Modality::from(name.as_str());
        let values: Vec<&Source> =
            train.iter().filter_map(|r| manifest.rows[*r].values.get(&modality)?.first()).collect();
        if values.is_empty() {
            return Err(Error::Config(format!(
                "inputs.{name}: no training row of {} has it; leave it out",
                manifest.path.display()
            )));
        }
        if let Some(encoder) = &mut input.encoder {
            registry.complete(encoder, &values)?;
            continue;
        }
        let mut proposals = registry.propose(&modality, &values)?.into_iter();
        let Some(proposal) = proposals.next() else { continue };
        tell(format!("{name}: {}", proposal.description));
        others.extend(proposals.next().map(|other| (name.clone(), (other.encoder, other.standardize))));
        input.encoder = Some(proposal.encoder);
        input.standardize = Some(input.standardize.unwrap_or(proposal.standardize));
    }
    *value = crate::config::to_value(&config)?;
    Ok(others)
}

fn open_manifest(config: &PredictionConfig, base: &Path) -> Result<Manifest> {
    let mut manifest = Manifest::open(&config.common.data, base)?;
    for row in &mut manifest.rows {
        row.values.retain(|m, values| config.inputs.contains_key(m.name()) && !values.is_empty());
        for (modality, values) in &mut row.values {
            if config.common.loader.always_first_source.iter().any(|m| m == modality.name()) {
                values.truncate(1);
            }
        }
    }
    Ok(manifest)
}

impl Prediction {
    /// Builds the model of a resolved config fresh, its weights a function of the seed.
    pub fn new(config: PredictionConfig, base: &Path, registry: &Registry, device: Device) -> Result<Self> {
        let base = config.common.base_dir_or(base);
        if config.problem == Problem::Auto || (config.classes.len() < 2 && config.problem != Problem::Regression) {
            let found = format!("{:?} with {} classes", config.problem, config.classes.len());
            return Err(Error::Config(format!("problem: found {found}, wanted a problem and its classes")));
        }
        let target = Target { problem: config.problem, classes: config.classes.clone() };
        manual_seed(config.common.train.seed);
        let params = Params::new(device);
        let network = Network::new(&params, &config, &target, &base, registry)?;
        let level = params.scope().pp("target").buffer("level", &[2], mm_core::Init::Zeros)?;
        level.copy_(&Tensor::from_slice(&[0f32, 1.0])?)?;
        let cache = TensorCache::open_or_default(&base, config.common.cache_dir.as_deref())?;
        let (labels, made, ready, keeping) = Default::default();
        Ok(Self { params, network, target, level, config, base, cache, labels, made, ready, keeping })
    }

    /// Loads the model of a run folder: its best weights, or its last where it was stopped before it was measured.
    pub fn load(run: &Path, registry: &Registry, device: Device) -> Result<Self> {
        let model = Self::new(parse(&settings::read(&run.join("config.toml"), &[])?)?, run, registry, device)?;
        Run::load_weights(run, &model.params)?;
        Ok(model)
    }

    /// Its parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Its settings.
    pub fn config(&self) -> &PredictionConfig {
        &self.config
    }

    /// What it predicts.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its modalities.
    pub fn modalities(&self) -> impl Iterator<Item = &Modality> {
        self.network.ways.keys()
    }

    /// Its data.
    pub fn manifest(&self) -> Result<Manifest> {
        let manifest = open_manifest(&self.config, &self.base)?;
        for modality in self.network.ways.keys() {
            if !manifest.rows_in_split(Split::Train).iter().any(|r| manifest.rows[*r].values.contains_key(modality)) {
                let path = manifest.path.display();
                return Err(Error::Config(format!(
                    "{path}: no training row has {modality}, for which the config has an input"
                )));
            }
        }
        Ok(manifest)
    }

    /// Other data, bound by the same columns; rows need neither labels nor every modality.
    pub fn other_manifest(&self, path: &Path, here: &Path) -> Result<Manifest> {
        let mut data = mm_data::ManifestConfig {
            manifest: path.to_owned(),
            columns: self.config.common.data.columns.clone(),
            encoding: self.config.common.data.encoding.clone(),
            split: mm_data::SplitConfig { test: 0.0, ..Default::default() },
            ..Default::default()
        };
        // A modality whose column is not there is missing in every row, which is ordinary.
        let table = mm_data::read_table(&here.join(path), data.encoding.as_deref())?;
        let known: std::collections::BTreeSet<String> =
            table.iter().take(1000).flat_map(|r| r.keys().cloned()).collect();
        data.columns.id = Some(plan::id_column(&table));
        drop(table);
        let has = |b: &mm_data::ColumnBinding| b.columns().iter().any(|c| known.contains(c));
        if !data.columns.modalities.values().any(&has) {
            let wanted: Vec<&str> = data
                .columns
                .modalities
                .values()
                .flat_map(mm_data::ColumnBinding::columns)
                .map(String::as_str)
                .collect();
            let found = known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::Config(format!(
                "{}: found the columns {found}; wanted at least one of {}",
                path.display(),
                wanted.join(", ")
            )));
        }
        for binding in data.columns.modalities.values_mut() {
            if let mm_data::ColumnBinding::Multiple(columns) = binding
                && columns.iter().any(|c| known.contains(c))
            {
                columns.retain(|c| known.contains(c));
            }
        }
        data.columns.modalities.retain(|_, b| b.columns().iter().any(|c| known.contains(c)));
        for column in [&mut data.columns.item, &mut data.columns.order] {
            if column.as_ref().is_some_and(|c| !known.contains(c)) {
                *column = None;
            }
        }
        Ok(Manifest::open(&data, here)?)
    }

    fn labels(&self, manifest: &Manifest) -> Vec<Option<Label>> {
        manifest.rows.iter().map(|r| r.cells.get(&self.config.label).and_then(|l| self.target.encode(l))).collect()
    }

    fn level(&self) -> Result<(f64, f64)> {
        let both = self.level.to_vec::<f64>()?;
        Ok((both[0], both[1]))
    }

    /// A frozen way in.
    fn frozen<'a>(&self, modality: &Modality, way: &'a network::Way) -> FrozenEncoder<'a> {
        FrozenEncoder {
            encoder: way.encoder.as_ref(),
            processor: &way.processor,
            fingerprint: format!("{} {}", way.fingerprint, way.processor.fingerprint()),
            num_views: self.config.inputs.get(modality.name()).map_or(0, |i| i.num_views),
            positions: false,
        }
    }

    /// The processors that a loader of these rows needs: of kept vectors where the encoder is frozen, of kept samples where files are read.
    fn prepare(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        stop: &AtomicBool,
        told: ProgressFn<'_>,
    ) -> Result<BTreeMap<Modality, Arc<dyn Processor>>> {
        let mut processors: BTreeMap<Modality, Arc<dyn Processor>> = BTreeMap::new();
        let mut made = Vec::new();
        for (modality, way) in &self.network.ways {
            let mut values = rows.iter().filter_map(|r| manifest.rows[*r].values.get(modality)).flatten();
            if way.frozen {
                let frozen = self.frozen(modality, way);
                let ready = self.ready.borrow().get(modality).cloned();
                let kept = match ready.filter(|k| k.matches(&frozen.fingerprint, frozen.num_views)) {
                    Some(kept) => kept,
                    None => Arc::new(frozen.encode_missing(
                        modality,
                        values,
                        &self.cache,
                        self.params.device(),
                        stop,
                        told,
                    )?),
                };
                processors.insert(modality.clone(), kept);
                made.push(modality.clone());
            } else if values.any(|v| matches!(v, Source::Path(_))) {
                processors.insert(
                    modality.clone(),
                    Arc::new(CachedProcessor::new(way.processor.clone(), self.cache.clone())),
                );
            } else {
                processors.insert(modality.clone(), way.processor.clone());
            }
        }
        *self.made.borrow_mut() = made;
        Ok(processors)
    }

    /// Makes the features of frozen encoders, rows in a random order, for as long as there is time (a few rows in any case): of each row
    /// whether it has them now. They are not looked for again.
    fn encode_until(
        &self,
        manifest: &Manifest,
        until: Instant,
        stop: &AtomicBool,
        told: ProgressFn<'_>,
    ) -> Result<Vec<bool>> {
        const AT_ONCE: usize = 128;
        let frozen: Vec<_> =
            self.network.ways.iter().filter(|(_, w)| w.frozen).map(|(m, w)| (m, self.frozen(m, w))).collect();
        if frozen.is_empty() {
            return Ok(vec![true; manifest.rows.len()]);
        }
        let mut rows: Vec<usize> = (0..manifest.rows.len()).collect();
        Rng::new(&[self.config.common.train.seed]).shuffle(&mut rows);
        let mut encoded = vec![false; rows.len()];
        let mut all: BTreeMap<Modality, CachedFeatures> = BTreeMap::new();
        let mut done = 0;
        for some in rows.chunks(AT_ONCE) {
            if done > 0 && Instant::now() >= until {
                break;
            }
            told("encoding", done, manifest.rows.len());
            for (modality, frozen) in &frozen {
                let values = some.iter().filter_map(|r| manifest.rows[*r].values.get(*modality)).flatten();
                let kept = frozen.encode_missing(
                    modality,
                    values,
                    &self.cache,
                    self.params.device(),
                    stop,
                    &mut |_, _, _| {},
                )?;
                match all.get_mut(*modality) {
                    Some(before) => before.merge(kept),
                    None => drop(all.insert((*modality).clone(), kept)),
                }
            }
            some.iter().for_each(|row| encoded[*row] = true);
            done += some.len();
        }
        told("encoding", done, done);
        self.ready.replace(all.into_iter().map(|(m, k)| (m, Arc::new(k))).collect());
        Ok(encoded)
    }

    /// Mean and deviation of the training rows' features, for the inputs that want them.
    fn fit_levels(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
    ) -> Result<()> {
        let made = self.made.borrow().clone();
        for (modality, way) in &self.network.ways {
            let (Some((mean, deviation)), Some(processor)) = (&way.level, processors.get(modality)) else { continue };
            // Twenty thousand rows tell a mean; a million need not be read for it.
            let step = rows.len().div_ceil(20_000).max(1);
            let some: Vec<&Source> =
                rows.iter().step_by(step).filter_map(|r| manifest.rows[*r].values.get(modality)?.first()).collect();
            let (mut sum, mut squares, mut count) = (None::<Tensor>, None::<Tensor>, 0.0);
            for chunk in some.chunks(64) {
                let good: Vec<Tensor> =
                    chunk.par_iter().filter_map(|s| processor.process(s, &mut ProcessContext::eval()).ok()).collect();
                if good.is_empty() {
                    continue;
                }
                let input = collate(&good, processor.as_ref())?.to_device(self.params.device())?;
                let x = no_grad(|| Network::encode(way, &input, made.contains(modality), false))?;
                let x = match &x.mask {
                    Some(mask) => x.values.flatten(0, 1)?.index_select(0, &mask.reshape(&[-1])?.nonzero()?)?,
                    None => x.values.flatten(0, 1)?,
                };
                let x = x.to_dtype(mm_core::DType::F64)?;
                count += x.size(0)? as f64;
                let (s, q) = (x.sum_dim(&[0], false)?, x.pow(2.0)?.sum_dim(&[0], false)?);
                sum = Some(sum.map_or(Ok(s.clone()), |t| t.add(&s))?);
                squares = Some(squares.map_or(Ok(q.clone()), |t| t.add(&q))?);
            }
            let (Some(sum), Some(squares)) = (sum, squares) else {
                return Err(Error::Config(format!("{modality}: no training row's value could be read")));
            };
            let middle = sum.mul_scalar(1.0 / count)?;
            let spread = squares.mul_scalar(1.0 / count)?.sub(&middle.pow(2.0)?)?.clamp_min(0.0)?.sqrt()?;
            mean.copy_(&middle.to_dtype(mm_core::DType::F32)?)?;
            // A number that never changes tells nothing, and must not explode.
            let still = spread.lt(&Tensor::from_slice(&[1e-6f64])?.to_device(spread.device())?)?;
            deviation.copy_(&spread.masked_fill(&still, 1.0)?.to_dtype(mm_core::DType::F32)?)?;
        }
        Ok(())
    }

    /// Trains on its data ([`Prediction::manifest`]) into its run folder.
    pub fn fit(
        &self,
        manifest: Arc<Manifest>,
        run: &mut Run,
        progress: &mut dyn Progress,
        told: ProgressFn<'_>,
        stop: &AtomicBool,
    ) -> Result<FitOutcome> {
        let labels = self.labels(&manifest);
        let rows: Vec<usize> =
            manifest.rows_in_split(Split::Train).into_iter().filter(|r| labels[*r].is_some()).collect();
        if rows.len() < 2 {
            let path = manifest.path.display();
            return Err(Error::Config(format!(
                "{path}: {} training rows have a label, wanted at least two",
                rows.len()
            )));
        }
        let all: Vec<usize> = (0..manifest.rows.len()).collect();
        let processors = self.prepare(&manifest, &all, stop, told)?;
        let fresh = !Run::checkpoint_path(run.folder(), "last").exists();
        if fresh {
            self.fit_levels(&manifest, &rows, &processors)?;
            if self.target.problem == Problem::Regression {
                let numbers: Vec<f64> = rows
                    .iter()
                    .filter_map(|r| if let Some(Label::Number(v)) = labels[*r] { Some(v) } else { None })
                    .collect();
                let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
                let spread = (numbers.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / numbers.len() as f64).sqrt();
                self.level.copy_(&Tensor::from_slice(&[mean as f32, spread.max(1e-9) as f32])?)?;
            }
        }
        let modalities: Vec<Modality> = self.modalities().cloned().collect();
        let mut keeping = keeping::Keeping::default();
        if self.config.loss.unimodal_labels {
            // Rows of other sides tell nothing.
            let mut own = vec![None; labels.len()];
            rows.iter().for_each(|r| own[*r].clone_from(&labels[*r]));
            keeping.own = keeping::OwnLabels::new(&own, &modalities, &self.target);
            if keeping.own.is_none() {
                return Err(Error::invalid(
                    "loss.unimodal_labels",
                    "no training labels with a sign",
                    "a binary problem or regression",
                ));
            }
        }
        if self.config.loss.gradient_blending {
            keeping.blending = Some(keeping::Blending::new(&modalities));
        }
        *self.keeping.borrow_mut() = keeping;
        *self.labels.borrow_mut() = labels;
        let loader_config =
            mm_data::LoaderConfig { group_by_item: self.network.by_items(), ..self.config.common.loader.clone() };
        let count = rows.len();
        let loader = Loader::builder(manifest.clone())
            .rows(rows)
            .processors(processors.clone())
            .config(loader_config)
            .seed(self.config.common.train.seed)
            .for_training()
            .build()?;
        let valid = self.labelled(&manifest, Split::Valid);
        for (what, asked, wanted) in [
            ("loss.gradient_blending", self.config.loss.gradient_blending, 1),
            ("ensembling", self.config.ensembling.is_stacked(), predictor::ENOUGH),
        ] {
            if asked && valid.len() < wanted {
                return Err(Error::Config(format!(
                    "{what}: found {} validation rows with a label, wanted at least {wanted} to learn from (data.split.valid = 0.2, or a table of them)",
                    valid.len()
                )));
            }
        }
        let mut evaluate_now = || -> mm_train::Result<Option<BTreeMap<String, f64>>> {
            if valid.is_empty() {
                return Ok(None);
            }
            let answers = self.answer(&manifest, &valid, &processors, &[])?;
            let values = self.target.probabilities(&answers.fused, 1.0, self.level()?)?;
            let mut figures = measure(&self.config, &self.target, &manifest, &answers.rows, &values)?.metrics.to_map();
            if self.config.loss.gradient_blending {
                let losses = self.head_losses(&answers)?;
                if let Some(blending) = &mut self.keeping.borrow_mut().blending {
                    let weights = blending.evaluated(&losses).map_err(Error::from)?;
                    figures
                        .extend(weights.into_iter().map(|(head, weight)| (format!("blending_weight_{head}"), weight)));
                }
            }
            Ok(Some(
                BTreeMap::from([(TARGET.to_owned(), selection_score(&figures))]).into_iter().chain(figures).collect(),
            ))
        };
        let hooks = TrainHooks { evaluate: &mut evaluate_now, progress, stop };
        let trainer = Trainer::new(&self.config.common.train, self, &self.params, &loader)?;
        let outcome = trainer.with_metric(TARGET).fit(run, hooks)?;
        // What is kept is what counts from here on.
        Run::load_weights(run.folder(), &self.params)?;
        let combination = if valid.is_empty() {
            predictor::Combination::fixed(self)
        } else {
            predictor::Combination::fit(self, &manifest, &self.answer(&manifest, &valid, &processors, &[])?)?
        };
        combination.save(run.folder())?;
        Ok(FitOutcome { training: outcome, failed: loader.failed_samples(), rows: count })
    }

    /// The loss of each head on rows that were answered, by the labels that are kept.
    fn head_losses(&self, answers: &Answers) -> Result<BTreeMap<String, f64>> {
        let all = self.labels.borrow();
        let labels: Vec<Option<Label>> = answers.rows.iter().map(|r| all.get(*r).cloned().flatten()).collect();
        let labels = self.target.tensor(&labels, self.level()?, Device::Cpu)?;
        let mut out = BTreeMap::new();
        let heads = std::iter::once((keeping::FUSED.to_owned(), &answers.fused, None));
        let own = answers.own.iter().map(|(m, (logits, flags))| (m.to_string(), logits, Some(flags)));
        for (head, logits, flags) in heads.chain(own) {
            if let Some(loss) = self.target.loss(logits, &labels, flags, self.config.loss.label_smoothing.get())? {
                out.insert(head, loss.to_f64()?);
            }
        }
        Ok(out)
    }

    fn labelled(&self, manifest: &Manifest, split: Split) -> Vec<usize> {
        let labels = self.labels(manifest);
        manifest.rows_in_split(split).into_iter().filter(|r| labels[*r].is_some()).collect()
    }

    /// Answers for rows through a loader's processors. Values that cannot be read are missing.
    fn answer(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
        drop: &[Modality],
    ) -> Result<Answers> {
        let made = self.made.borrow().clone();
        self.answers(manifest, rows, processors, &|m| made.contains(m), drop)
    }

    /// Answers for rows of its own data, through what is kept of them.
    pub(crate) fn answer_own(&self, manifest: &Manifest, rows: &[usize], drop: &[Modality]) -> Result<Answers> {
        let processors = self.prepare(manifest, rows, &AtomicBool::new(false), &mut |_, _, _| {})?;
        self.answer(manifest, rows, &processors, drop)
    }

    /// Answers for rows of other data, nothing being kept.
    pub(crate) fn answer_fresh(&self, manifest: &Manifest, rows: &[usize], drop: &[Modality]) -> Result<Answers> {
        let processors = self.network.ways.iter().map(|(m, way)| (m.clone(), way.processor.clone())).collect();
        self.answers(manifest, rows, &processors, &|_| false, drop)
    }

    fn answers(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
        made: &dyn Fn(&Modality) -> bool,
        drop: &[Modality],
    ) -> Result<Answers> {
        // Whole items where the network looks at them, else so many rows that their pixels stay bounded.
        let chunks: Vec<Vec<usize>> = if self.network.by_items() {
            group_rows_by_item(manifest, rows).chunks(8).map(<[Vec<usize>]>::concat).collect()
        } else {
            rows.chunks(64).map(<[usize]>::to_vec).collect()
        };
        let mut out = Answers {
            rows: Vec::new(),
            fused: Tensor::zeros(&[0, self.target.outputs()], mm_core::DType::F32, Device::Cpu)?,
            own: BTreeMap::new(),
            present: Vec::new(),
            weights: BTreeMap::new(),
            broken: Vec::new(),
            looks: Vec::new(),
        };
        let (mut fused, mut own): (Vec<Tensor>, BTreeMap<Modality, Vec<(Tensor, Tensor)>>) =
            (Vec::new(), BTreeMap::new());
        for chunk in chunks {
            let mut parts: Parts<'_> = BTreeMap::new();
            let mut present = vec![Vec::new(); chunk.len()];
            for (modality, processor) in processors {
                if drop.contains(modality) {
                    continue;
                }
                let (mut good, mut which) = (Vec::new(), Vec::new());
                for (place, sample) in samples(manifest, &chunk, modality, processor.as_ref()) {
                    match sample {
                        Ok(sample) => {
                            good.push(sample);
                            which.push(place);
                            present[place].push(modality.clone());
                        }
                        Err(error) => {
                            let row = &manifest.rows[chunk[place]];
                            out.broken.push(FailedSample {
                                row: row.number,
                                id: row.id.clone(),
                                modality: modality.to_string(),
                                reason: error.to_string(),
                            });
                        }
                    }
                }
                if !good.is_empty() {
                    parts.insert(modality, (collate(&good, processor.as_ref())?, which));
                }
            }
            let names: Vec<String> = chunk.iter().map(|r| manifest.rows[*r].item.clone()).collect();
            let answer = if parts.is_empty() {
                self.nothing(chunk.len())?
            } else {
                no_grad(|| self.network.forward(&parts, made, &names, self.params.device(), false))?
            };
            fused.push(answer.fused.to_device(Device::Cpu)?);
            if self.network.explained.get() {
                out.looks.extend(answer.looks(chunk.len())?);
            }
            for modality in self.network.ways.keys() {
                if let Some((logits, flags)) = answer.own.get(modality) {
                    own.entry(modality.clone())
                        .or_default()
                        .push((logits.to_device(Device::Cpu)?, flags.to_device(Device::Cpu)?));
                } else if self.config.has_unimodal_heads() {
                    let zero = answer.fused.to_device(Device::Cpu)?.zeros_like()?;
                    let flags = zero.select(1, 0)?;
                    own.entry(modality.clone()).or_default().push((zero, flags));
                }
            }
            for (modality, weight) in &answer.weights {
                out.weights.entry(modality.clone()).or_default().extend(weight.to_vec::<f64>()?);
            }
            out.rows.extend(&chunk);
            out.present.extend(present);
        }
        if !fused.is_empty() {
            out.fused = Tensor::cat(&fused.iter().collect::<Vec<_>>(), 0)?;
        }
        for (modality, pieces) in own {
            let (logits, flags): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
            let both = (
                Tensor::cat(&logits.iter().collect::<Vec<_>>(), 0)?,
                Tensor::cat(&flags.iter().collect::<Vec<_>>(), 0)?,
            );
            out.own.insert(modality, both);
        }
        Ok(out)
    }

    /// For rows that have nothing at all: no answer is likelier than another.
    fn nothing(&self, rows: usize) -> Result<Answer> {
        let zero = Tensor::zeros(&[rows as i64, self.target.outputs()], mm_core::DType::F32, Device::Cpu)?;
        Ok(Answer::empty(zero))
    }
}

/// What those rows that have a modality have of it, read side by side: which of them, by its place, and its sample.
fn samples(
    manifest: &Manifest,
    rows: &[usize],
    modality: &Modality,
    processor: &dyn Processor,
) -> Vec<(usize, mm_core::Result<Tensor>)> {
    let having = rows.par_iter().enumerate();
    let having = having.filter_map(|(n, r)| Some((n, manifest.rows[*r].values.get(modality)?.first()?)));
    having.map(|(n, s)| (n, process_catching_panics(processor, s, &mut ProcessContext::eval()))).collect()
}

/// The figure that training watches.
pub const TARGET: &str = "score";

impl TrainingObjective<Batch> for Prediction {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<(Tensor, Vec<(String, f64)>)>> {
        let all = self.labels.borrow();
        let labels: Vec<Option<Label>> = batch.rows.iter().map(|r| all.get(*r).cloned().flatten()).collect();
        let labels = self.target.tensor(&labels, self.level()?, self.params.device())?;
        let parts: Parts<'_> =
            batch.modalities.iter().map(|(m, part)| (m, (part.input.clone(), part.rows.clone()))).collect();
        if parts.is_empty() {
            return Ok(None);
        }
        let made = self.made.borrow();
        let known = |m: &Modality| made.contains(m);
        let mut keeping = self.keeping.borrow_mut();
        if let (Some(own), 0, true) = (&mut keeping.own, batch.index, train) {
            own.update()?;
        }
        let judged = (&self.target, self.level()?);
        let kept = (&mut *keeping, batch.rows.as_slice());
        self.network.loss((&parts, &known, &batch.items), &labels, judged, &self.config.loss, train, kept)
    }

    fn state(&self) -> mm_core::Result<Vec<(String, Tensor)>> {
        self.keeping.borrow().state()
    }

    fn load_state(&self, find: &dyn Fn(&str) -> Option<Tensor>) -> mm_core::Result<()> {
        self.keeping.borrow_mut().restore(find)
    }
}
