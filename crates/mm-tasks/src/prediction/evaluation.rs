//! Evaluation of predictions on labeled rows.

use super::{
    config::PredictionConfig,
    target::{Label, Problem, Target},
};
use crate::{
    Error, Result,
    metrics::{
        Metrics, classification_metrics, metrics_table, multilabel_metrics, regression_metrics, sentiment_metrics,
    },
    task::{EvaluationReport, failed_to_json},
};
use mm_core::Tensor;
use mm_data::{FailedSample, Manifest, Split};
use serde_json::json;
use std::collections::BTreeMap;

/// The metric that selects the best weights ([`selection_score`]).
pub(super) const SELECTION_METRIC: &str = "score";

/// Metrics of a predictor on some rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// The metrics of the problem.
    pub metrics: Metrics,
    /// Number of rows with a label.
    pub rows: usize,
    /// Rows whose label is a class that training did not have; they count as wrong.
    pub rows_with_unknown_class: usize,
    /// Values that could not be read; their rows were predicted without them.
    pub failed: Vec<FailedSample>,
}

impl Evaluation {
    /// As JSON and as a table; `split` is the split of the model's own data, `None` for the rows of another table.
    pub fn report(&self, split: Option<Split>) -> EvaluationReport {
        let json = json!({
            "split": split, "rows": self.rows, "rows_with_unknown_class": self.rows_with_unknown_class, "metrics": self.metrics,
            "failed": failed_to_json(&self.failed),
        });
        EvaluationReport { json, table: metrics_table(std::slice::from_ref(&self.metrics)) }
    }
}

/// Metrics of probabilities `[rows, classes]` (or values `[rows, 1]`) for the rows that have a label.
pub(super) fn measure(
    config: &PredictionConfig,
    target: &Target,
    manifest: &Manifest,
    rows: &[usize],
    values: &Tensor,
) -> Result<Evaluation> {
    let columns = values.size(1)? as usize;
    let all = values.to_vec::<f64>()?;
    let (mut predicted, mut labels) = (Vec::new(), Vec::new());
    for (row, own) in rows.iter().zip(all.chunks(columns.max(1))) {
        if let Some(text) = manifest.rows[*row].cells.get(&config.label) {
            predicted.push(own.to_vec());
            labels.push(target.encode(text));
        }
    }
    if labels.is_empty() {
        return Err(Error::Label {
            column: config.label.clone(),
            row: None,
            found: format!("no row with a label in {}", manifest.path.display()),
            expected: "at least one".into(),
        });
    }
    let (count, mut unknown) = (labels.len(), 0);
    let metrics = match target.problem {
        Problem::Regression => {
            let number = |(p, l): (&Vec<f64>, Option<Label>)| match l {
                Some(Label::Number(v)) => Some((p[0], v)),
                _ => None,
            };
            let (predicted, targets): (Vec<f64>, Vec<f64>) = predicted.iter().zip(labels).filter_map(number).unzip();
            let mut metrics = regression_metrics(&predicted, &targets)?;
            if config.sentiment_metrics {
                metrics.extend(sentiment_metrics(&predicted, &targets)?);
            }
            metrics
        }
        Problem::Multilabel => {
            let labels = labels.into_iter().map(|l| if let Some(Label::Labels(set)) = l { set } else { Vec::new() });
            multilabel_metrics(&predicted, &labels.collect::<Vec<_>>())?
        }
        _ => {
            let class = |l| if let Some(Label::Class(c)) = l { Some(c) } else { None };
            let classes: Vec<Option<usize>> = labels.into_iter().map(class).collect();
            unknown = classes.iter().filter(|c| c.is_none()).count();
            classification_metrics(&predicted, &classes)?
        }
    };
    Ok(Evaluation { metrics, rows: count, rows_with_unknown_class: unknown, failed: Vec::new() })
}

/// The value that training selects the best checkpoint by, greater is better: accuracy less a twentieth of the
/// log-loss, which breaks ties, or the negative root mean squared error of a regression.
pub(super) fn selection_score(metrics: &BTreeMap<String, f64>) -> f64 {
    if let Some(rmse) = metrics.get("rmse") {
        return -rmse;
    }
    let accuracy = metrics.get("f1_micro").or(metrics.get("accuracy")).copied().unwrap_or(0.0);
    accuracy - 0.05 * metrics.get("log_loss").copied().unwrap_or(0.0)
}
