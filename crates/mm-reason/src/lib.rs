#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! - [`Pipeline`] loads pretrained checkpoints that answer questions, caption images and transcribe speech.
//! - [`reasoning`] holds networks that are trained to answer questions about images.
//! - [`captioner`] holds captioning networks to train on features of any encoder.
//! - [`generate`] is the generation that all of them share.

pub mod captioner;
mod error;
pub mod generate;
pub mod pretrained;
pub mod reasoning;

pub use error::{Error, Result};
pub use pretrained::{
    Attribution, EncodedMedia, Generation, Pipeline, Request, ScoredAnswer, TrainBatch, TrainablePipeline,
    TrainingOptions, families,
};
