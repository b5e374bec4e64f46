//! Losses on single pairs: the sigmoid loss of SigLIP and the triplet loss with hardest negatives.

use super::{
    similarity::{Similarity, false_negatives},
    temperature::Temperature,
};
use crate::Result;
use mm_core::{DType, Tensor};

/// Sigmoid loss: every pair of the batch is classified as matching or not; the mean over rows of the negated
/// log-likelihoods of all their pairs.
///
/// From *Sigmoid Loss for Language Image Pre-Training* (Zhai et al., 2023, <https://arxiv.org/abs/2303.15343>). `bias`
/// has shape `[1]`; `same` as in [`InfoNceOptions`](super::InfoNceOptions).
pub fn sigmoid_loss<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    bias: &Tensor,
    same: Option<&Tensor>,
) -> Result<Tensor> {
    let logits = temperature.into().scale(similarity.values())?.add(bias)?;
    let rows = logits.size(0)?;
    let sign = Tensor::eye(rows, DType::F32, logits.device())?.mul_scalar(2.0)?.add_scalar(-1.0)?;
    let mut log_likelihood = logits.mul(&sign)?.log_sigmoid()?;
    if let Some(same) = same {
        log_likelihood = log_likelihood.masked_fill(&false_negatives(same)?, 0.0)?;
    }
    Ok(log_likelihood.sum()?.mul_scalar(-1.0 / rows as f64)?)
}

/// Triplet margin loss with the hardest negative of each row, in both directions (summed).
///
/// From *VSE++: Improving Visual-Semantic Embeddings with Hard Negatives* (Faghri et al., 2018,
/// <https://arxiv.org/abs/1707.05612>).
pub fn triplet_loss(similarity: &Similarity, margin: f64, same: Option<&Tensor>) -> Result<Tensor> {
    let scores = similarity.values();
    let rows = scores.size(0)?;
    let mut excluded = Tensor::eye(rows, DType::Bool, scores.device())?;
    if let Some(same) = same {
        excluded = excluded.logical_or(same)?;
    }
    let negatives = scores.masked_fill(&excluded, -2.0)?; // below every cosine
    let positive = scores.diagonal()?;
    let hinge =
        |hardest: Tensor| -> Result<Tensor> { Ok(hardest.sub(&positive)?.add_scalar(margin)?.clamp_min(0.0)?.mean()?) };
    Ok(hinge(negatives.amax(1, false)?)?.add(&hinge(negatives.amax(0, false)?)?)?)
}
