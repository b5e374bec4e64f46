//! The prediction model.

use super::{
    config::PredictionConfig,
    dataset::{open_table, open_training_dataset},
    network::Network,
    target::{Label, Problem, Target},
};
use crate::{
    Error, ProgressFn, Result,
    config::parse_task,
    features::{CachedFeatures, Resources},
};
use mm_core::{Device, Init, Modality, Params, Processor, Registry, Tensor, config as settings, seed::manual_seed};
use mm_data::{Manifest, Split, TableOptions, TensorCache};
use mm_train::Run;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

/// Features of frozen encoders that all rows of a data set are known to have in the cache, by modality.
pub(super) type EncodedFeatures = BTreeMap<Modality, Arc<CachedFeatures>>;

/// Settings for reading the values of a data set.
pub(super) struct PreparedInputs {
    /// The processor of each modality.
    pub(super) processors: BTreeMap<Modality, Arc<dyn Processor>>,
    /// The modalities whose processor returns the embeddings of a frozen encoder.
    pub(super) precomputed: BTreeSet<Modality>,
}

/// A model that predicts a column from any modalities.
pub struct Prediction {
    pub(super) params: Params,
    pub(super) network: Network,
    pub(super) target: Target,
    /// Mean and standard deviation of the targets of a regression, which is trained on standardized ones.
    label_stats: Tensor,
    pub(super) config: PredictionConfig,
    pub(super) base_dir: PathBuf,
    pub(super) cache: TensorCache,
    /// See [`EncodedFeatures`].
    pub(super) encoded: EncodedFeatures,
}

impl Prediction {
    /// Builds an untrained model of a resolved config; its weights are a function of the seed.
    ///
    /// # Errors
    /// When the config is not resolved ([`resolve`](super::resolve)), or a part of it cannot be built.
    pub fn new(config: PredictionConfig, base_dir: &Path, registry: &Registry, device: Device) -> Result<Self> {
        let base_dir = config.common.base_dir_or(base_dir);
        if config.problem == Problem::Auto || (config.classes.len() < 2 && config.problem != Problem::Regression) {
            let found = format!("{} with {} classes", config.problem.name(), config.classes.len());
            return Err(Error::invalid("problem", found, "a problem with its classes"));
        }
        let target = Target { problem: config.problem, classes: config.classes.clone() };
        manual_seed(config.common.train.seed);
        let params = Params::new(device);
        let network = Network::new(&params, &config, &target, &base_dir, registry)?;
        let label_stats = params.scope().pp("target").buffer("stats", &[2], Init::Zeros)?;
        label_stats.copy_(&Tensor::from_slice(&[0f32, 1.0])?)?;
        let cache = TensorCache::open_or_default(&base_dir, config.common.cache_dir.as_deref())?;
        Ok(Self { params, network, target, label_stats, config, base_dir, cache, encoded: EncodedFeatures::new() })
    }

    /// Loads the model of a run folder: its best weights, or the last ones where it was stopped before an evaluation.
    ///
    /// # Errors
    /// When the folder is not a run of this task.
    pub fn load(run: &Path, registry: &Registry, device: Device) -> Result<Self> {
        let config = parse_task(&settings::read(&run.join("config.toml"), &[])?)?;
        let model = Self::new(config, run, registry, device)?;
        Run::load_weights(run, &model.params)?;
        Ok(model)
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The configuration.
    pub fn config(&self) -> &PredictionConfig {
        &self.config
    }

    /// What it predicts.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The modalities.
    pub fn modalities(&self) -> impl Iterator<Item = &Modality> {
        self.network.branches.keys()
    }

    /// The data set of its config.
    ///
    /// # Errors
    /// When it cannot be read, or no training row has one of the modalities.
    pub fn dataset(&self) -> Result<Manifest> {
        open_training_dataset(&self.config, &self.base_dir, self.modalities())
    }

    /// Another table, with columns as in training; rows need neither labels nor every modality. What `options` leave
    /// open is as in training, but that URLs are fetched only where they say so.
    ///
    /// # Errors
    /// When it cannot be read, or has none of the columns.
    pub fn open_table(
        &self,
        path: &Path,
        base_dir: &Path,
        excluded: &[Modality],
        options: &TableOptions<'_>,
    ) -> Result<Manifest> {
        open_table(&self.config, path, base_dir, excluded, options)
    }

    /// The label of each row; `None` where there is no known one.
    pub(super) fn labels(&self, manifest: &Manifest) -> Vec<Option<Label>> {
        manifest.rows.iter().map(|r| r.cells.get(&self.config.label).and_then(|l| self.target.encode(l))).collect()
    }

    /// The rows of a split that have a label.
    pub(super) fn labeled_rows(&self, manifest: &Manifest, split: Split) -> Vec<usize> {
        let labels = self.labels(manifest);
        manifest.rows_in_split(split).into_iter().filter(|r| labels[*r].is_some()).collect()
    }

    /// Mean and standard deviation of the targets of a regression; (0, 1) otherwise.
    pub(super) fn label_stats(&self) -> Result<(f64, f64)> {
        let stats = self.label_stats.to_vec::<f64>()?;
        Ok((stats[0], stats[1]))
    }

    /// Sets [`Prediction::label_stats`].
    pub(super) fn set_label_stats(&self, mean: f64, std: f64) -> Result<()> {
        Ok(self.label_stats.copy_(&Tensor::from_slice(&[mean as f32, std as f32])?)?)
    }

    /// How `rows` of a data set are read in training and evaluation; encodes values that frozen encoders have not seen
    /// yet.
    pub(super) fn prepare(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        stop: &AtomicBool,
        on_progress: ProgressFn<'_>,
    ) -> Result<PreparedInputs> {
        let resources = Resources { cache: &self.cache, device: self.params.device(), stop };
        let mut processors: BTreeMap<Modality, Arc<dyn Processor>> = BTreeMap::new();
        let mut precomputed = BTreeSet::new();
        for (modality, branch) in &self.network.branches {
            let frozen = branch.input.frozen_encoder();
            let encoded = frozen.as_ref().and_then(|f| self.encoded.get(modality).filter(|e| e.are_of(f)));
            let processor: Arc<dyn Processor> = if let Some(encoded) = encoded {
                encoded.clone()
            } else {
                let sources = rows.iter().filter_map(|r| manifest.rows[*r].values.get(modality)).flatten();
                branch.input.prepare(modality, sources, &resources, &mut *on_progress)?
            };
            if frozen.is_some() {
                precomputed.insert(modality.clone());
            }
            processors.insert(modality.clone(), processor);
        }
        Ok(PreparedInputs { processors, precomputed })
    }

    /// How rows of another data set are read, without a cache.
    pub(super) fn uncached_inputs(&self) -> PreparedInputs {
        let processor =
            |(m, branch): (&Modality, &super::network::ModalityBranch)| (m.clone(), branch.input.processor.clone());
        PreparedInputs {
            processors: self.network.branches.iter().map(processor).collect(),
            precomputed: BTreeSet::new(),
        }
    }
}
