//! Energy distance, CORAL and central moment discrepancy.

use crate::{
    Result,
    checks::{center, check_same_dim},
    distance::squared_distances,
};
use mm_core::Tensor;

/// Energy distance `2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖` of `x` `[n, dim]` and `y` `[m, dim]` over all pairs (biased).
///
/// From *Energy Statistics: A Class of Statistics Based on Distances* (Székely and Rizzo, 2013,
/// <https://doi.org/10.1016/j.jspi.2013.03.018>).
///
/// # Errors
/// When the dimensions differ, or a set has fewer than two rows or is not finite.
pub fn energy_distance(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_same_dim("energy_distance", x, y)?;
    // The square root has no gradient at zero, the distance of a row to itself.
    let mean = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        let squared = squared_distances(a, b)?;
        let zero = squared.gt_scalar(1e-12)?.logical_not()?;
        Ok(squared.masked_fill(&zero, 1e-24)?.sqrt()?.mean()?)
    };
    Ok(mean(x, y)?.mul_scalar(2.0)?.sub(&mean(x, x)?)?.sub(&mean(y, y)?)?)
}

/// CORAL: `‖cov(x) − cov(y)‖² / (4 dim²)` of `x` `[n, dim]` and `y` `[m, dim]`.
///
/// From *Deep CORAL: Correlation Alignment for Deep Domain Adaptation* (Sun and Saenko, 2016,
/// <https://arxiv.org/abs/1607.01719>).
///
/// # Errors
/// When the dimensions differ, or a set has fewer than two rows or is not finite.
pub fn coral(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_same_dim("coral", x, y)?;
    let covariance = |t: &Tensor| -> Result<Tensor> {
        let centered = center(t)?;
        Ok(centered.transpose(0, 1)?.matmul(&centered)?.mul_scalar(1.0 / (t.size(0)? - 1) as f64)?)
    };
    let dim = x.size(1)? as f64;
    Ok(covariance(x)?.sub(&covariance(y)?)?.pow(2.0)?.sum()?.mul_scalar(0.25 / (dim * dim))?)
}

/// Central moment discrepancy of `x` `[n, dim]` and `y` `[m, dim]`: distances of the means and of the central moments
/// up to `order`, for features bounded to an interval of length `interval` (2 for tanh).
///
/// From *Central Moment Discrepancy (CMD) for Domain-Invariant Representation Learning* (Zellinger et al., 2017,
/// <https://arxiv.org/abs/1702.08811>).
///
/// # Errors
/// When the dimensions differ, or a set has fewer than two rows or is not finite.
pub fn central_moment_discrepancy(x: &Tensor, y: &Tensor, order: i32, interval: f64) -> Result<Tensor> {
    check_same_dim("central_moment_discrepancy", x, y)?;
    let norm = |t: &Tensor| -> Result<Tensor> { Ok(t.pow(2.0)?.sum()?.add_scalar(1e-24)?.sqrt()?) };
    let (mean_x, mean_y) = (x.mean_dim(&[0], true)?, y.mean_dim(&[0], true)?);
    let (cx, cy) = (x.sub(&mean_x)?, y.sub(&mean_y)?);
    let mut sum = norm(&mean_x.sub(&mean_y)?)?.mul_scalar(1.0 / interval)?;
    for k in 2..=order {
        let moment = |c: &Tensor| c.pow(f64::from(k))?.mean_dim(&[0], false);
        sum = sum.add(&norm(&moment(&cx)?.sub(&moment(&cy)?)?)?.mul_scalar(interval.powi(-k))?)?;
    }
    Ok(sum)
}
