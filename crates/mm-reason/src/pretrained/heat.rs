//! From attention weights to what counted.

use super::{Attribution, Prompt, Tokenizer};
use crate::{
    decoder::{Decoder, Reading, State},
    generate::Prefill,
};
use mm_core::{DType, Result, Tensor, nn::AttentionMaps};

/// The mean over blocks, heads and queries of where cross-attention looked, one number a position of the context.
pub(super) fn mean(all: &[AttentionMaps]) -> Result<Vec<f32>> {
    averaged(all.iter().filter_map(|w| w.cross.as_ref()))
}

/// Where a decoder whose words look back at the picture's places before them looked while it said these tokens.
pub(super) struct Back<'a> {
    /// It, with the prompt read.
    pub(super) start: Prefill<State>,
    /// Where the picture's places begin among what was read, and how many there are.
    pub(super) places: (usize, usize),
    /// How many lie (down, across) and, of a video, how often; fewer than there are places where a class token is before each picture's.
    pub(super) grid: [usize; 3],
    pub(super) prompt: &'a Prompt,
    /// What of the prompt is no word of the question.
    pub(super) placeholder: Option<i64>,
}

impl Back<'_> {
    /// The heat of places, the mean over a video's frames, and of the prompt's words.
    pub(super) fn heat(self, decoder: &Decoder, tokens: &Tokenizer, said: &[i64]) -> Result<Attribution> {
        let [times, down, across] = self.grid;
        let (mut state, mut looked) = (self.start.state, Vec::new());
        let nothing = [self.prompt.ids.last().copied().unwrap_or_default()];
        let said = if said.is_empty() { &nothing } else { said };
        let ids = Tensor::from_vec(said, &[1, said.len() as i64])?.to_device(decoder.device())?;
        let reading = Reading { weights: Some(&mut looked), ..Reading::default() };
        decoder.read(&decoder.embed(&ids, state.position())?, &mut state, reading)?;
        let all = averaged(looked.iter().filter_map(|w| w.own.as_ref()))?;
        let (first, count) = self.places;
        let mut patches = vec![0.0; down * across];
        let each = count / times.max(1);
        for frame in all.get(first..first + count).unwrap_or_default().chunks(each.max(1)).take(times) {
            let own = frame.get(each.saturating_sub(down * across)..).unwrap_or_default();
            patches.iter_mut().zip(own).for_each(|(sum, one)| *sum += one / times as f32);
        }
        // The prompt's tokens lie beside the places, or hold them.
        let ids = &self.prompt.ids;
        let at = |n: usize| if self.placeholder.is_some() { n } else { first + count + n };
        let (read, heat): (Vec<i64>, Vec<f32>) = (0..ids.len())
            .filter(|n| Some(ids[*n]) != self.placeholder)
            .map(|n| (ids[n], all.get(at(n)).copied().unwrap_or(0.0)))
            .unzip();
        Ok(Attribution { patches, grid: [down, across], words: words(tokens, &read, &heat), steps: Vec::new() })
    }
}

/// The mean over blocks, and over each one's rows, heads and queries, one number a key.
fn averaged<'a>(all: impl Iterator<Item = &'a Tensor>) -> Result<Vec<f32>> {
    let each = all.map(|w| w.to_dtype(DType::F32)?.mean_dims(&[0, 1, 2], false)).collect::<Result<Vec<_>>>()?;
    if each.is_empty() {
        return Ok(Vec::new());
    }
    Tensor::stack(&each.iter().collect::<Vec<_>>(), 0)?.mean_dims(&[0], false)?.to_vec()
}

/// Attention rollout (Abnar 2020): what each position of the last block is made of, `[queries, positions]`. Each block's weights, the mean
/// over its heads, are half of what passes; the residual is the other half.
pub(super) fn rollout(all: &[AttentionMaps]) -> Result<Option<Tensor>> {
    let mut flow: Option<Tensor> = None;
    for weights in all.iter().filter_map(|w| w.own.as_ref()) {
        let mine = weights.to_dtype(DType::F32)?.mean_dims(&[0, 1], false)?; // [queries, keys]
        let same = Tensor::eye(mine.size(0)?, DType::F32, mine.device())?;
        let mine = mine.add(&same)?.mul_scalar(0.5)?;
        flow = Some(match flow {
            Some(flow) => mine.matmul(&flow)?,
            None => mine,
        });
    }
    Ok(flow)
}

/// Words with their numbers; of special tokens nothing is said.
pub(super) fn words(tokens: &Tokenizer, ids: &[i64], heat: &[f32]) -> Vec<(String, f32)> {
    let named = |id: &i64| tokens.decode(&[*id]).map(|t| t.trim().to_owned()).unwrap_or_default();
    ids.iter().zip(heat).map(|(id, h)| (named(id), *h)).filter(|(word, _)| !word.is_empty()).collect()
}
