//! From attention maps to attributions.

use super::{
    tokenizer::Tokenizer,
    types::{Attribution, Prompt},
};
use crate::generate::Prefill;
use mm_core::{
    DType, Result, Tensor,
    nn::{
        AttentionMaps,
        decoder::{Decoder, DecoderArgs, DecoderState},
    },
};

/// Cross-attention averaged over blocks, heads and queries: one value for each position of the context.
pub(super) fn mean_cross_attention(maps: &[AttentionMaps]) -> Result<Vec<f32>> {
    mean_over_blocks(maps.iter().filter_map(|map| map.cross_attention.as_ref()))
}

/// Attention of a decoder, while it generates an answer, to an image whose features precede or are part of its prompt.
pub(super) struct PrefixAttention<'a> {
    /// The decoder's state after the prompt.
    pub(super) prefill: Prefill<DecoderState>,
    /// Index of the first image feature in the decoder's input, and the number of features.
    pub(super) image: (usize, usize),
    /// Number of frames, rows and columns of patches. There are more features than patches where a class token precedes
    /// each frame.
    pub(super) grid: [usize; 3],
    pub(super) prompt: &'a Prompt,
    /// The token of the prompt that stands for image features; none where these precede the prompt.
    pub(super) image_token: Option<i64>,
}

impl PrefixAttention<'_> {
    /// The attribution to patches, averaged over frames, and to the prompt's other tokens.
    pub(super) fn attribution(self, decoder: &Decoder, tokenizer: &Tokenizer, answer: &[i64]) -> Result<Attribution> {
        let [frames, rows, columns] = self.grid;
        let prompt_ids = &self.prompt.decoder_input_ids;
        let (mut state, mut maps) = (self.prefill.state, Vec::new());
        let last = [prompt_ids.last().copied().unwrap_or_default()];
        let answer = if answer.is_empty() { &last } else { answer };
        let ids = Tensor::from_vec(answer, &[1, answer.len() as i64])?.to_device(decoder.device())?;
        let args = DecoderArgs { attention_maps: Some(&mut maps), ..DecoderArgs::default() };
        decoder.forward(&decoder.embed(&ids, state.position())?, &mut state, args)?;
        let attention = mean_over_blocks(maps.iter().filter_map(|map| map.self_attention.as_ref()))?;
        let (start, count) = self.image;
        let mut patches = vec![0.0; rows * columns];
        let per_frame = count / frames.max(1);
        let image = attention.get(start..start + count).unwrap_or_default();
        for frame in image.chunks(per_frame.max(1)).take(frames) {
            let frame = frame.get(per_frame.saturating_sub(rows * columns)..).unwrap_or_default();
            patches.iter_mut().zip(frame).for_each(|(sum, value)| *sum += value / frames as f32);
        }
        let index = |n: usize| if self.image_token.is_some() { n } else { start + count + n };
        let (text_ids, text_attention): (Vec<i64>, Vec<f32>) = (0..prompt_ids.len())
            .filter(|n| Some(prompt_ids[*n]) != self.image_token)
            .map(|n| (prompt_ids[n], attention.get(index(n)).copied().unwrap_or(0.0)))
            .unzip();
        let words = named_tokens(tokenizer, &text_ids, &text_attention);
        Ok(Attribution { patches, grid: [rows, columns], words, steps: Vec::new() })
    }
}

/// Attention maps `[batch, heads, queries, keys]` averaged over blocks, rows, heads and queries: one value for each
/// key.
fn mean_over_blocks<'a>(maps: impl Iterator<Item = &'a Tensor>) -> Result<Vec<f32>> {
    let means = maps.map(|map| map.to_dtype(DType::F32)?.mean_dim(&[0, 1, 2], false)).collect::<Result<Vec<_>>>()?;
    if means.is_empty() {
        return Ok(Vec::new());
    }
    Tensor::stack(&means.iter().collect::<Vec<_>>(), 0)?.mean_dim(&[0], false)?.to_vec()
}

/// Attention rollout `[queries, keys]`: how much each input position contributes to each position after the last block.
///
/// *Quantifying Attention Flow in Transformers* (Abnar and Zuidema, 2020), <https://arxiv.org/abs/2005.00928>. Each
/// block contributes its attention, averaged over heads, and the residual connection in equal parts.
pub(super) fn attention_rollout(maps: &[AttentionMaps]) -> Result<Option<Tensor>> {
    let mut rollout: Option<Tensor> = None;
    for map in maps.iter().filter_map(|map| map.self_attention.as_ref()) {
        let attention = map.to_dtype(DType::F32)?.mean_dim(&[0, 1], false)?; // [queries, keys]
        let identity = Tensor::eye(attention.size(0)?, DType::F32, attention.device())?;
        let layer = attention.add(&identity)?.mul_scalar(0.5)?;
        rollout = Some(match rollout {
            Some(before) => layer.matmul(&before)?,
            None => layer,
        });
    }
    Ok(rollout)
}

/// Tokens as text, each with its value; special tokens are left out.
pub(super) fn named_tokens(tokenizer: &Tokenizer, ids: &[i64], values: &[f32]) -> Vec<(String, f32)> {
    let text = |id: &i64| tokenizer.decode(&[*id]).map(|t| t.trim().to_owned()).unwrap_or_default();
    ids.iter().zip(values).map(|(id, value)| (text(id), *value)).filter(|(token, _)| !token.is_empty()).collect()
}
