//! The decoder stack of all autoregressive models: token and position embeddings, transformer blocks, language model
//! head.
//!
//! A [`DecoderConfig`] holds the differences between families (BERT, GPT-2, Llama, Whisper, …), a [`DecoderState`] the
//! key-value caches of a batch whose rows may have prompts of different lengths.

mod config;
mod model;
mod state;

pub use config::{DecoderConfig, LearnedPositions};
pub use model::{Decoder, DecoderArgs};
pub use state::DecoderState;
