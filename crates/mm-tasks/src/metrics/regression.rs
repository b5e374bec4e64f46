//! Metrics of regression, equal to scikit-learn's and SciPy's.

use super::{
    metric::{Metric, Metrics},
    ranking::{mean, pearson, ranks},
};
use crate::{Error, Result};

/// Mean absolute error, root mean squared error and, where the targets differ, R², Pearson's and Spearman's
/// correlation.
///
/// # Errors
/// When there are no predictions, or not one target for each.
pub fn regression_metrics(predicted: &[f64], targets: &[f64]) -> Result<Metrics> {
    let rows = predicted.len();
    if rows == 0 || rows != targets.len() {
        return Err(Error::Config(format!(
            "regression metrics: found {rows} predictions and {} targets, expected as many of one as of the other, at least one",
            targets.len()
        )));
    }
    let errors = || predicted.iter().zip(targets).map(|(p, t)| p - t);
    let squared = errors().map(|e| e * e).sum::<f64>();
    let target_mean = mean(targets);
    let total = targets.iter().map(|t| (t - target_mean).powi(2)).sum::<f64>();
    let mut metrics = Metrics::new();
    metrics.insert("mae", errors().map(f64::abs).sum::<f64>() / rows as f64);
    metrics.insert("rmse", (squared / rows as f64).sqrt());
    if total > 0.0 {
        metrics.insert("r2", 1.0 - squared / total);
        metrics.extend(pearson(predicted, targets).map(|c| Metric::new("pearson", c)));
        metrics.extend(pearson(&ranks(predicted), &ranks(targets)).map(|c| Metric::new("spearman", c)));
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_metrics_equal_scikit_learn() {
        let metrics = regression_metrics(&[1.0, 2.0, 3.5, 3.0], &[1.0, 3.0, 3.0, 4.0]).unwrap();
        // scipy.stats.spearmanr([1, 2, 3.5, 3], [1, 3, 3, 4]) = 0.6324555320336759
        for (id, expected) in [("mae", 0.625), ("r2", 1.0 - 2.25 / 4.75), ("spearman", 0.632_455_532_033_675_9)] {
            let found = metrics.get(id).unwrap();
            assert!((found - expected).abs() < 1e-9, "{id}: found {found}, expected {expected}");
        }
    }
}
