//! Losses on single pairs: the sigmoid loss of SigLIP and the triplet loss with hardest negatives.

use super::{
    similarity::{Similarity, without_diagonal},
    temperature::Temperature,
};
use crate::Result;
use mm_core::{DType, Tensor};

/// Sigmoid loss of SigLIP: every pair of the batch is classified as matching or not. The negated log-likelihoods of a
/// row's pairs are summed and averaged over rows. `bias` `[1]` is added to the scaled similarities; `false_negatives`
/// as in [`InfoNceOptions`](super::InfoNceOptions).
///
/// From *Sigmoid Loss for Language Image Pre-Training* (Zhai et al., 2023, <https://arxiv.org/abs/2303.15343>).
///
/// # Errors
/// When a fixed temperature is not above zero, or the shapes do not fit together.
pub fn sigmoid_loss<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    bias: &Tensor,
    false_negatives: Option<&Tensor>,
) -> Result<Tensor> {
    let logits = temperature.into().scale(similarity.values())?.add(bias)?;
    let rows = logits.size(0)?;
    let sign = Tensor::eye(rows, DType::F32, logits.device())?.mul_scalar(2.0)?.add_scalar(-1.0)?;
    let mut log_likelihood = logits.mul(&sign)?.log_sigmoid()?;
    if let Some(false_negatives) = false_negatives {
        log_likelihood = log_likelihood.masked_fill(&without_diagonal(false_negatives)?, 0.0)?;
    }
    Ok(log_likelihood.sum()?.mul_scalar(-1.0 / rows as f64)?)
}

/// Triplet margin loss with the hardest negative of each row: the sum of both directions. `margin` is in units of the
/// similarities; `false_negatives` as in [`InfoNceOptions`](super::InfoNceOptions).
///
/// From *VSE++: Improving Visual-Semantic Embeddings with Hard Negatives* (Faghri et al., 2018,
/// <https://arxiv.org/abs/1707.05612>).
///
/// # Errors
/// When the shapes do not fit together.
pub fn triplet_loss(similarity: &Similarity, margin: f64, false_negatives: Option<&Tensor>) -> Result<Tensor> {
    let scores = similarity.values();
    let rows = scores.size(0)?;
    let mut excluded = Tensor::eye(rows, DType::Bool, scores.device())?;
    if let Some(false_negatives) = false_negatives {
        excluded = excluded.logical_or(false_negatives)?;
    }
    let negatives = scores.masked_fill(&excluded, -2.0)?; // below every cosine
    let positive = scores.diagonal()?;
    let hinge =
        |hardest: Tensor| -> Result<Tensor> { Ok(hardest.sub(&positive)?.add_scalar(margin)?.clamp_min(0.0)?.mean()?) };
    Ok(hinge(negatives.amax(1, false)?)?.add(&hinge(negatives.amax(0, false)?)?)?)
}
