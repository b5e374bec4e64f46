//! Soft-DTW with its gradient, several pairs at a time.

// Code that runs in SIMD lanes must be inlined into the functions compiled for wide registers.
#![allow(clippy::inline_always)]

use super::{
    lanes::{LANES, Lanes, each, exp, ln},
    sizes,
};
use crate::{Result, checks::invalid, distance::squared_distances};
use mm_core::{DType, Element, Tensor};
use rayon::prelude::*;

/// Soft minimum over all warping paths of each cost matrix in `[pairs, length of a, length of b]`: `[pairs]`,
/// differentiable. `gamma` is the smoothness; as it approaches 0 the result approaches [`dtw`](super::dtw). Pairs are
/// computed in parallel.
///
/// From *Soft-DTW: a Differentiable Loss Function for Time-Series* (Cuturi and Blondel, 2017,
/// <https://arxiv.org/abs/1703.01541>).
///
/// # Errors
/// When a size is 0, `gamma` is not positive, or a cost is infinite or NaN.
pub fn soft_dtw(cost: &Tensor, gamma: f64) -> Result<Tensor> {
    if !(gamma > 0.0 && gamma.is_finite()) {
        return Err(invalid("soft_dtw", format!("gamma {gamma}"), "a positive number"));
    }
    let sizes = sizes(cost)?;
    let (values, grads) = match cost.dtype()? {
        DType::F64 => forward_backward::<f64>(cost, sizes, gamma)?,
        _ => forward_backward::<f32>(cost, sizes, gamma)?,
    };
    let like = |x: &Tensor| -> Result<Tensor> { Ok(x.to_dtype(cost.dtype()?)?.to_device(cost.device())?) };
    let (values, grads) = (like(&values)?, like(&grads)?);
    // Attach the gradient, known in closed form, to the value: Σ grad · cost minus its own value adds only a gradient.
    let linear = grads.mul(cost)?.sum_dim(&[1, 2], false)?;
    Ok(values.add(&linear.sub(&linear.detach()?)?)?)
}

/// Soft-DTW divergence of paired sequences `a` `[pairs, length of a, dim]` and `b` `[pairs, length of b, dim]`:
/// soft-DTW minus half of that of each with itself; non-negative, zero for equal sequences, `[pairs]`, differentiable.
///
/// From *Differentiable Divergences Between Time Series* (Blondel, Mensch and Vert, 2021,
/// <https://arxiv.org/abs/2010.08354>).
///
/// # Errors
/// Those of [`soft_dtw`]; also when the feature dimensions differ.
pub fn soft_dtw_divergence(a: &Tensor, b: &Tensor, gamma: f64) -> Result<Tensor> {
    let value = |x: &Tensor, y: &Tensor| -> Result<Tensor> { soft_dtw(&squared_distances(x, y)?, gamma) };
    Ok(value(a, b)?.sub(&value(a, a)?.add(&value(b, b)?)?.mul_scalar(0.5)?)?)
}

/// Element type of costs and gradients in memory; arithmetic is in float64.
trait Stored: Element + Send + Sync {
    fn widen(self) -> f64;
    fn narrow(x: f64) -> Self;
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn narrow(x: f64) -> Self {
        x as Self
    }
}

impl Stored for f64 {
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(x: f64) -> Self {
        x
    }
}

/// Values `[pairs]`, float64, and gradients `[pairs, n, m]`.
fn forward_backward<T: Stored>(cost: &Tensor, [pairs, n, m]: [usize; 3], gamma: f64) -> Result<(Tensor, Tensor)> {
    let costs = cost.to_vec::<T>()?;
    if let Some(bad) = costs.iter().position(|c| !c.widen().is_finite()) {
        let (pair, cell) = (bad / (n * m), bad % (n * m));
        let found = format!("a cost of {} in pair {pair} at ({}, {})", costs[bad].widen(), cell / m, cell % m);
        return Err(invalid("soft_dtw", found, "finite costs"));
    }
    let mut values = vec![0f64; pairs];
    let mut grads = vec![T::narrow(0.0); pairs * n * m];
    let chunk = LANES * n * m;
    let chunks = costs.par_chunks(chunk).zip(grads.par_chunks_mut(chunk)).zip(values.par_chunks_mut(LANES));
    chunks.for_each(|((cost, grads), values)| dispatch(cost, n, m, gamma, values, grads));
    let shape = [pairs, n, m].map(|n| n as i64);
    Ok((Tensor::from_slice(&values)?, Tensor::from_vec(&grads, &shape)?))
}

