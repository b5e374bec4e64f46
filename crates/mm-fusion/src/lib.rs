//! Fusion of several modalities, any of which may be missing.
//!
//! [`Fusion`] is built from a [`FusionConfig`]: it takes a `FeatureSet` whose rows may lack modalities and returns one
//! set of features. Its operator is chosen by `kind` among [`operators`]; other crates add theirs with
//! [`register_operator`]. [`late`] combines the predictions of unimodal models; [`training`] holds methods that keep
//! one modality from dominating.
//!
//! ```
//! use mm_core::{DType, Device, FeatureSet, Features, Modality, Params, Tensor};
//! use mm_fusion::{Fusion, FusionConfig};
//! # fn main() -> mm_core::Result<()> {
//! let params = Params::new(Device::Cpu);
//! let dims = [(Modality::TEXT, 12), (Modality::AUDIO, 5)];
//! let fusion = Fusion::new(&params.scope(), &FusionConfig::default(), &dims)?;
//! let mut set = FeatureSet::new(2);
//! let text = Features::from_pooled(&Tensor::randn(&[2, 12], DType::F32, Device::Cpu)?)?;
//! let audio = Features::from_pooled(&Tensor::randn(&[2, 5], DType::F32, Device::Cpu)?)?;
//! set.insert(Modality::TEXT, text, None)?;
//! set.insert(Modality::AUDIO, audio, Some(Tensor::from_slice(&[true, false])?))?; // the second row has no audio
//! assert_eq!(fusion.fuse(&set, false)?.features.values.shape(), [2, 1, 128]);
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod fusion;
mod inputs;
pub mod late;
mod operator;
mod operators;
mod registry;
#[cfg(test)]
mod tests;
pub mod training;

pub use config::{FusionConfig, MissingModality, OperatorConfig};
pub use error::{Error, Result};
pub use fusion::{Fusion, FusionOutput};
pub use inputs::ModalityInput;
pub use operator::{FusionOperator, OperatorContext, OperatorOutput, OperatorSpec};
pub use registry::{operator_spec, operators, register_operator};
