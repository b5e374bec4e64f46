//! The contribution of each modality: ablations and Shapley values.

use super::{super::predictor::Predictor, main_metric};
use crate::Result;
use mm_core::Modality;
use mm_data::Manifest;
use serde::Serialize;

/// Every subset of modalities is evaluated for at most this many.
const MAX_MODALITIES: usize = 6;

/// Rows that each subset is evaluated on, about.
const MAX_ROWS: usize = 300;

/// The section of the page.
#[derive(Serialize)]
pub(super) struct Contributions {
    metric: &'static str,
    rows: usize,
    table: Vec<Vec<String>>,
    /// Mean weight that the fusion operator gives to each modality; empty where it reports none.
    modality_weights: String,
}

/// Metrics of each modality alone and without it, and Shapley values over all subsets; `None` with a single modality,
/// or with too many.
///
/// From *A Unified Approach to Interpreting Model Predictions* (Lundberg and Lee, 2017,
/// <https://arxiv.org/abs/1705.07874>).
pub(super) fn contributions(
    predictor: &Predictor,
    manifest: &Manifest,
    rows: &[usize],
) -> Result<Option<Contributions>> {
    let modalities = predictor.modalities();
    if modalities.len() < 2 || modalities.len() > MAX_MODALITIES {
        return Ok(None);
    }
    let step = rows.len().div_ceil(MAX_ROWS).max(1);
    let rows: Vec<usize> = rows.iter().copied().step_by(step).collect();
    // The metric of each subset, a set bit for each modality that is in it.
    let mut values = vec![0.0; 1 << modalities.len()];
    let mut metric = "";
    for (subset, value) in values.iter_mut().enumerate() {
        let is_excluded = |index: usize| subset & (1 << index) == 0;
        let exclude: Vec<Modality> =
            modalities.iter().enumerate().filter(|(n, _)| is_excluded(*n)).map(|(_, m)| m.clone()).collect();
        let metrics = predictor.evaluate(manifest, &rows, &exclude)?.metrics;
        (metric, *value) = main_metric(predictor.target().problem, &metrics);
    }
    let full = values.len() - 1;
    let mut table = vec![["modality", "alone", "without it", "Shapley value"].map(ToOwned::to_owned).to_vec()];
    for (index, modality) in modalities.iter().enumerate() {
        table.push(vec![
            modality.to_string(),
            format!("{:.4}", values[1 << index]),
            format!("{:.4}", values[full ^ (1 << index)]),
            format!("{:+.4}", shapley_value(&values, index, modalities.len())),
        ]);
    }
    table.push(vec![
        "all".into(),
        format!("{:.4}", values[full]),
        format!("{:.4}", values[0]),
        format!("{:+.4}", values[full] - values[0]),
    ]);
    let weights = predictor.modality_weights(manifest, &rows)?;
    let weights: Vec<String> = weights.iter().map(|(m, w)| format!("{m} {w:.3}")).collect();
    Ok(Some(Contributions { metric, rows: rows.len(), table, modality_weights: weights.join(", ") }))
}

/// The exact Shapley value of one of `count` players from the value of each subset, a set bit for each player in it.
fn shapley_value(values: &[f64], player: usize, count: usize) -> f64 {
    let bit = 1 << player;
    let gain = |subset: usize| {
        let size = subset.count_ones() as usize;
        let weight = factorial(size) * factorial(count - size - 1) / factorial(count);
        weight * (values[subset | bit] - values[subset])
    };
    (0..values.len()).filter(|subset| subset & bit == 0).map(gain).sum()
}

fn factorial(n: usize) -> f64 {
    (1..=n).map(|i| i as f64).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapley_values_sum_to_the_gain_of_all_players() {
        // Player 0 adds 0.2 alone, player 1 adds 0.1, both together 0.5.
        let values = [0.3, 0.5, 0.4, 0.8];
        let shapley = [0, 1].map(|player| shapley_value(&values, player, 2));
        assert!((shapley[0] - 0.3).abs() < 1e-12 && (shapley[1] - 0.2).abs() < 1e-12, "{shapley:?}");
    }
}
