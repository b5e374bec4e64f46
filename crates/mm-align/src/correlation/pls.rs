//! Partial least squares.

use super::{
    Projections,
    linalg::{Centered, resolve_dim},
};
use crate::{
    Result,
    checks::check_paired,
    method::{Alignment, AlignmentMethod, FitOptions, PairedFeatures},
};
use mm_core::Tensor;

/// Partial least squares by one singular value decomposition of the cross-covariance (PLS-SVD): unit-length directions
/// of largest covariance between `a` `[rows, dim a]` and `b` `[rows, dim b]`; `values` are the covariances.
///
/// From *Partial Least Squares* (Wold, 1985, Encyclopedia of Statistical Sciences 6).
///
/// # Errors
/// When the sets are not paired or not finite, or `dim` exceeds the rank.
pub fn pls(a: &Tensor, b: &Tensor, dim: Option<i64>) -> Result<Projections> {
    check_paired("pls", &[a, b])?;
    let (a, b) = (Centered::new(a)?, Centered::new(b)?);
    let rows = (a.x.size(0)? - 1) as f64;
    let (u, s, vt) = a.x.transpose(0, 1)?.matmul(&b.x)?.mul_scalar(1.0 / rows)?.svd()?;
    let dim = resolve_dim(dim, s.size(0)?)?;
    let left = u.narrow(1, 0, dim)?.contiguous()?;
    let right = vt.narrow(0, 0, dim)?.transpose(0, 1)?.contiguous()?;
    Ok(Projections { sets: vec![(a.mean, left), (b.mean, right)], values: s.narrow(0, 0, dim)? })
}

/// The method `pls`: [`pls`], which has no regularization.
pub struct Pls;

impl AlignmentMethod for Pls {
    fn name(&self) -> &'static str {
        "pls"
    }

    fn description(&self) -> &'static str {
        "partial least squares: directions of largest covariance (Wold 1985)"
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        pls(&pairs.a, &pairs.b, options.dim)?.into_alignment()
    }
}
