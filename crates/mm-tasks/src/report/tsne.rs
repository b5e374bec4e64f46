//! Exact t-SNE, started from principal components so that it is repeatable.
//!
//! From *Visualizing Data using t-SNE* (van der Maaten and Hinton, 2008).

use crate::Result;
use mm_core::{DType, Device, Tensor};

/// Maps `[rows, dim]` to two dimensions. For at most a few thousand rows: time and memory grow with their square.
pub fn tsne(vectors: &Tensor, perplexity: f64, steps: usize) -> Result<Vec<[f64; 2]>> {
    let rows = vectors.size(0)?;
    let x = vectors.to_device(Device::Cpu)?.to_dtype(DType::F32)?;
    let centered = x.sub(&x.mean_dim(&[0], true)?)?;
    let (u, s, _) = centered.svd()?;
    let mut y = u.narrow(1, 0, 2.min(u.size(1)?))?.mul(&s.narrow(0, 0, 2.min(s.size(0)?))?)?; // [rows, 2]
    if y.size(1)? < 2 {
        y = y.pad(&[0, 2 - y.size(1)?], 0.0)?;
    }
    if rows < 8 {
        return points(&y);
    }
    let spread = y.std_dim(&[0], false, true)?.add_scalar(1e-9)?;
    y = y.div(&spread)?.mul_scalar(1e-2)?;
    let affinity = affinities(&distances(&x)?, perplexity.min((rows - 1) as f64 / 3.0))?; // [rows, rows]
    let diagonal = Tensor::eye(rows, DType::Bool, Device::Cpu)?;
    let mut velocity = y.zeros_like()?;
    let lr = (rows as f64 / 12.0).max(50.0);
    for step in 0..steps {
        let exaggeration = if step < steps / 4 { 12.0 } else { 1.0 };
        let near = distances(&y)?.add_scalar(1.0)?.pow(-1.0)?.masked_fill(&diagonal, 0.0)?;
        let share = near.div(&near.sum()?)?;
        let force = affinity.mul_scalar(exaggeration)?.sub(&share)?.mul(&near)?.mul_scalar(4.0)?; // [rows, rows]
        let gradient = y.mul(&force.sum_dim(&[1], true)?)?.sub(&force.matmul(&y)?)?; // [rows, 2]
        let momentum = if step < steps / 4 { 0.5 } else { 0.8 };
        velocity = velocity.mul_scalar(momentum)?.sub(&gradient.mul_scalar(lr)?)?;
        y = y.add(&velocity)?;
    }
    points(&y)
}

fn points(y: &Tensor) -> Result<Vec<[f64; 2]>> {
    Ok(y.to_vec::<f64>()?.chunks_exact(2).map(|p| [p[0], p[1]]).collect())
}

/// Squared distances of all pairs.
fn distances(x: &Tensor) -> Result<Tensor> {
    let squares = x.mul(x)?.sum_dim(&[1], true)?; // [rows, 1]
    let cross = x.matmul(&x.transpose(0, 1)?)?.mul_scalar(-2.0)?;
    Ok(cross.add(&squares)?.add(&squares.transpose(0, 1)?)?.clamp_min(0.0)?)
}

/// Symmetric affinities of the given perplexity; the precision (`beta`) of each row is found by bisection.
fn affinities(distances: &Tensor, perplexity: f64) -> Result<Tensor> {
    let rows = distances.size(0)? as usize;
    let values = distances.to_vec::<f64>()?;
    let target = perplexity.max(1.1).ln();
    let mut out = vec![0f64; rows * rows];
    for row in 0..rows {
        let own = &values[row * rows..(row + 1) * rows];
        let (mut low, mut high, mut beta) = (0f64, f64::INFINITY, 1f64);
        for _ in 0..60 {
            let mut sum = 0.0;
            let mut weighted = 0.0;
            for (other, distance) in own.iter().enumerate() {
                if other != row {
                    let weight = (-beta * distance).exp();
                    sum += weight;
                    weighted += weight * distance;
                }
            }
            let entropy = if sum > 0.0 { sum.ln() + beta * weighted / sum } else { 0.0 };
            if entropy > target {
                low = beta
            } else {
                high = beta
            }
            beta = if high.is_finite() { (low + high) / 2.0 } else { beta * 2.0 };
        }
        let sum: f64 =
            own.iter().enumerate().filter(|(o, _)| *o != row).map(|(_, d)| (-beta * d).exp()).sum::<f64>().max(1e-300);
        for (other, distance) in own.iter().enumerate() {
            if other != row {
                out[row * rows + other] = (-beta * distance).exp() / sum;
            }
        }
    }
    let matrix = Tensor::from_vec(&out, &[rows as i64, rows as i64])?;
    let both = matrix.add(&matrix.transpose(0, 1)?)?.mul_scalar(0.5 / rows as f64)?.clamp_min(1e-12)?;
    Ok(both.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::seed::manual_seed;

    #[test]
    fn separate_clusters_stay_separate() {
        manual_seed(3);
        let cloud = |at: f64| {
            Tensor::randn(&[40, 16], DType::F32, Device::Cpu).unwrap().mul_scalar(0.3).unwrap().add_scalar(at).unwrap()
        };
        let points = tsne(&Tensor::cat(&[&cloud(-2.0), &cloud(2.0)], 0).unwrap(), 15.0, 300).unwrap();
        let near = |i: usize| {
            let distance = |j: usize| (points[i][0] - points[j][0]).hypot(points[i][1] - points[j][1]);
            (0..80).filter(|j| *j != i).min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap()
        };
        assert!((0..80).filter(|i| (near(*i) < 40) == (*i < 40)).count() > 76);
    }
}
