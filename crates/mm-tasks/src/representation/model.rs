//! The representation model: inputs, their standardization, and a learner of `mm_repr::generative`.

use super::{config::RepresentationConfig, subsets::chunks};
use crate::{
    Error, ProgressFn, Result, TaskContext,
    batch::read_all,
    inputs::{InputBranch, Resources, Standardizer, prepare_inputs},
};
use mm_core::{
    BuildContext, Device, Input, InputSet, Modality, Params, Processor, Registry, RepresentationLearner, Source,
    Tensor, no_grad, seed::manual_seed,
};
use mm_data::{Manifest, Row, TensorCache, collate};
use mm_repr::generative::{InputSpecs, ValueType, build_input};
use mm_train::Run;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

/// One modality of the model.
pub(super) struct RepresentationInput {
    pub(super) branch: InputBranch,
    /// Shape of a sample.
    pub(super) shape: Vec<i64>,
    /// Number of elements of a sample.
    pub(super) numel: i64,
    pub(super) value_type: ValueType,
    /// Of real values.
    pub(super) standardizer: Option<Standardizer>,
}

/// A representation learner on the modalities of a data set.
pub struct Representation {
    pub(super) params: Params,
    pub(super) inputs: BTreeMap<Modality, RepresentationInput>,
    pub(super) learner: Box<dyn RepresentationLearner>,
    /// Index of each class.
    pub(super) classes: BTreeMap<String, i64>,
    pub(super) config: RepresentationConfig,
    pub(super) base_dir: PathBuf,
    cache: TensorCache,
    /// The run folder that it was loaded from.
    pub(super) run: Option<PathBuf>,
}

impl Representation {
    /// Builds an untrained model; its weights are a function of the seed. Vocabularies and classes that the config does
    /// not name are taken from the training rows.
    pub fn new(mut config: RepresentationConfig, base_dir: &Path, encoders: &Registry, device: Device) -> Result<Self> {
        let base_dir = config.common.base_dir_or(base_dir);
        config.fit_inputs(&base_dir)?;
        let classes: BTreeMap<String, i64> = config.classes.iter().flatten().cloned().zip(0..).collect();
        manual_seed(config.common.train.seed);
        let params = Params::new(device);
        let root = params.scope();
        let (mut inputs, mut specs) = (BTreeMap::new(), InputSpecs::new());
        for (name, settings) in &config.inputs {
            let modality = Modality::from(name.as_str());
            let scope = root.pp("inputs").pp(name);
            let context = BuildContext {
                scope: scope.pp("encoder"),
                base_dir: base_dir.clone(),
                field: format!("inputs.{name}"),
                registry: encoders,
            };
            let built = build_input(settings, encoders, &context)?;
            let spec = built.spec.clone();
            // Vectors are standardized element by element; a spectrogram has one mean and deviation.
            let dim = if spec.shape.len() == 1 { spec.numel() } else { 1 };
            let is_real = spec.value_type == ValueType::Real;
            let standardizer = is_real.then(|| Standardizer::new(&scope, dim)).transpose()?;
            let (encoder, fingerprint) = built.encoder.unzip();
            let branch = InputBranch {
                frozen: encoder.is_some(),
                encoder,
                processor: built.processor,
                fingerprint: fingerprint.unwrap_or_default(),
                num_views: 0,
                positions: false,
            };
            let (shape, numel, value_type) = (spec.shape.clone(), spec.numel(), spec.value_type);
            inputs.insert(modality.clone(), RepresentationInput { branch, shape, numel, value_type, standardizer });
            specs.insert(modality, spec);
        }
        let learners = mm_repr::LearnerRegistry::default();
        let num_classes = classes.len() as i64;
        let learner = learners.build(&config.model, "model", &specs, num_classes, &root.pp("model"))?;
        let cache = TensorCache::open_or_default(&base_dir, config.common.cache_dir.as_deref())?;
        Ok(Self { params, inputs, learner, classes, config, base_dir, cache, run: None })
    }

