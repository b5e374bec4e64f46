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
    /// Rows whose label is (or contains) a class that training did not have; they count as wrong.
    pub rows_with_unknown_class: usize,
    /// Rows whose label is no number, in a regression; they are left out.
    pub rows_left_out: usize,
    /// Values that could not be read; their rows were predicted without them.
    pub failed: Vec<FailedSample>,
}

impl Evaluation {
    /// The evaluation as JSON and as a table; `split` is the split of the model's own data, `None` for the rows of
    /// another table.
    pub fn report(&self, split: Option<Split>) -> EvaluationReport {
        self.notes().iter().for_each(|note| tracing::warn!("{note}"));
        let json = json!({
            "split": split, "rows": self.rows, "rows_with_unknown_class": self.rows_with_unknown_class,
            "rows_left_out": self.rows_left_out, "metrics": self.metrics,
            "failed": failed_to_json(&self.failed),
        });
        EvaluationReport { json, table: metrics_table(std::slice::from_ref(&self.metrics)) }
    }
}

impl Evaluation {
    /// What is special about the labels, in words.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.rows_with_unknown_class > 0 {
            notes.push(format!(
                "{} of {} rows have a label that training did not have; they count as wrong",
                self.rows_with_unknown_class, self.rows
            ));
        }
        if self.rows_left_out > 0 {
            notes.push(format!("{} rows have a label that is no number; they are left out", self.rows_left_out));
        }
        notes
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
    let (mut unknown, mut left_out) = (0, 0);
    for (row, own) in rows.iter().zip(all.chunks(columns.max(1))) {
        let Some(text) = manifest.rows[*row].cells.get(&config.label) else { continue };
        let is_unknown = target.is_unknown(text);
        if is_unknown && target.problem == Problem::Regression {
            left_out += 1;
            continue;
        }
        unknown += usize::from(is_unknown);
        predicted.push(own.to_vec());
        labels.push(target.encode(text));
    }
    if labels.is_empty() {
        return Err(Error::Label {
            column: config.label.clone(),
            row: None,
            found: format!("no row with a label in {}", manifest.path.display()),
            expected: if left_out > 0 { "at least one that is a number" } else { "at least one" }.into(),
        });
    }
    let count = labels.len();
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
            classification_metrics(&predicted, &classes)?
        }
    };
    Ok(Evaluation {
        metrics,
        rows: count,
        rows_with_unknown_class: unknown,
        rows_left_out: left_out,
        failed: Vec::new(),
    })
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
