//! The interface of a language model, and what generation returns.

use crate::Result;
use mm_core::{DType, Tensor};

/// A model that predicts the next token.
pub trait LanguageModel {
    /// The caches.
    type State;

    /// One token of each row, `[rows, 1]` int64 → logits of the next, `[rows, vocab]`.
    fn step(&self, ids: &Tensor, state: &mut Self::State) -> mm_core::Result<Tensor>;

    /// Several tokens of each row, `[rows, tokens]` int64 → logits after each, `[rows, tokens, vocab]`.
    fn step_many(&self, ids: &Tensor, state: &mut Self::State) -> mm_core::Result<Tensor>;

    /// Replaces the rows of the state by these of them, `[new rows]` int64.
    fn reorder(&self, state: &mut Self::State, rows: &Tensor) -> mm_core::Result<()>;

    /// A copy of the state with caches of its own.
    fn fork(&self, state: &Self::State) -> mm_core::Result<Self::State>;
}

/// A model that has processed its prompts.
pub struct Prefill<S> {
    /// The caches.
    pub state: S,
    /// Logits of the first new token, `[rows, vocab]`.
    pub logits: Tensor,
    /// Token ids of each row's prompt, for penalties on repetition.
    pub prompts: Vec<Vec<i64>>,
}

/// A generated sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedSequence {
    /// The tokens, without prompt and end token.
    pub token_ids: Vec<i64>,
    /// Sum of the log-probabilities of its tokens, the end token included.
    pub log_prob: f64,
    /// `log_prob` divided by the number of tokens to the power of the length penalty; what beams are ranked by.
    pub score: f64,
    /// Whether it ended with an end token or a stop string, and not at the maximum length.
    pub finished: bool,
}

/// Called with row and token id as each token is chosen (not for beam search).
pub type OnToken<'a> = &'a mut dyn FnMut(usize, i64);

/// Logits `[rows, vocab]` as float32 values, row after row.
pub(super) fn to_rows(logits: &Tensor) -> Result<Vec<f32>> {
    Ok(logits.to_dtype(DType::F32)?.to_vec::<f32>()?)
}
