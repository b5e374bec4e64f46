//! The traits that the crates of the workspace share: small and object-safe.

mod decoded;
mod encoder;
mod processor;
mod reasoner;
mod representation;
mod source;
mod training;

pub use decoded::{DecodedAudio, DecodedImage};
pub use encoder::{Encoder, Module};
pub use processor::{ProcessContext, Processor};
pub use reasoner::{AttentionStep, Reasoner, ReasonerOutput};
pub use representation::{GenerativeDecoder, InputSet, RepresentationLearner};
pub use source::{EncodedFile, Source, read_part};
pub use training::{ChunkedLoss, LossOutput, TrainingObjective};
