//! Losses on the embeddings themselves rather than on a similarity matrix: CyCLIP's consistency terms, Barlow Twins,
//! VICReg.

use super::similarity::Similarity;
use crate::{Result, checks::center};
use mm_core::Tensor;

/// Consistency terms that CyCLIP adds to `InfoNCE`, for `a` and `b` `[rows, dim]`: the cross-modal similarity matrix
/// should be symmetric, and the similarity matrices within the two modalities equal. The sum of both mean squared
/// differences.
///
/// From *CyCLIP: Cyclic Contrastive Language-Image Pretraining* (Goel et al., 2022,
/// <https://arxiv.org/abs/2205.14459>).
///
/// # Errors
/// When the shapes differ.
pub fn cyclip_consistency(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let across = Similarity::cosine(a, b)?;
    let cross_modal = across.values().sub(&across.values().transpose(0, 1)?)?.pow(2.0)?.mean()?;
    let (within_a, within_b) = (Similarity::cosine(a, a)?, Similarity::cosine(b, b)?);
    let in_modal = within_a.values().sub(within_b.values())?.pow(2.0)?.mean()?;
    Ok(cross_modal.add(&in_modal)?)
}

/// Barlow Twins loss of `a` and `b` `[rows, dim]`: squared difference of the cross-correlation matrix `[dim, dim]` from
/// the identity. `off_diagonal_weight` is the paper's λ (0.005).
///
/// From *Barlow Twins: Self-Supervised Learning via Redundancy Reduction* (Zbontar et al., 2021,
/// <https://arxiv.org/abs/2103.03230>).
///
/// # Errors
/// When the shapes differ.
pub fn barlow_twins(a: &Tensor, b: &Tensor, off_diagonal_weight: f64) -> Result<Tensor> {
    let standardize =
        |x: &Tensor| -> Result<Tensor> { Ok(center(x)?.div(&x.std_dim(&[0], false, true)?.add_scalar(1e-5)?)?) };
    let rows = a.size(0)? as f64;
    let c = standardize(a)?.transpose(0, 1)?.matmul(&standardize(b)?)?.mul_scalar(1.0 / rows)?; // [dim, dim]
    let invariance = c.diagonal()?.add_scalar(-1.0)?.pow(2.0)?.sum()?;
    let redundancy = c.pow(2.0)?.sum()?.sub(&c.diagonal()?.pow(2.0)?.sum()?)?;
    Ok(invariance.add(&redundancy.mul_scalar(off_diagonal_weight)?)?)
}

/// VICReg loss of `a` and `b` `[rows, dim]` with the paper's weights: invariance (25), variance (25, a hinge at a
/// standard deviation of one) and covariance (1).
///
/// From *VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning* (Bardes, Ponce and LeCun,
/// 2022, <https://arxiv.org/abs/2105.04906>).
///
/// # Errors
/// When the shapes differ.
pub fn vicreg(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let invariance = a.sub(b)?.pow(2.0)?.mean()?;
    let (rows, dim) = ((a.size(0)? - 1).max(1) as f64, a.size(1)? as f64);
    let mut loss = invariance.mul_scalar(25.0)?;
    for x in [a, b] {
        let centered = center(x)?;
        let std = centered.pow(2.0)?.sum_dim(&[0], false)?.mul_scalar(1.0 / rows)?.add_scalar(1e-4)?.sqrt()?;
        let variance = std.neg()?.add_scalar(1.0)?.relu()?.mean()?;
        let c = centered.transpose(0, 1)?.matmul(&centered)?.mul_scalar(1.0 / rows)?;
        let covariance = c.pow(2.0)?.sum()?.sub(&c.diagonal()?.pow(2.0)?.sum()?)?.mul_scalar(1.0 / dim)?;
        loss = loss.add(&variance.mul_scalar(12.5)?)?.add(&covariance)?;
    }
    Ok(loss)
}
