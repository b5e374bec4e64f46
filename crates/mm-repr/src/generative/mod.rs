//! Representations learned from the data themselves by making them again: autoencoders of one modality and of several.
//!
//! Each is a [`RepresentationLearner`]: it takes the rows of a batch with whatever modalities they have and gives a loss while
//! training and a code afterwards. [`build_learner`] builds one by the `kind` that a config names.

mod autoencoder;
mod inputs;
mod mae;
mod multimodal_vae;
pub mod networks;
mod sequence_autoencoder;
mod vae;
mod vq_vae;

pub use autoencoder::{Autoencoder, AutoencoderConfig, Sparsity};
pub use inputs::{BuiltInput, InputConfig, build_input, decode_chars};
pub use mae::{MaskedAutoencoder, MaskedAutoencoderConfig};
pub use multimodal_vae::{JointPosterior, MultimodalVae, MultimodalVaeConfig};
pub use sequence_autoencoder::{SequenceAutoencoder, SequenceAutoencoderConfig};
pub use vae::{Vae, VaeConfig};
pub use vq_vae::{VqVae, VqVaeConfig};

use crate::adversarial;
use mm_core::{Error, InputSet, Modality, RepresentationLearner, Result, Scope, Tensor, config};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the numbers of a modality are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// Pixels in [0, 1].
    UnitInterval,
    /// Any numbers, brought to mean zero and variance one.
    Real,
    /// Zeros and ones.
    Binary,
    /// Numbers of symbols, of which there are so many; 0 is padding, 1 begins, 2 ends, 3 is unknown.
    Tokens(i64),
}

/// Shape and kind of one modality's values, without the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Sizes: `[channels, height, width]` of pictures, `[width]` of vectors, `[length]` of symbols.
    pub shape: Vec<i64>,
    /// What the numbers are.
    pub value_type: ValueType,
}

impl InputSpec {
    /// How many numbers a row has.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }
}

/// The modalities of a learner.
pub type InputSpecs = BTreeMap<Modality, InputSpec>;

/// The kinds that [`build_learner`] builds.
pub const KINDS: &[&str] = &[
    "acmr",
    "adversarial_autoencoder",
    "autoencoder",
    "bigan",
    "gan",
    "mae",
    "multimodal_vae",
    "sequence_autoencoder",
    "translation",
    "vae",
    "vq_vae",
];

/// Builds what `settings.kind` names, from the rest of `settings`, for modalities of these shapes and `classes` labels.
pub fn build_learner(
    settings: &toml::Value,
    field: &str,
    specs: &InputSpecs,
    classes: i64,
    scope: &Scope<'_>,
) -> Result<Box<dyn RepresentationLearner>> {
    let mut settings = settings.clone();
    let kind = settings.as_table_mut().and_then(|t| t.remove("kind")).and_then(|k| k.as_str().map(ToOwned::to_owned));
    let Some(kind) = kind else {
        return Err(Error::config(format!("{field}.kind"), "nothing", format!("one of {}", KINDS.join(", "))));
    };
    let s = &settings;
    Ok(match kind.as_str() {
        "autoencoder" => Box::new(Autoencoder::new(scope, one(specs)?, &config::parse(s, field)?)?),
        "vae" => Box::new(Vae::new(scope, one(specs)?, &config::parse(s, field)?)?),
        "vq_vae" => Box::new(VqVae::new(scope, one(specs)?, &config::parse(s, field)?)?),
        "mae" => Box::new(MaskedAutoencoder::new(scope, one(specs)?, &config::parse(s, field)?)?),
        "sequence_autoencoder" => Box::new(SequenceAutoencoder::new(scope, one(specs)?, &config::parse(s, field)?)?),
        "multimodal_vae" => Box::new(MultimodalVae::new(scope, specs, &config::parse(s, field)?)?),
        "gan" => Box::new(adversarial::Gan::new(scope, specs, &config::parse(s, field)?)?),
        "adversarial_autoencoder" => {
            Box::new(adversarial::AdversarialAutoencoder::new(scope, one(specs)?, &config::parse(s, field)?)?)
        }
        "bigan" => Box::new(adversarial::BiGan::new(scope, one(specs)?, &config::parse(s, field)?)?),
        "acmr" => Box::new(adversarial::Acmr::new(scope, specs, classes, &config::parse(s, field)?)?),
        "translation" => Box::new(adversarial::Translation::new(scope, specs, &config::parse(s, field)?)?),
        other => return Err(Error::unknown("kind of learner", other, KINDS.iter().copied())),
    })
}

/// The only modality of a learner that takes one.
fn one(specs: &InputSpecs) -> Result<(&Modality, &InputSpec)> {
    match specs.iter().next() {
        Some(found) if specs.len() == 1 => Ok(found),
        _ => {
            let found = specs.keys().map(Modality::name).collect::<Vec<_>>().join(", ");
            Err(Error::config("inputs", found, "exactly one modality for this kind of learner"))
        }
    }
}

/// The rows of a set that have a modality, and their values; none when there is no such row.
pub(crate) fn rows_with(set: &InputSet, modality: &Modality) -> Result<Option<(Tensor, Tensor)>> {
    let (input, present) = set.get(modality)?;
    let places = present.nonzero()?;
    if places.numel() == 0 {
        return Ok(None);
    }
    Ok(Some((input.values.index_select(0, &places)?, places)))
}

/// A weight that grows from 0 to 1 over the first `steps` training steps; counted in a buffer, so that a resumed run goes on.
pub(crate) struct LinearWarmup {
    done: Tensor,
    steps: u64,
}

impl LinearWarmup {
    pub(crate) fn new(scope: &Scope<'_>, steps: u64) -> Result<Self> {
        Ok(Self { done: scope.buffer("steps_done", &[1], mm_core::Init::Zeros)?, steps })
    }

    pub(crate) fn device(&self) -> mm_core::Device {
        self.done.device()
    }

    /// The weight now, after which the step is counted when training.
    pub(crate) fn next(&self, train: bool) -> Result<f64> {
        let done = self.done.to_f64()?;
        if train {
            self.done.copy_(&self.done.add_scalar(1.0)?)?;
        }
        Ok(if self.steps == 0 || !train { 1.0 } else { (done / self.steps as f64).min(1.0) })
    }
}

#[cfg(test)]
mod tests;
