//! Sliced Wasserstein distance.

use crate::{Result, checks::check_same_dim};
use mm_core::{Tensor, seed::Rng};

/// Mean squared 2-Wasserstein distance of the projections of `x` `[n, dim]` and `y` `[m, dim]` onto `directions` random
/// lines. Sets of different sizes are compared at the quantiles of the smaller.
///
/// From *Wasserstein Barycenter and Its Application to Texture Mixing* (Rabin et al., 2012,
/// <https://doi.org/10.1007/978-3-642-24785-9_37>).
///
/// # Errors
/// When the dimensions differ, or a set has fewer than two rows or is not finite.
pub fn sliced_wasserstein(x: &Tensor, y: &Tensor, directions: i64, seed: u64) -> Result<Tensor> {
    check_same_dim("sliced_wasserstein", x, y)?;
    let dim = x.size(1)?;
    let mut rng = Rng::new(&[seed, 5]);
    // Box–Muller on a generator of its own leaves libtorch's generator as it was.
    let normal: Vec<f64> = (0..dim * directions.max(1))
        .map(|_| (-2.0 * (1.0 - rng.uniform()).ln()).sqrt() * (std::f64::consts::TAU * rng.uniform()).cos())
        .collect();
    let lines = Tensor::from_vec(&normal, &[directions.max(1), dim])?.normalize()?.to_dtype(x.dtype()?)?;
    let lines = lines.to_device(x.device())?.transpose(0, 1)?;
    let project = |t: &Tensor| -> Result<Tensor> { Ok(t.matmul(&lines)?.sort(0, false)?.0) };
    let (mut a, mut b) = (project(x)?, project(y)?);
    let (m, n) = (a.size(0)?, b.size(0)?);
    if m > n {
        a = quantiles(&a, n)?;
    } else if n > m {
        b = quantiles(&b, m)?;
    }
    Ok(a.sub(&b)?.pow(2.0)?.mean()?)
}

/// `count` evenly spaced quantiles of sorted columns.
fn quantiles(sorted: &Tensor, count: i64) -> Result<Tensor> {
    let rows = sorted.size(0)?;
    let index: Vec<i64> = (0..count)
        .map(|p| ((p as f64 + 0.5) / count as f64 * rows as f64).floor() as i64)
        .map(|p| p.min(rows - 1))
        .collect();
    Ok(sorted.index_select(0, &Tensor::from_slice(&index)?.to_device(sorted.device())?)?)
}
