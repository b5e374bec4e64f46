//! The traits that the crates of the workspace share: small and object-safe.

mod encoder;
mod fusion;
mod processor;
mod representation;
mod training;

pub use encoder::{Encoder, Module};
pub use fusion::{AttentionStep, FusionOperator, FusionOutput, Reasoner, ReasonerOutput};
pub use processor::{ProcessContext, Processor, Source, is_missing_cell};
pub use representation::{GenerativeDecoder, InputSet, RepresentationLearner};
pub use training::{LossOutput, TrainingObjective};
