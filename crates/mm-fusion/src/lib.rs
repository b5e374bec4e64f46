#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! [`Fusion`] is built from a [`FusionConfig`]: it takes a `FeatureSet` whose rows may lack modalities and returns one
//! set of features. Its operator is one of [`operators`], selected by `kind`; other crates add theirs with
//! [`register_operator`]. [`late`] combines the predictions of unimodal models; [`training`] holds methods that keep
//! one modality from dominating.

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
