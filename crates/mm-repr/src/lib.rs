#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! - [`Pretrained`] loads a folder of transformers, sentence-transformers, timm or open_clip and gives an encoder with
//!   its preprocessing.
//! - [`text`], [`image`], [`audio`], [`video`] and [`vector`] hold encoders that are trained from scratch.
//! - [`word2vec`] trains word vectors; [`generative`] and [`adversarial`] learn representations without labels.
//! - [`register`] makes the encoders available to config files.

pub mod adversarial;
pub mod audio;
mod batches;
mod classify;
mod error;
mod families;
pub mod family;
pub mod generative;
pub mod image;
mod joint;
mod json;
pub mod learners;
mod locate;
mod model_paths;
mod padding;
mod pretrained;
mod propose;
mod register;
mod rerank;
pub mod text;
pub mod vector;
pub mod video;
pub mod word2vec;

pub use classify::{CandidateLabels, ClassScore, Classes};
pub use error::{Error, Result};
pub use families::families;
pub use family::{ContrastiveHead, LoadOptions, NamedPrompt, PretrainedEncoder, Tower};
pub use joint::blip::{BLIP_VISION_DEFAULTS, BLIP_VISION_VARIANT, BlipTextConfig, blip_vision_weight_map};
pub use json::read_json;
pub use learners::LearnerRegistry;
pub use locate::locate;
pub use model_paths::{ModelPaths, copy_model_files, merge_adapter};
pub use pretrained::Pretrained;
pub use register::register;
pub use rerank::Relevance;
