//! Recall at k, median rank and mean average precision of ranked lists, with the values of a random ranking as
//! baselines.

use super::metric::{Metric, Metrics};
use crate::{Error, Result};
use mm_core::Tensor;
use serde::{Deserialize, Serialize};

/// Metrics of one direction of retrieval.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RetrievalMetrics {
    /// Number of queries that have a match in the gallery.
    pub queries: usize,
    /// Number of candidates.
    pub gallery: usize,
    /// Share of queries with a match among the first 1, 5 and 10.
    pub recall: [f64; 3],
    /// Median rank of the first match, counted from 1.
    pub median_rank: f64,
    /// Mean over queries of the average precision of the whole ranking.
    pub map: f64,
    /// Expected recall at 1, 5 and 10 of a random ranking.
    pub chance: [f64; 3],
}

/// Queries are scored in blocks, so that memory is bounded by a block times the gallery.
const BLOCK: usize = 1024;
/// The k of recall at k.
const RECALL_AT: [usize; 3] = [1, 5, 10];

impl RetrievalMetrics {
    /// The result as a list of metrics of one direction (`image_to_text`), with chance as the baseline of recall.
    pub fn metrics(&self, scope: &str) -> Metrics {
        let recall = RECALL_AT.iter().zip(self.recall.iter().zip(&self.chance));
        let recall = recall.map(|(k, (r, c))| Metric::new(format!("recall_at_{k}"), *r).with_baseline("chance", *c));
        let others = [("median_rank", self.median_rank), ("mean_average_precision", self.map)];
        recall.chain(others.map(|(id, value)| Metric::new(id, value))).map(|m| m.with_scope(scope)).collect()
    }
}

/// Ranks a gallery `[candidates, dim]` for each of some queries `[queries, dim]` by the dot product; `is_match(q, g)`
/// is whether candidate g matches query q. Queries without a match in the gallery are left out.
///
/// # Errors
/// When no query has a match.
pub fn retrieval_metrics(
    queries: &Tensor,
    gallery: &Tensor,
    is_match: impl Fn(usize, usize) -> bool,
) -> Result<RetrievalMetrics> {
    let sizes = (queries.size(0)? as usize, gallery.size(0)? as usize);
    let gallery = gallery.transpose(0, 1)?;
    rank_all(sizes, |start, count| Ok(queries.narrow(0, start, count)?.matmul(&gallery)?), is_match)
}

/// Like [`retrieval_metrics`], with precomputed scores `[queries, candidates]`; higher is better.
pub fn score_metrics(scores: &Tensor, is_match: impl Fn(usize, usize) -> bool) -> Result<RetrievalMetrics> {
    let sizes = (scores.size(0)? as usize, scores.size(1)? as usize);
    rank_all(sizes, |start, count| Ok(scores.narrow(0, start, count)?), is_match)
}

fn rank_all(
    (rows, candidates): (usize, usize),
    scores: impl Fn(i64, i64) -> Result<Tensor>,
    is_match: impl Fn(usize, usize) -> bool,
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
                .filter(|(_, g)| is_match(query, **g as usize))
                .map(|(rank, _)| rank + 1)
                .collect();
            let Some(first) = hits.first() else { continue };
            ranks.push(*first);
            let precision: f64 = hits.iter().enumerate().map(|(found, rank)| (found + 1) as f64 / *rank as f64).sum();
            metrics.map += precision / hits.len() as f64;
            for (index, k) in RECALL_AT.iter().enumerate() {
                metrics.recall[index] += f64::from(u8::from(first <= k));
                metrics.chance[index] += chance_recall(candidates, hits.len(), *k);
            }
        }
    }
    metrics.queries = ranks.len();
    if ranks.is_empty() {
        return Err(Error::Config("retrieval metrics: no query has a match in the gallery".into()));
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

/// The probability that at least one of `matches` among `candidates` is within the first `k` of a random order.
pub fn chance_recall(candidates: usize, matches: usize, k: usize) -> f64 {
    let misses: f64 = (0..k.min(candidates))
        .map(|i| (candidates - matches).saturating_sub(i) as f64 / (candidates - i) as f64)
        .product();
    1.0 - misses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_equal_a_calculation_by_hand() {
        // One query, five candidates with decreasing scores; the second and the fourth match.
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
