//! Many modalities become one, also when some are missing.
//!
//! [`build`] makes any operator of [`OPERATORS`] from its [`FusionConfig`]: it takes a `FeatureSet` whose rows may lack modalities and
//! gives one `Features`. [`late`] combines what models of single modalities say; [`training`] holds what keeps one modality from
//! drowning the others while they are learned together; [`early::words`] brings sound and faces to the words that they go with.
//!
//! ```
//! use mm_core::{Device, DType, FeatureSet, Features, FusionOperator, Modality, Params, Tensor};
//! use mm_fusion::{FusionConfig, build};
//! # fn main() -> mm_core::Result<()> {
//! let params = Params::new(Device::Cpu);
//! let widths = [(Modality::TEXT, 12), (Modality::AUDIO, 5)];
//! let fusion = build(&params.scope(), &FusionConfig::default(), &widths)?;
//! let mut set = FeatureSet::new(2);
//! set.insert(Modality::TEXT, Features::from_pooled(&Tensor::randn(&[2, 12], DType::F32, Device::Cpu)?)?, None)?;
//! let heard = Tensor::from_slice(&[true, false])?; // the second row has no sound
//! set.insert(Modality::AUDIO, Features::from_pooled(&Tensor::randn(&[2, 5], DType::F32, Device::Cpu)?)?, Some(heard))?;
//! assert_eq!(fusion.fuse(&set, false)?.features.values.shape(), [2, 1, 128]);
//! # Ok(())
//! # }
//! ```

pub mod early;
mod error;
mod inputs;
pub mod intermediate;
pub mod late;
mod operator;
#[cfg(test)]
mod tests;
pub mod training;

pub use error::{Error, Result};
pub use inputs::Missing;
pub use operator::{FusionConfig, OPERATORS, Operator, build, kind_of, of_kind};
