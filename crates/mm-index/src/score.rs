//! Similarities of vectors, and rows in the order of their scores.

use crate::config::Distance;
use half::{f16, slice::HalfFloatSliceExt as _};
use std::cmp::{Ordering, Reverse};

/// Scalar product.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, |x, y| x * y)
}

/// Negative distance.
fn negative_distance(a: &[f32], b: &[f32]) -> f32 {
    -lanes(a, b, |x, y| (x - y) * (x - y)).sqrt()
}

/// The sum of `term` over two vectors, in independent sums that the compiler vectorizes.
fn lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| term(*x, *y)).sum();
    for (a, b) in a.zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += term(*x, *y);
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Scores stored vectors against queries.
pub(crate) struct Scorer<'a> {
    distance: Distance,
    dim: usize,
    /// Prepared vectors: one, or one for each token.
    queries: &'a [Vec<f32>],
    /// The stored vector as 32-bit floats.
    buffer: Vec<f32>,
}

impl<'a> Scorer<'a> {
    pub(crate) fn new(distance: Distance, dim: usize, queries: &'a [Vec<f32>]) -> Self {
        Self { distance, dim, queries, buffer: Vec::new() }
    }

    /// The sum over the queries of the similarity to the most similar stored vector. With one query and one stored
    /// vector that is their similarity.
    pub(crate) fn score(&mut self, stored: &[f16]) -> f32 {
        self.buffer.resize(stored.len(), 0.0);
        stored.convert_to_f32_slice(&mut self.buffer);
        let similarity = match self.distance {
            Distance::Cosine | Distance::Dot => dot,
            Distance::Euclidean => negative_distance,
        };
        let best = |query: &Vec<f32>| {
            let scores = self.buffer.chunks_exact(self.dim).map(|vector| similarity(query, vector));
            scores.fold(f32::NEG_INFINITY, f32::max)
        };
        self.queries.iter().map(best).sum()
    }
}

/// A row with its score. The greatest is the best: the highest score, of equal ones the row that was written first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    pub(crate) score: f64,
    pub(crate) row: i64,
}

impl Eq for Scored {}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(Reverse(self.row).cmp(&Reverse(other.row)))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(values: &[f32]) -> Vec<f16> {
        values.iter().map(|v| f16::from_f32(*v)).collect()
    }

    #[test]
    fn scores_are_those_of_their_definitions() {
        let query = [(0..37u8).map(f32::from).collect::<Vec<_>>()];
        let stored = halves(&[2.0; 37]);
        assert_eq!(Scorer::new(Distance::Dot, 37, &query).score(&stored), 1332.0);
        let query = [vec![1.0, 5.0]];
        assert_eq!(Scorer::new(Distance::Euclidean, 2, &query).score(&halves(&[4.0, 1.0])), -5.0);
        // Two tokens, each with its nearest of three stored vectors: 2 + 6.
        let tokens = [vec![1.0, 0.0], vec![0.0, 2.0]];
        assert_eq!(Scorer::new(Distance::Dot, 2, &tokens).score(&halves(&[2.0, 0.0, 1.0, 3.0, -5.0, 1.0])), 8.0);
    }

    #[test]
    fn rows_are_ordered_by_score_then_by_age() {
        let mut rows = [(1.0, 5), (2.0, 9), (2.0, 3)].map(|(score, row)| Scored { score, row });
        rows.sort_by(|a, b| b.cmp(a));
        assert_eq!(rows.map(|r| r.row), [3, 9, 5]);
    }
}
