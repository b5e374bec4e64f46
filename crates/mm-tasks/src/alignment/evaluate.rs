//! Retrieval metrics of a fitted alignment.

use super::FittedAlignment;
use crate::{
    Result,
    metrics::{Metric, Metrics, RetrievalMetrics, retrieval_metrics},
};
use mm_align::PairedFeatures;
use mm_core::{DType, Device, Tensor, seed::manual_seed};
use serde::Serialize;

/// Retrieval in both directions.
#[derive(Debug, Clone, Serialize)]
pub struct AlignmentMetrics {
    /// b retrieved from a; only the paired row is relevant.
    pub a_to_b: RetrievalMetrics,
    /// a retrieved from b.
    pub b_to_a: RetrievalMetrics,
    /// Mean average precision, a to b and b to a, with all rows of the same label relevant (only the paired row without
    /// labels).
    pub mean_average_precision: [f64; 2],
    /// Mean average precision of random embeddings, a to b and b to a.
    pub chance_mean_average_precision: [f64; 2],
}

impl AlignmentMetrics {
    /// The result as a list of metrics with the scopes `a_to_b` and `b_to_a`, and chance as the baseline.
    pub fn metrics(&self) -> Metrics {
        let mut out = Metrics::new();
        for (index, (scope, direction)) in [("a_to_b", &self.a_to_b), ("b_to_a", &self.b_to_a)].into_iter().enumerate()
        {
            out.extend(direction.metrics(scope));
            let map = Metric::new("mean_average_precision", self.mean_average_precision[index])
                .with_baseline("chance", self.chance_mean_average_precision[index]);
            out.push(map.with_scope(scope));
        }
        out
    }
}

/// Dimension and seed of the random embeddings that chance is measured with.
const RANDOM_DIM: i64 = 64;
const RANDOM_SEED: u64 = 7;

/// Evaluates retrieval on test pairs.
pub fn evaluate(fitted: &FittedAlignment, pairs: &PairedFeatures) -> Result<AlignmentMetrics> {
    let (a, b) = (fitted.project(0, &pairs.a)?, fitted.project(1, &pairs.b)?);
    let is_pair = |query: usize, candidate: usize| query == candidate;
    let labels = pairs.labels.as_deref();
    let (a_to_b, b_to_a) = (retrieval_metrics(&a, &b, is_pair)?, retrieval_metrics(&b, &a, is_pair)?);
    let mean_average_precision = mean_average_precision(&a, &b, labels)?;
    let rows = pairs.rows()?;
    manual_seed(RANDOM_SEED);
    let random = || Tensor::randn(&[rows, RANDOM_DIM], DType::F64, Device::Cpu)?.normalize();
    let chance_mean_average_precision = self::mean_average_precision(&random()?, &random()?, labels)?;
    Ok(AlignmentMetrics { a_to_b, b_to_a, mean_average_precision, chance_mean_average_precision })
}

/// Mean average precision over the whole ranking, a to b and b to a, of unit-length embeddings `[rows, dim]`. Rows of
/// the same label are relevant; without labels only the paired row is.
pub(super) fn mean_average_precision(a: &Tensor, b: &Tensor, labels: Option<&[i64]>) -> Result<[f64; 2]> {
    let is_relevant = |query: usize, candidate: usize| labels.map_or(query == candidate, |l| l[query] == l[candidate]);
    Ok([retrieval_metrics(a, b, is_relevant)?.map, retrieval_metrics(b, a, is_relevant)?.map])
}
