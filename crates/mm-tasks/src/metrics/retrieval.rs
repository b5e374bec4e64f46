//! Recall at k, median rank and mean average precision of ranked lists (Manning 2008), with chance beside them.

use crate::{Error, Result};
use mm_core::Tensor;
use serde::{Deserialize, Serialize};

/// Figures of one direction of retrieval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RetrievalMetrics {
    /// Number of queries (those with something right in the gallery).
    pub queries: usize,
    /// Number of candidates.
    pub gallery: usize,
    /// Share of queries with something right among the first 1, 5 and 10.
    pub recall: [f64; 3],
    /// Median of the rank of the first right one, from 1.
    pub median_rank: f64,
    /// Mean over queries of the average precision of the whole ranking.
    pub map: f64,
    /// Recall at 1, 5 and 10 of a ranking by chance.
    pub chance: [f64; 3],
}

/// Queries are scored in blocks, so that memory is a block times the gallery whatever the number of queries.
const BLOCK: usize = 1024;
/// Where recall is taken.
const AT: [usize; 3] = [1, 5, 10];

/// Figures of queries `[queries, width]` against a gallery `[candidates, width]`, both of unit length; `right(q, g)` says whether
/// candidate g is an answer to query q. Queries without any answer in the gallery are left out.
pub fn retrieval_metrics(
    queries: &Tensor,
    gallery: &Tensor,
    right: impl Fn(usize, usize) -> bool,
) -> Result<RetrievalMetrics> {
    let sizes = (queries.size(0)? as usize, gallery.size(0)? as usize);
    let turned = gallery.transpose(0, 1)?;
    ranked(sizes, |start, count| Ok(queries.narrow(0, start, count)?.matmul(&turned)?), right)
}

/// The same of scores `[queries, candidates]`, the higher the better, however they were found.
pub fn score_metrics(scores: &Tensor, right: impl Fn(usize, usize) -> bool) -> Result<RetrievalMetrics> {
    let sizes = (scores.size(0)? as usize, scores.size(1)? as usize);
    ranked(sizes, |start, count| Ok(scores.narrow(0, start, count)?), right)
}

fn ranked(
    (rows, candidates): (usize, usize),
    scores: impl Fn(i64, i64) -> Result<Tensor>,
    right: impl Fn(usize, usize) -> bool,
) -> Result<RetrievalMetrics> {
    let mut metrics = RetrievalMetrics { gallery: candidates, ..RetrievalMetrics::default() };
    let mut ranks = Vec::new();
    for start in (0..rows).step_by(BLOCK) {
        let count = BLOCK.min(rows - start);
        let scores = scores(start as i64, count as i64)?;
        let order = scores.argsort(1, true)?.to_vec::<i64>()?;
        for (query, ranking) in (start..).zip(order.chunks_exact(candidates)) {
            let hits: Vec<usize> = ranking
                .iter()
                .enumerate()
                .filter(|(_, g)| right(query, **g as usize))
                .map(|(rank, _)| rank + 1)
                .collect();
            let Some(first) = hits.first() else { continue };
            ranks.push(*first);
            let precision: f64 = hits.iter().enumerate().map(|(found, rank)| (found + 1) as f64 / *rank as f64).sum();
            metrics.map += precision / hits.len() as f64;
            for (place, k) in AT.iter().enumerate() {
                metrics.recall[place] += f64::from(u8::from(first <= k));
                metrics.chance[place] += chance_recall(candidates, hits.len(), *k);
            }
        }
    }
    metrics.queries = ranks.len();
    if ranks.is_empty() {
        return Err(Error::Config("no query has anything right in the gallery, so there is nothing to measure".into()));
    }
    let count = ranks.len() as f64;
    metrics.map /= count;
    metrics.recall.iter_mut().chain(&mut metrics.chance).for_each(|v| *v /= count);
    ranks.sort_unstable();
    let middle = ranks.len() / 2;
    metrics.median_rank =
        if ranks.len() % 2 == 1 { ranks[middle] as f64 } else { (ranks[middle - 1] + ranks[middle]) as f64 / 2.0 };
    Ok(metrics)
}

/// The probability that at least one of `right` among `candidates` is within the first `k` of a random order.
pub fn chance_recall(candidates: usize, right: usize, k: usize) -> f64 {
    let misses: f64 = (0..k.min(candidates))
        .map(|i| (candidates - right).saturating_sub(i) as f64 / (candidates - i) as f64)
        .product();
    1.0 - misses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_a_hand_calculation() {
        // One query, five candidates with falling scores; the second and the fourth are right.
        let query = Tensor::from_vec(&[1f32], &[1, 1]).unwrap();
        let gallery = Tensor::from_vec(&[0.9f32, 0.8, 0.7, 0.6, 0.5], &[5, 1]).unwrap();
        let metrics = retrieval_metrics(&query, &gallery, |_, g| g == 1 || g == 3).unwrap();
        assert_eq!(metrics.recall, [0.0, 1.0, 1.0]);
        assert!((metrics.median_rank - 2.0).abs() < 1e-9);
        assert!((metrics.map - (1.0 / 2.0 + 2.0 / 4.0) / 2.0).abs() < 1e-9);
        assert!((metrics.chance[0] - 0.4).abs() < 1e-9 && (metrics.chance[1] - 1.0).abs() < 1e-9);
        assert!((chance_recall(156, 1, 10) - 10.0 / 156.0).abs() < 1e-9);
        assert!(retrieval_metrics(&query, &gallery, |_, _| false).is_err());
    }
}
