//! mm-core's decoder as a language model.

use super::model::{LanguageModel, Prefill};
use mm_core::{
    Result, Tensor,
    nn::decoder::{Decoder, DecoderState},
};

impl LanguageModel for Decoder {
    type State = DecoderState;

    fn step(&self, ids: &Tensor, state: &mut DecoderState) -> Result<Tensor> {
        Decoder::step(self, ids, state)
    }

    fn step_many(&self, ids: &Tensor, state: &mut DecoderState) -> Result<Tensor> {
        Decoder::step_many(self, ids, state)
    }

    fn reorder(&self, state: &mut DecoderState, rows: &Tensor) -> Result<()> {
        state.reorder(rows)
    }

    fn fork(&self, state: &DecoderState) -> Result<DecoderState> {
        state.fork()
    }
}

/// Feeds the same prompt to all rows of a state.
pub(crate) fn prefill(decoder: &Decoder, mut state: DecoderState, prompt: &[i64]) -> Result<Prefill<DecoderState>> {
    let logits = decoder.prefill(&mut state, prompt)?;
    let prompts = vec![prompt.to_vec(); state.rows() as usize];
    Ok(Prefill { state, logits, prompts })
}

/// Several prefills as one batch, whatever the lengths of their prompts.
pub(crate) fn concat_prefills(
    decoder: &Decoder,
    mut prefills: Vec<Prefill<DecoderState>>,
) -> Result<Prefill<DecoderState>> {
    if prefills.len() == 1 {
        return Ok(prefills.remove(0));
    }
    let logits = Tensor::cat(&prefills.iter().map(|p| &p.logits).collect::<Vec<_>>(), 0)?;
    let (states, prompts): (Vec<_>, Vec<_>) = prefills.into_iter().map(|p| (p.state, p.prompts)).unzip();
    let state = DecoderState::concat_left_padded(states, decoder.device())?;
    Ok(Prefill { logits, prompts: prompts.into_iter().flatten().collect(), state })
}
