//! One modality questions another.
//!
//! [`reasoning`] holds networks that are trained here to answer a question about a picture; [`Pipeline`] loads checkpoints that answer,
//! describe and transcribe; [`generate`] is how all of them put one token after another.

pub mod captioner;
pub mod decoder;
mod error;
pub mod generate;
pub mod pretrained;
pub mod reasoning;

pub use error::{Error, Result};
pub use pretrained::{Attribution, EncodedMedia, Generation, Pipeline, Request, ScoredAnswer, TrainBatch, families};
