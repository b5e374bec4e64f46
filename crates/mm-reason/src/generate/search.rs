//! The entry point of generation.

use super::{
    beam,
    config::GenerationConfig,
    logits::LogitsProcessors,
    model::{GeneratedSequence, LanguageModel, OnToken, Prefill},
    sampling,
};
use crate::Result;
use mm_core::no_grad;

/// Continues prompts as `config` states: for each row the best sequences, best first (more than one only for beam
/// search with `num_return_sequences`).
///
/// # Errors
/// If an option is out of range, and where the model fails.
pub fn generate<M: LanguageModel>(
    model: &M,
    prefill: Prefill<M::State>,
    config: &GenerationConfig,
    processors: &LogitsProcessors<'_>,
    on_token: OnToken<'_>,
) -> Result<Vec<Vec<GeneratedSequence>>> {
    config.validate(prefill.logits.size(-1)?)?;
    if config.max_new_tokens == 0 {
        let empty = GeneratedSequence { token_ids: Vec::new(), log_prob: 0.0, score: 0.0, finished: false };
        return Ok(vec![vec![empty]; prefill.prompts.len()]);
    }
    no_grad(|| {
        if config.num_beams > 1 {
            beam::search(model, prefill, config, processors)
        } else {
            sampling::search(model, prefill, config, processors, on_token)
        }
    })
}
