//! From attention weights to what counted.

use super::Tokens;
use mm_core::{DType, Result, Tensor, nn::BlockWeights};

/// The mean over blocks, heads and queries of where cross-attention looked, one number a position of the context.
pub(super) fn mean(all: &[BlockWeights]) -> Result<Vec<f32>> {
    let mut sum: Option<Tensor> = None;
    for weights in all.iter().filter_map(|w| w.cross.as_ref()) {
        let mine = weights.to_dtype(DType::F32)?.mean_dims(&[0, 1, 2], false)?; // [keys]
        sum = Some(match sum {
            Some(sum) => sum.add(&mine)?,
            None => mine,
        });
    }
    sum.map_or(Ok(Vec::new()), |s| s.to_vec())
}

/// Attention rollout (Abnar 2020): what each position of the last block is made of, `[queries, positions]`. Each block's weights, the mean
/// over its heads, are half of what passes; the residual is the other half.
pub(super) fn rollout(all: &[BlockWeights]) -> Result<Option<Tensor>> {
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
pub(super) fn words(tokens: &Tokens, ids: &[i64], heat: &[f32]) -> Vec<(String, f32)> {
    let named = |id: &i64| tokens.decode(&[*id]).map(|t| t.trim().to_owned()).unwrap_or_default();
    ids.iter().zip(heat).map(|(id, h)| (named(id), *h)).filter(|(word, _)| !word.is_empty()).collect()
}
