//! Covariances and whitening.

use crate::{
    Result,
    checks::{center, invalid, to_f64},
};
use mm_core::{DType, Tensor};

/// A set with its column means removed.
pub(super) struct Centered {
    /// `[1, dim]`.
    pub mean: Tensor,
    /// `[rows, dim]`.
    pub x: Tensor,
}

impl Centered {
    pub fn new(x: &Tensor) -> Result<Self> {
        let x = to_f64(x)?;
        let mean = x.mean_dim(&[0], true)?;
        Ok(Self { x: center(&x)?, mean })
    }
}

/// Covariance `[dim, dim]` of centered rows; `ridge` times the mean variance is added to the diagonal, so that the
/// ridge means the same at every scale of the features.
pub(super) fn covariance(x: &Tensor, ridge: f64) -> Result<Tensor> {
    let rows = (x.size(0)? - 1) as f64;
    let product = x.transpose(0, 1)?.matmul(x)?.mul_scalar(1.0 / rows)?;
    let mean_variance = product.diagonal()?.mean()?.to_f64()?;
    let dim = x.size(1)?;
    Ok(product.add(&Tensor::eye(dim, DType::F64, x.device())?.mul_scalar(ridge * mean_variance)?)?)
}

/// The map `[dim, rank]` that whitens a covariance matrix. Directions without variance are dropped, so constant columns
/// and fewer rows than columns are fine.
pub(super) fn whitening(covariance: &Tensor) -> Result<Tensor> {
    let (values, vectors) = covariance.eigh()?;
    let all = values.to_vec::<f64>()?;
    let largest = all.last().copied().unwrap_or(0.0).max(0.0);
    let threshold = largest * 1e-10 * all.len() as f64;
    let rank = all.iter().filter(|v| **v > threshold && **v > 0.0).count() as i64;
    if rank == 0 {
        return Err(invalid("correlation", "a set in which every column is constant", "columns that vary"));
    }
    let size = all.len() as i64;
    let values = values.narrow(0, size - rank, rank)?;
    Ok(vectors.narrow(1, size - rank, rank)?.mul(&values.rsqrt()?)?)
}

/// The requested number of dimensions, or `rank` by default.
pub(super) fn resolve_dim(requested: Option<i64>, rank: i64) -> Result<i64> {
    match requested {
        None => Ok(rank),
        Some(dim) if (1..=rank).contains(&dim) => Ok(dim),
        Some(dim) => Err(invalid("dim", dim.to_string(), format!("1 to {rank}, the rank of these features"))),
    }
}
