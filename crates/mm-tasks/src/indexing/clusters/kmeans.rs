//! Lloyd's algorithm (*Least squares quantization in PCM*, 1982, <https://doi.org/10.1109/TIT.1982.1056489>) from centroids
//! of k-means++ (*k-means++: The Advantages of Careful Seeding*, Arthur and Vassilvitskii, 2007,
//! <https://dl.acm.org/doi/10.5555/1283383.1283494>). Vectors that are compared by cosine have centroids of unit length
//! (*Concept Decompositions for Large Sparse Text Data Using Clustering*, Dhillon and Modha, 2001,
//! <https://doi.org/10.1023/A:1007612920971>).

use crate::Result;
use mm_core::{Tensor, seed::Rng};
use mm_index::OnProgress;
use std::sync::atomic::{AtomicBool, Ordering};

/// Iterations at most.
const MAX_ITERATIONS: usize = 50;

/// Values of points, and products of points and centroids, that are in memory at once: 64 MB of each.
const MAX_PRODUCTS: usize = 1 << 24;

/// Vectors one after the other.
pub(super) struct Points {
    values: Vec<f32>,
    dim: usize,
    is_cosine: bool,
}

impl Points {
    /// Those that are compared by cosine are scaled to unit length once more: a store rounds them to 16 bits.
    pub(super) fn new(mut values: Vec<f32>, dim: usize, is_cosine: bool) -> Self {
        for point in values.chunks_exact_mut(dim).take_while(|_| is_cosine) {
            let norm = point.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            point.iter_mut().for_each(|value| *value = (f64::from(*value) / norm.max(f64::MIN_POSITIVE)) as f32);
        }
        Self { values, dim, is_cosine }
    }

    fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    fn point(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    /// The number of the nearest of some centroids `[k, dim]` for each point, and the score with it.
    pub(super) fn nearest(&self, centroids: &[f32], stop: &AtomicBool) -> Result<Vec<(usize, f64)>> {
        let k = centroids.len() / self.dim;
        let centroids = Tensor::from_vec(centroids, &[k as i64, self.dim as i64])?;
        let chunk = (MAX_PRODUCTS / k.max(self.dim)).max(1);
        let mut nearest = Vec::with_capacity(self.len());
        for values in self.values.chunks(chunk * self.dim) {
            if stop.load(Ordering::Relaxed) {
                return Err(mm_index::Error::Stopped { done: nearest.len(), total: self.len() }.into());
            }
            nearest.extend(self.nearest_of(values, &centroids)?);
        }
        Ok(nearest)
    }

    /// The same for some of the points.
    fn nearest_of(&self, values: &[f32], centroids: &Tensor) -> Result<Vec<(usize, f64)>> {
        let points = Tensor::from_vec(values, &[(values.len() / self.dim) as i64, self.dim as i64])?;
        let products = points.matmul(&centroids.transpose(0, 1)?)?; // [points, k]
        if self.is_cosine {
            let (scores, indices) = products.topk(1)?;
            let (scores, indices) = (scores.to_vec::<f32>()?, indices.to_vec::<i64>()?);
            return Ok(indices.into_iter().map(|i| i as usize).zip(scores.into_iter().map(f64::from)).collect());
        }
        // |x - c|² = |x|² - (2 x·c - |c|²)
        let norms = centroids.mul(centroids)?.sum_dim(&[1], false)?;
        let (scores, indices) = products.mul_scalar(2.0)?.sub(&norms)?.topk(1)?;
        let squares = points.mul(&points)?.sum_dim(&[1], true)?.sub(&scores)?.clamp_min(0.0)?;
        let distances = squares.sqrt()?.to_vec::<f32>()?;
        let indices = indices.to_vec::<i64>()?.into_iter().map(|i| i as usize);
        Ok(indices.zip(distances.into_iter().map(|distance| -f64::from(distance))).collect())
    }

    /// Centroids `[k, dim]`, after convergence or [`MAX_ITERATIONS`].
    pub(super) fn centroids(
        &self,
        k: usize,
        random: &mut Rng,
        stop: &AtomicBool,
        on_progress: OnProgress<'_>,
    ) -> Result<Vec<f32>> {
        let mut centroids = self.first_centroids(k, random, stop, on_progress)?;
        let mut before: Vec<usize> = Vec::new();
        for iteration in 0..MAX_ITERATIONS {
            on_progress("iterating", iteration, MAX_ITERATIONS);
            let nearest = self.nearest(&centroids, stop)?;
            let indices: Vec<usize> = nearest.iter().map(|(index, _)| *index).collect();
            if indices == before {
                break;
            }
            centroids = self.means(k, &nearest);
            before = indices;
        }
        Ok(centroids)
    }

    /// Points of which each is chosen with a probability proportional to its squared distance from those before it.
    fn first_centroids(
        &self,
        k: usize,
        random: &mut Rng,
        stop: &AtomicBool,
        on_progress: OnProgress<'_>,
    ) -> Result<Vec<f32>> {
        let mut centroids = self.point(random.below(self.len())).to_vec();
        let mut squares = vec![f64::INFINITY; self.len()];
        for count in 1..k {
            on_progress("choosing", count, k);
            let last = &centroids[centroids.len() - self.dim..];
            for (square, (_, score)) in squares.iter_mut().zip(self.nearest(last, stop)?) {
                // Of vectors of unit length: 2 - 2 cos.
                let distance = if self.is_cosine { (2.0 - 2.0 * score).max(0.0) } else { score * score };
                *square = square.min(distance);
            }
            let mut target = random.uniform() * squares.iter().sum::<f64>();
            let chosen = squares.iter().position(|square| {
                target -= square;
                target < 0.0
            });
            let point = self.point(chosen.unwrap_or_else(|| random.below(self.len()))).to_vec();
            centroids.extend(point);
        }
        Ok(centroids)
    }

    /// The mean of the points of each centroid. One without points becomes the point that is farthest from its own.
    fn means(&self, k: usize, nearest: &[(usize, f64)]) -> Vec<f32> {
        let (mut sums, mut counts) = (vec![0.0_f64; k * self.dim], vec![0_usize; k]);
        for (index, (cluster, _)) in nearest.iter().enumerate() {
            counts[*cluster] += 1;
            let sum = &mut sums[cluster * self.dim..(cluster + 1) * self.dim];
            sum.iter_mut().zip(self.point(index)).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let mut farthest: Vec<usize> = (0..nearest.len()).collect();
        farthest.sort_by(|a, b| nearest[*a].1.total_cmp(&nearest[*b].1));
        let mut farthest = farthest.into_iter();
        for (count, sum) in counts.iter().zip(sums.chunks_exact_mut(self.dim)) {
            if let (0, Some(point)) = (count, farthest.next()) {
                sum.iter_mut().zip(self.point(point)).for_each(|(sum, value)| *sum = f64::from(*value));
                continue;
            }
            let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
            let scale = if self.is_cosine { norm } else { *count as f64 };
            sum.iter_mut().for_each(|value| *value /= scale.max(f64::MIN_POSITIVE));
        }
        sums.into_iter().map(|value| value as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_compared_in_parts() {
        // Two parts: more products than are in memory at once. Integers, so that all sums are exact.
        let (k, count) = (4000, MAX_PRODUCTS / 4000 + 10);
        let point = |n: usize| [(n % 64) as f32, (n / 64) as f32];
        let centroids: Vec<f32> = (0..k).flat_map(point).collect();
        let points = Points::new((0..count).flat_map(|n| point(n % k)).collect(), 2, false);
        let nearest = points.nearest(&centroids, &AtomicBool::new(false)).unwrap();
        assert_eq!(nearest.len(), count);
        assert!(nearest.iter().enumerate().all(|(n, found)| *found == (n % k, 0.0)), "{:?}", &nearest[..10]);
        assert!(points.nearest(&centroids, &AtomicBool::new(true)).is_err());
    }
}
