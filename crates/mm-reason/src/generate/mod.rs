//! Autoregressive generation: greedy search, sampling and beam search, with the options of transformers'
//! `GenerationConfig`, and log-likelihoods of given continuations.

mod beam;
mod config;
mod constraint;
mod decoder;
#[cfg(feature = "constraints")]
mod grammar;
#[cfg(not(feature = "constraints"))]
#[path = "grammar_disabled.rs"]
mod grammar;
mod likelihood;
mod logits;
mod model;
mod sampling;
mod search;

pub use config::{EarlyStopping, GenerationConfig};
pub use constraint::{OutputConstraint, TokenConstraint};
pub(crate) use decoder::{concat_prefills, prefill};
pub use grammar::GrammarConstraint;
pub use likelihood::log_likelihoods;
pub use logits::LogitsProcessors;
pub use model::{GeneratedSequence, LanguageModel, OnToken, Prefill};
pub use search::generate;