/// Up to [`LANES`] pairs, with the widest instructions of this processor.
fn dispatch<T: Stored>(cost: &[T], n: usize, m: usize, gamma: f64, values: &mut [f64], grads: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq")]
        fn avx512<T: Stored>(cost: &[T], n: usize, m: usize, gamma: f64, values: &mut [f64], grads: &mut [T]) {
            in_lanes(cost, n, m, gamma, values, grads);
        }
        #[target_feature(enable = "avx2")]
        fn avx2<T: Stored>(cost: &[T], n: usize, m: usize, gamma: f64, values: &mut [f64], grads: &mut [T]) {
            in_lanes(cost, n, m, gamma, values, grads);
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
            // SAFETY: the processor supports the features that the function was compiled for.
            return unsafe { avx512(cost, n, m, gamma, values, grads) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor supports the features that the function was compiled for.
            return unsafe { avx2(cost, n, m, gamma, values, grads) };
        }
    }
    in_lanes(cost, n, m, gamma, values, grads);
}

#[inline(always)]
fn in_lanes<T: Stored>(cost: &[T], n: usize, m: usize, gamma: f64, values: &mut [f64], grads: &mut [T]) {
    let cells = n * m;
    // With fewer pairs than lanes the last pair is computed several times.
    let offset: [usize; LANES] = std::array::from_fn(|l| l.min(values.len() - 1) * cells);
    let inverse_gamma = 1.0 / gamma;
    // Two rows of values, each preceded by a border of infinity.
    let mut above = vec![[f64::INFINITY; LANES]; m + 1];
    let mut row = vec![[f64::INFINITY; LANES]; m + 1];
    above[0] = [0.0; LANES];
    // The fraction of each cell's value that comes from the diagonal, from above and from the left: all that the
    // backward pass needs, so that it takes no exponential.
    let mut fractions = vec![[[0f32; LANES]; 3]; cells];
    for i in 0..n {
        row[0] = [f64::INFINITY; LANES];
        for j in 0..m {
            let (diagonal, up, left) = (above[j], above[j + 1], row[j]);
            // exp(0) of the least is 1: two exponentials are left, of the middle and the largest.
            let (low, high) = (each(|l| diagonal[l].min(up[l])), each(|l| diagonal[l].max(up[l])));
            let least = each(|l| low[l].min(left[l]));
            let largest = each(|l| high[l].max(left[l]));
            let middle = each(|l| low[l].max(high[l].min(left[l])));
            let second = exp(each(|l| (least[l] - middle[l]) * inverse_gamma));
            let third = exp(each(|l| (least[l] - largest[l]) * inverse_gamma));
            let sum = each(|l| 1.0 + second[l] + third[l]);
            let log = ln(sum);
            let first = each(|l| 1.0 / sum[l]);
            let (second, third) = (each(|l| second[l] * first[l]), each(|l| third[l] * first[l]));
            let fraction = |from: &Lanes| -> [f32; LANES] {
                std::array::from_fn(|l| {
                    let other = if from[l] == middle[l] { second[l] } else { third[l] };
                    (if from[l] == least[l] { first[l] } else { other }) as f32
                })
            };
            fractions[i * m + j] = [fraction(&diagonal), fraction(&up), fraction(&left)];
            row[j + 1] = each(|l| cost[offset[l] + i * m + j].widen() + least[l] - gamma * log[l]);
        }
        std::mem::swap(&mut above, &mut row);
    }
    for (l, value) in values.iter_mut().enumerate() {
        *value = above[m][l];
    }
    backward(n, m, &fractions, &offset[..values.len()], grads);
}

/// Backward pass (algorithm 2 of the paper): the expected number of visits of each cell, which is the gradient of its
/// cost.
#[inline(always)]
fn backward<T: Stored>(n: usize, m: usize, fractions: &[[[f32; LANES]; 3]], offset: &[usize], grads: &mut [T]) {
    let mut below = vec![[0f64; LANES]; m + 1];
    let mut next = vec![[0f64; LANES]; m + 1];
    below[m - 1] = [1.0; LANES];
    for i in (0..n).rev() {
        next.fill([0.0; LANES]);
        let mut from_right = [0f64; LANES];
        for j in (0..m).rev() {
            let own = each(|l| below[j][l] + from_right[l]);
            let [diagonal, up, left] = &fractions[i * m + j];
            if j > 0 {
                next[j - 1] = each(|l| next[j - 1][l] + own[l] * f64::from(diagonal[l]));
            }
            next[j] = each(|l| next[j][l] + own[l] * f64::from(up[l]));
            from_right = each(|l| own[l] * f64::from(left[l]));
            for (l, start) in offset.iter().enumerate() {
                grads[start + i * m + j] = T::narrow(own[l]);
            }
        }
        std::mem::swap(&mut below, &mut next);
    }
}
