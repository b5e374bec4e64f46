//! Dynamic time warping: sequences that run at different speeds.

mod lanes;
mod soft;

pub use soft::{soft_dtw, soft_dtw_divergence};

use crate::{Result, checks::invalid};
use mm_core::Tensor;

/// The result of [`dtw`].
#[derive(Debug, Clone, PartialEq)]
pub struct WarpingPath {
    /// Sum of the costs on the path.
    pub cost: f64,
    /// Pairs of indices (into a, into b), from (0, 0) to the ends of both sequences.
    pub indices: Vec<(usize, usize)>,
}

/// The cheapest monotonic path through a cost matrix `[length of a, length of b]`, such as
/// [`squared_distances`](crate::distance::squared_distances), by steps in either or both directions.
///
/// From *Dynamic Programming Algorithm Optimization for Spoken Word Recognition* (Sakoe and Chiba, 1978,
/// <https://doi.org/10.1109/TASSP.1978.1163055>).
///
/// ```
/// use mm_align::{distance::squared_distances, dtw::dtw};
/// use mm_core::Tensor;
/// # fn main() -> mm_align::Result<()> {
/// let a = Tensor::from_vec(&[0f64, 1.0, 2.0], &[3, 1])?;
/// let b = Tensor::from_vec(&[0f64, 0.0, 1.0, 2.0], &[4, 1])?;
/// let path = dtw(&squared_distances(&a, &b)?)?;
/// assert_eq!(path.cost, 0.0);
/// assert_eq!(path.indices, [(0, 0), (0, 1), (1, 2), (2, 3)]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the matrix is empty, a cost is NaN or −∞, or every path has a cost of +∞ (a cell with a cost of +∞ is
/// excluded).
pub fn dtw(cost: &Tensor) -> Result<WarpingPath> {
    let [_, n, m] = sizes(&cost.unsqueeze(0)?)?;
    let cost = cost.to_vec::<f64>()?;
    if let Some(bad) = cost.iter().position(|c| c.is_nan() || *c == f64::NEG_INFINITY) {
        let found = format!("a cost of {} at ({}, {})", cost[bad], bad / m, bad % m);
        return Err(invalid("dtw", found, "finite costs, or +∞ for a cell that no path may visit"));
    }
    let mut total = vec![f64::INFINITY; n * m];
    for i in 0..n {
        for j in 0..m {
            let up = if i > 0 { total[(i - 1) * m + j] } else { f64::INFINITY };
            let left = if j > 0 { total[i * m + j - 1] } else { f64::INFINITY };
            let diagonal = if i > 0 && j > 0 { total[(i - 1) * m + j - 1] } else { f64::INFINITY };
            let least = if i == 0 && j == 0 { 0.0 } else { up.min(left).min(diagonal) };
            total[i * m + j] = cost[i * m + j] + least;
        }
    }
    if total[n * m - 1] == f64::INFINITY {
        return Err(invalid("dtw", "costs of +∞ on every path", "at least one path of finite cost"));
    }
    let mut indices = vec![(n - 1, m - 1)];
    let (mut i, mut j) = (n - 1, m - 1);
    while (i, j) != (0, 0) {
        let at = |i: Option<usize>, j: Option<usize>| match (i, j) {
            (Some(i), Some(j)) => total[i * m + j],
            _ => f64::INFINITY,
        };
        let (up, left) = (at(i.checked_sub(1), Some(j)), at(Some(i), j.checked_sub(1)));
        let diagonal = at(i.checked_sub(1), j.checked_sub(1));
        (i, j) = if diagonal <= up && diagonal <= left {
            (i - 1, j - 1)
        } else if up <= left {
            (i - 1, j)
        } else {
            (i, j - 1)
        };
        indices.push((i, j));
    }
    indices.reverse();
    Ok(WarpingPath { cost: total[n * m - 1], indices })
}

