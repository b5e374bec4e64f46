//! Metrics of sentiment scores as papers on CMU-MOSI and CMU-MOSEI report them.

use super::metric::Metrics;
use crate::{Error, Result};

/// Metrics of predicted sentiment scores; targets are in [−3, 3], negative to positive.
///
/// - `acc_2_nonzero`, `f1_nonzero`: accuracy and support-weighted F1 of negative against positive, without targets of 0;
/// - `acc_2`, `f1_2`: the same over all rows, 0 counted as positive;
/// - `acc_5`, `acc_7`: accuracy of scores rounded to integers (ties to even) after clamping to [−2, 2] and [−3, 3].
///
/// As in *Multimodal Transformer for Unaligned Multimodal Language Sequences* (Tsai et al., 2019,
/// <https://arxiv.org/abs/1906.00295>) and *Learning Modality-Specific Representations with Self-Supervised Multi-Task
/// Learning for Multimodal Sentiment Analysis* (Yu et al., 2021, <https://arxiv.org/abs/2102.04830>).
///
/// # Errors
/// When there are no predictions, or not one target for each.
pub fn sentiment_metrics(predicted: &[f64], targets: &[f64]) -> Result<Metrics> {
    if predicted.is_empty() || predicted.len() != targets.len() {
        let found = format!("{} predictions and {} targets", predicted.len(), targets.len());
        return Err(Error::invalid("sentiment metrics", found, "one target for each prediction, at least one"));
    }
    let pairs = || predicted.iter().zip(targets);
    let mut metrics = Metrics::new();
    let nonzero: Vec<(bool, bool)> = pairs().filter(|(_, t)| **t != 0.0).map(|(p, t)| (*p > 0.0, *t > 0.0)).collect();
    if !nonzero.is_empty() {
        metrics.insert("acc_2_nonzero", share_equal(&nonzero));
        metrics.insert("f1_nonzero", weighted_f1(&nonzero));
    }
    let all: Vec<(bool, bool)> = pairs().map(|(p, t)| (*p >= 0.0, *t >= 0.0)).collect();
    metrics.insert("acc_2", share_equal(&all));
    metrics.insert("f1_2", weighted_f1(&all));
    for (id, limit) in [("acc_5", 2.0), ("acc_7", 3.0)] {
        let class = |score: f64| score.clamp(-limit, limit).round_ties_even();
        metrics.insert(id, share_equal(&pairs().map(|(p, t)| (class(*p), class(*t))).collect::<Vec<_>>()));
    }
    Ok(metrics)
}

fn share_equal<T: PartialEq>(pairs: &[(T, T)]) -> f64 {
    pairs.iter().filter(|(p, t)| p == t).count() as f64 / pairs.len().max(1) as f64
}

/// F1 of both classes of (predicted, target), weighted by their number of targets.
fn weighted_f1(pairs: &[(bool, bool)]) -> f64 {
    let weighted = |class: bool| {
        let targets = pairs.iter().filter(|(_, t)| *t == class).count();
        let predicted = pairs.iter().filter(|(p, _)| *p == class).count();
        let hits = pairs.iter().filter(|(p, t)| *p == class && *t == class).count();
        targets as f64 * if targets + predicted > 0 { 2.0 * hits as f64 / (targets + predicted) as f64 } else { 0.0 }
    };
    (weighted(true) + weighted(false)) / pairs.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracies_are_those_of_the_papers() {
        let metrics = sentiment_metrics(&[0.4, -1.2, 2.6, 0.1], &[0.0, -1.0, 3.0, -0.2]).unwrap();
        let near = |id: &str, expected: f64| {
            let found = metrics.get(id).unwrap();
            assert!((found - expected).abs() < 1e-9, "{id}: found {found}, expected {expected}");
        };
        near("acc_2_nonzero", 2.0 / 3.0);
        near("acc_2", 0.75);
        near("acc_7", 1.0);
        near("acc_5", 1.0);
        // Of three nonzero targets two are negative: one is found (F1 2/3), and the positive one is among two
        // predictions (F1 2/3).
        near("f1_nonzero", 2.0 / 3.0);
        // Of four targets two are positive, found among three predictions (F1 4/5); of the two negative ones one is
        // found (F1 2/3).
        near("f1_2", f64::midpoint(0.8, 2.0 / 3.0));
        assert!(metrics.iter().all(|m| m.higher_is_better));
        assert!(sentiment_metrics(&[], &[]).is_err() && sentiment_metrics(&[1.0], &[]).is_err());
    }

    #[test]
    fn without_nonzero_targets_their_metrics_are_absent() {
        let metrics = sentiment_metrics(&[0.1], &[0.0]).unwrap();
        assert_eq!((metrics.get("acc_2_nonzero"), metrics.get("f1_nonzero")), (None, None));
        assert_eq!(metrics.get("acc_2"), Some(1.0));
    }
}
