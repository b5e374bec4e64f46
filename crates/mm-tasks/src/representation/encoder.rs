//! The encoder kind `learned`: the representation of a run as a frozen encoder in any config.

use super::{data::ElementType, model::Representation};
use crate::{Error, TaskContext, TaskRegistry, embedding::run_fingerprint};
use mm_core::{
    BuildContext, BuiltEncoder, Encoder, Features, Input, InputSet, Modality, Registry, Tensor, config, no_grad,
};
use serde::Deserialize;
use std::path::PathBuf;

struct LearnedEncoder {
    model: Representation,
    modality: Modality,
    /// Dimension of the features of a position.
    dim: i64,
}

impl Encoder for LearnedEncoder {
    fn encode(&self, input: &Input, _train: bool) -> mm_core::Result<Features> {
        self.model.learner.features(&self.model.input_set(&self.modality, input.clone())?)
    }

    fn embed(&self, input: &Input, _train: bool) -> mm_core::Result<Tensor> {
        self.model.learner.encode(&self.model.input_set(&self.modality, input.clone())?)
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn embedding_dim(&self) -> i64 {
        self.model.learner.dim()
    }

    fn modality(&self) -> Modality {
        self.modality.clone()
    }
}

/// Settings of the kind `learned`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LearnedConfig {
    /// The run folder, relative to the config's folder.
    run: PathBuf,
    /// Which of its modalities; its only one when absent.
    #[serde(default)]
    modality: Option<Modality>,
}

/// Adds the kind `learned`.
pub(crate) fn register(registry: &mut Registry) {
    registry.register_encoder("learned", build);
}

fn build(settings: &toml::Value, context: &BuildContext<'_>) -> mm_core::Result<BuiltEncoder> {
    let settings: LearnedConfig = config::parse(settings, &context.field)?;
    let run = context.base_dir.join(&settings.run);
    let in_run = |e: Error| mm_core::Error::file(&run, e);
    let device = context.scope.device();
    let tasks = TaskRegistry::new();
    let model = Representation::load(&run, &TaskContext { encoders: context.registry, tasks: &tasks, device });
    let model = model.map_err(in_run)?;
    let known = || model.inputs.keys().map(Modality::name);
    let modality = match settings.modality {
        Some(modality) if model.inputs.contains_key(&modality) => modality,
        Some(other) => return Err(mm_core::Error::unknown("modality of the run", other.name(), known())),
        None if model.inputs.len() == 1 => Modality::from(known().next().unwrap_or_default()),
        None => {
            let expected = format!("one of {}", known().collect::<Vec<_>>().join(", "));
            return Err(mm_core::Error::config(format!("{}.modality", context.field), "nothing", expected));
        }
    };
    let fingerprint = format!("learned {modality} {}", run_fingerprint(Some(&run)).map_err(in_run)?);
    let input = &model.inputs[&modality];
    let processor = input.branch.processor.clone();
    // The dimension of a position is known from the features of a sample of zeros.
    let shape: Vec<i64> = std::iter::once(1).chain(input.shape.iter().copied()).collect();
    let values = Tensor::zeros(&shape, input.value_type.dtype(), device)?;
    let set = InputSet::of(modality.clone(), Input { values, mask: None })?;
    let dim = no_grad(|| model.learner.features(&set))?.dim()?;
    Ok(BuiltEncoder {
        processor,
        encoder: Box::new(LearnedEncoder { model, modality, dim }),
        frozen: true,
        fingerprint,
    })
}