/// `[pairs, n, m]` of a batch of cost matrices.
fn sizes(cost: &Tensor) -> Result<[usize; 3]> {
    let shape = cost.shape();
    if shape.len() != 3 || shape.contains(&0) {
        return Err(invalid("dtw", format!("costs {shape:?}"), "[pairs, length of a, length of b], none of them 0"));
    }
    Ok([shape[0], shape[1], shape[2]].map(|n| n as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, seed::manual_seed};
    use proptest::prelude::*;

    fn rand(shape: &[i64]) -> Tensor {
        Tensor::rand(shape, DType::F64, Device::Cpu).unwrap()
    }

    /// Costs of all paths to (i, j), by enumeration.
    fn all_paths(cost: &[f64], m: usize, i: usize, j: usize) -> Vec<f64> {
        let own = cost[i * m + j];
        if (i, j) == (0, 0) {
            return vec![own];
        }
        let mut all = Vec::new();
        if i > 0 {
            all.extend(all_paths(cost, m, i - 1, j));
        }
        if j > 0 {
            all.extend(all_paths(cost, m, i, j - 1));
        }
        if i > 0 && j > 0 {
            all.extend(all_paths(cost, m, i - 1, j - 1));
        }
        all.into_iter().map(|w| w + own).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn hard_and_soft_minimum_agree_with_enumerated_paths(seed in 0u64..1000, n in 1usize..5, m in 1usize..5) {
            manual_seed(seed);
            let cost = rand(&[1, n as i64, m as i64]);
            let all = all_paths(&cost.to_vec::<f64>().unwrap(), m, n - 1, m - 1);
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            let path = dtw(&cost.squeeze(0).unwrap()).unwrap();
            prop_assert!((path.cost - least).abs() < 1e-12);
            let along: f64 = path.indices.iter().map(|(i, j)| cost.to_vec::<f64>().unwrap()[i * m + j]).sum();
            prop_assert!((along - least).abs() < 1e-12);
            let soft = -0.3 * all.iter().map(|w| (-w / 0.3).exp()).sum::<f64>().ln();
            prop_assert!((soft_dtw(&cost, 0.3).unwrap().to_f64().unwrap() - soft).abs() < 1e-9);
            prop_assert!(soft <= least + 1e-12);
        }
    }

    #[test]
    fn infinite_costs_exclude_cells_and_what_has_no_path_is_an_error() {
        let (free, inf) = (1.0, f64::INFINITY);
        let path = |values: [f64; 6]| dtw(&Tensor::from_vec(&values, &[2, 3]).unwrap());
        let around = path([free, inf, free, free, free, free]).unwrap();
        assert_eq!((around.cost, around.indices), (3.0, vec![(0, 0), (1, 1), (1, 2)]));
        for corner in [0, 5] {
            let mut values = [1.0; 6];
            values[corner] = inf;
            assert!(path(values).unwrap_err().to_string().contains("every path"));
            for bad in [f64::NAN, f64::NEG_INFINITY] {
                values[corner] = bad;
                let error = path(values).unwrap_err().to_string();
                assert!(error.contains(&format!("({}, {})", corner / 3, corner % 3)), "{error}");
            }
        }
        assert!(path([1e308; 6]).is_err(), "the sum overflows");
        for bad in [f64::NAN, inf, f64::NEG_INFINITY] {
            let cost = Tensor::from_vec(&[1.0, 1.0, bad, 1.0], &[1, 2, 2]).unwrap();
            assert!(soft_dtw(&cost, 0.1).unwrap_err().to_string().contains("pair 0"));
        }
    }

    #[test]
    fn soft_dtw_gradients_match_finite_differences_and_the_divergence_of_equal_sequences_is_zero() {
        manual_seed(2);
        let cost = rand(&[2, 4, 6]).set_requires_grad(true).unwrap();
        let weights = Tensor::from_slice(&[1.0f64, 2.0]).unwrap();
        soft_dtw(&cost, 0.2).unwrap().mul(&weights).unwrap().sum().unwrap().backward().unwrap();
        let grad = cost.grad().unwrap().to_vec::<f64>().unwrap();
        let base = cost.to_vec::<f64>().unwrap();
        for index in [0, 5, 13, 30, 47] {
            let perturbed = |by: f64| {
                let mut values = base.clone();
                values[index] += by;
                let values =
                    soft_dtw(&Tensor::from_vec(&values, &[2, 4, 6]).unwrap(), 0.2).unwrap().to_vec::<f64>().unwrap();
                values[0] + 2.0 * values[1]
            };
            assert!(((perturbed(1e-5) - perturbed(-1e-5)) / 2e-5 - grad[index]).abs() < 1e-6);
        }
        // A batch gives the same as each pair alone, whatever the number of pairs.
        let many = rand(&[11, 9, 7]).mul_scalar(40.0).unwrap();
        let all = soft_dtw(&many, 0.2).unwrap().to_vec::<f64>().unwrap();
        for (pair, value) in all.iter().enumerate() {
            let alone = soft_dtw(&many.narrow(0, pair as i64, 1).unwrap(), 0.2).unwrap().to_f64().unwrap();
            assert_eq!(alone, *value);
        }
        let (a, b) = (rand(&[3, 5, 2]), rand(&[3, 7, 2]));
        let equal = soft_dtw_divergence(&a, &a, 0.1).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        let different = soft_dtw_divergence(&a, &b, 0.1).unwrap().min().unwrap().to_f64().unwrap();
        assert!(equal < 1e-9 && different > 0.0);
        assert!(soft_dtw(&rand(&[0, 2, 2]), 0.1).is_err() && soft_dtw(&cost, 0.0).is_err());
    }
}