    /// Loads the model of a run folder with its best weights.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let mut model = Self::new(context.run_config(run)?, run, context.encoders, context.device)?;
        Run::load_weights(run, &model.params)?;
        model.run = Some(run.to_owned());
        Ok(model)
    }

    /// This model before training, with the same standardization, which is computed from the data.
    pub(super) fn untrained(&self, context: &TaskContext<'_>) -> Result<Self> {
        let other = Self::new(self.config.clone(), &self.base_dir, context.encoders, self.params.device())?;
        for (modality, input) in &self.inputs {
            let own = other.inputs.get(modality).and_then(|i| i.standardizer.as_ref());
            if let (Some(to), Some(from)) = (own, &input.standardizer) {
                to.copy_stats(from)?;
            }
        }
        Ok(other)
    }

    /// The configuration.
    pub fn config(&self) -> &RepresentationConfig {
        &self.config
    }

    /// The learner.
    pub fn learner(&self) -> &dyn RepresentationLearner {
        self.learner.as_ref()
    }

    /// The modalities of its inputs.
    pub fn input_modalities(&self) -> impl Iterator<Item = &Modality> {
        self.inputs.keys()
    }

    /// The modalities that it can encode alone.
    pub(super) fn encodable(&self) -> impl Iterator<Item = &Modality> {
        self.inputs.keys().filter(|m| self.learner.accepts(m))
    }

    /// The type of the values of a modality.
    pub fn value_type(&self, modality: &Modality) -> Option<ValueType> {
        self.inputs.get(modality).map(|i| i.value_type)
    }

    /// The data set, without values of other modalities and languages.
    pub fn dataset(&self) -> Result<Manifest> {
        self.config.open_dataset(&self.base_dir)
    }

    pub(super) fn input(&self, modality: &Modality) -> Result<&RepresentationInput> {
        let known = self.inputs.keys().map(Modality::name);
        let found = self.inputs.get(modality);
        Ok(found.ok_or_else(|| mm_core::Error::unknown("modality of this run", modality.name(), known))?)
    }

    /// The processors of all inputs for the values of a data set; encodes what frozen encoders have not seen yet.
    pub(super) fn prepare(
        &self,
        manifest: &Manifest,
        stop: &AtomicBool,
        on_progress: ProgressFn<'_>,
    ) -> Result<BTreeMap<Modality, Arc<dyn Processor>>> {
        let resources = Resources { cache: &self.cache, device: self.params.device(), stop };
        prepare_inputs(self.inputs.iter().map(|(m, i)| (m, &i.branch)), manifest, &resources, on_progress)
    }

    /// Standardizes values, if the modality has a standardizer.
    pub(super) fn standardize(&self, modality: &Modality, values: &Tensor) -> mm_core::Result<Tensor> {
        match self.inputs.get(modality).and_then(|i| i.standardizer.as_ref()) {
            Some(standardizer) => standardizer.apply(values),
            None => Ok(values.clone()),
        }
    }

    /// The index of a row's class; −1 where it has none of the training classes.
    pub(super) fn class_of(&self, row: &Row) -> i64 {
        row.label.as_ref().and_then(|l| self.classes.get(l)).copied().unwrap_or(-1)
    }

    /// The learner's input of one modality's processed input.
    pub(super) fn input_set(&self, modality: &Modality, input: Input) -> mm_core::Result<InputSet> {
        let encoder = self.inputs.get(modality).and_then(|i| i.branch.encoder.as_ref());
        let values = match encoder {
            Some(encoder) => encoder.embed(&input, false)?,
            None => input.values,
        };
        InputSet::of(modality.clone(), Input { values: self.standardize(modality, &values)?, mask: None })
    }

    /// Codes `[samples, dim]` of samples.
    pub(super) fn encode_samples(&self, modality: &Modality, samples: &[Tensor]) -> Result<Tensor> {
        let processor = self.input(modality)?.branch.processor.as_ref();
        self.encode_input(modality, collate(samples, processor)?)
    }

    /// Codes `[sources, dim]` of raw values.
    pub fn encode_sources(&self, modality: &Modality, sources: &[Source]) -> Result<Tensor> {
        let processor = self.input(modality)?.branch.processor.as_ref();
        self.encode_input(modality, read_all(processor, sources)?)
    }

    fn encode_input(&self, modality: &Modality, input: Input) -> Result<Tensor> {
        if !self.learner.accepts(modality) {
            let expected = self.encodable().map(Modality::name).collect::<Vec<_>>().join(", ");
            return Err(Error::invalid("modality", format!("{modality}, which is not encoded alone"), expected));
        }
        let input = input.to_device(self.params.device())?;
        Ok(no_grad(|| self.learner.encode(&self.input_set(modality, input)?))?)
    }

    /// The codes `[rows, dim]` of a set, in chunks.
    pub fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let mut codes = Vec::new();
        for chunk in chunks(set)? {
            codes.push(self.learner.encode(&chunk)?);
        }
        Ok(Tensor::cat(&codes.iter().collect::<Vec<_>>(), 0)?)
    }

    /// The reconstruction of one modality from a set, in chunks; `None` where the learner has none.
    pub fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        manual_seed(0);
        let mut out = Vec::new();
        for chunk in chunks(set)? {
            match self.learner.reconstruct(&chunk, modality)? {
                Some(values) => out.push(values),
                None => return Ok(None),
            }
        }
        Ok(Some(Tensor::cat(&out.iter().collect::<Vec<_>>(), 0)?))
    }
}
