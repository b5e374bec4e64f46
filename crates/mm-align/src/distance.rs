//! Pairwise distances.

use crate::{
    Result,
    checks::{invalid, to_f64},
};
use mm_core::Tensor;

/// Squared Euclidean distances of all pairs of rows, differentiable.
///
/// `[n, dim]` and `[m, dim]` give `[n, m]`; with leading batch dimensions, `[batch, n, dim]` and `[batch, m, dim]` give
/// `[batch, n, m]`.
///
/// # Errors
/// When the feature dimensions differ.
///
/// ```
/// use mm_align::distance::squared_distances;
/// use mm_core::Tensor;
/// # fn main() -> mm_align::Result<()> {
/// let x = Tensor::from_vec(&[0f32, 0.0, 3.0, 4.0], &[2, 2])?;
/// assert_eq!(squared_distances(&x, &x)?.to_vec::<f32>()?, [0.0, 25.0, 25.0, 0.0]);
/// # Ok(())
/// # }
/// ```
pub fn squared_distances(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let squares = |t: &Tensor| t.mul(t)?.sum_dim(&[-1], true);
    let cross = x.matmul(&y.transpose(-2, -1)?)?.mul_scalar(-2.0)?;
    Ok(cross.add(&squares(x)?)?.add(&squares(y)?.transpose(-2, -1)?)?.clamp_min(0.0)?)
}

/// Maximum number of rows from which [`median_distance`] computes the median.
const MEDIAN_ROWS: i64 = 1000;

/// Median distance between distinct rows of `x` `[rows, dim]` (of about 1,000 evenly spaced ones), the usual bandwidth
/// of a Gaussian kernel ("median heuristic").
///
/// # Errors
/// With fewer than two rows.
pub fn median_distance(x: &Tensor) -> Result<f64> {
    let x = to_f64(x)?;
    let rows = x.size(0)?;
    let step = (rows / MEDIAN_ROWS).max(1);
    let sampled: Vec<i64> = (0..rows).step_by(step as usize).collect();
    let sampled = x.index_select(0, &Tensor::from_slice(&sampled)?.to_device(x.device())?)?;
    let distances = squared_distances(&sampled, &sampled)?.to_vec::<f64>()?;
    let count = sampled.size(0)? as usize;
    let mut below: Vec<f64> =
        (0..count).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| distances[i * count + j]).collect();
    if below.is_empty() {
        return Err(invalid("median_distance", "one row", "at least two"));
    }
    let middle = below.len() / 2;
    let (_, median, _) = below.select_nth_unstable_by(middle, f64::total_cmp);
    Ok(median.sqrt().max(1e-12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_distance_of_three_points_matches_a_hand_calculation() {
        let x = Tensor::from_vec(&[0f64, 3.0, 7.0], &[3, 1]).unwrap();
        assert!((median_distance(&x).unwrap() - 4.0).abs() < 1e-9);
    }
}
