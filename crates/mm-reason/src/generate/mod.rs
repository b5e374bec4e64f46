//! Autoregressive generation: greedy search, sampling and beam search, with the options of transformers'
//! `GenerationConfig`, and log-likelihoods of given continuations.

mod beam;
mod config;
mod constraint;
mod decoder;
mod likelihood;
mod logits;
mod model;
mod sampling;
mod search;

pub use config::{EarlyStopping, GenerationConfig};
pub use constraint::{GrammarConstraint, OutputConstraint, TokenConstraint};
pub(crate) use decoder::{concat_prefills, prefill};
pub use likelihood::log_likelihoods;
pub use logits::LogitsProcessors;
pub use model::{GeneratedSequence, LanguageModel, OnToken, Prefill};
pub use search::generate;
