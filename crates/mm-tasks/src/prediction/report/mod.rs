//! The HTML report of prediction runs: metrics, contributions of the modalities, errors, calibration and attributions.

mod attributions;
mod contributions;
mod errors;

use super::{
    predictor::{ENSEMBLE_FILE, Predictor, RowPrediction, member_dir},
    target::Problem,
};
use crate::{
    Error, Result, TaskContext,
    metrics::{Metrics, metrics_table},
    report::{Report, curves::curves, page::render},
};
use mm_data::{FailedSample, Manifest, Row, Split};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Failed values that are listed.
const MAX_FAILED: usize = 20;

/// Rows of a run with their predictions.
struct ReportData {
    predictor: Predictor,
    manifest: Manifest,
    /// The labeled rows of the split.
    rows: Vec<usize>,
    split: Split,
    predictions: Vec<RowPrediction>,
    failed: Vec<FailedSample>,
}

/// A row with its label and prediction.
struct PredictedRow<'a> {
    /// The index in the manifest.
    index: usize,
    row: &'a Row,
    label: Option<&'a str>,
    prediction: &'a RowPrediction,
}

impl ReportData {
    /// Opens a run on a split; a run without rows there on its validation rows.
    fn open(run: &Path, split: Split, context: &TaskContext<'_>) -> Result<(Self, Metrics)> {
        for split in [split, Split::Valid] {
            let predictor = Predictor::open_for_split(run, split, context.encoders, context.device)?;
            let manifest = predictor.dataset()?;
            let rows = manifest.rows_in_split(split);
            if rows.is_empty() {
                continue;
            }
            let has_label = |row: &usize| manifest.rows[*row].cells.get(predictor.label_column()).is_some();
            let rows: Vec<usize> = rows.into_iter().filter(has_label).collect();
            let mut metrics = predictor.evaluate(&manifest, &rows, &[])?.metrics;
            predictor.add_baselines(&mut metrics, &manifest, &rows)?;
            let (predictions, failed) = (Vec::new(), Vec::new());
            return Ok((Self { predictor, manifest, rows, split, predictions, failed }, metrics));
        }
        let found = format!("neither {split} nor validation rows in {}", run.display());
        Err(Error::invalid("split", found, "rows that were held out of training"))
    }

    fn predict(&mut self) -> Result<()> {
        (self.predictions, self.failed) = self.predictor.predict(&self.manifest, &self.rows, &[])?;
        Ok(())
    }

    /// The rows with their labels and predictions.
    fn predicted_rows(&self) -> Vec<PredictedRow<'_>> {
        let by_id: BTreeMap<&str, usize> =
            self.manifest.rows.iter().enumerate().map(|(index, row)| (row.id.as_str(), index)).collect();
        let row = |prediction| -> Option<PredictedRow<'_>> {
            let prediction: &RowPrediction = prediction;
            let index = *by_id.get(prediction.id.as_str())?;
            let row = &self.manifest.rows[index];
            let target = self.predictor.target();
            let label = row.cells.get(self.predictor.label_column()).map(|label| target.class_name(label));
            Some(PredictedRow { index, row, label, prediction })
        };
        self.predictions.iter().filter_map(row).collect()
    }

    /// The failed values as a table; empty without such.
    fn failed_table(&self) -> Vec<Vec<String>> {
        if self.failed.is_empty() {
            return Vec::new();
        }
        let mut table = vec![["row", "modality", "reason"].map(ToOwned::to_owned).to_vec()];
        let row = |f: &FailedSample| vec![f.row.to_string(), f.modality.clone(), f.reason.clone()];
        table.extend(self.failed.iter().take(MAX_FAILED).map(row));
        table
    }
}

/// Reports runs that differ in their seed alone: metrics with mean and standard deviation, the rest of the first run.
pub(super) fn build_report(runs: &[PathBuf], split: Split, context: &TaskContext<'_>) -> Result<Report> {
    let (mut metrics, mut first) = (Vec::new(), None);
    for run in runs {
        let (data, found) = ReportData::open(run, split, context)?;
        metrics.push(found);
        first.get_or_insert(data);
    }
    let (Some(mut data), Some(run)) = (first, runs.first()) else {
        return Err(Error::invalid("runs", "none", "at least one run folder"));
    };
    data.predict()?;
    let predictor = &data.predictor;
    let rows = data.predicted_rows();
    let is_classes = predictor.target().is_classes();
    let member = if run.join(ENSEMBLE_FILE).exists() { run.join(member_dir(0)) } else { run.clone() };
    let modalities: Vec<String> = predictor.modalities().iter().map(ToString::to_string).collect();
    let confusions = is_classes.then(|| errors::Confusions::new(&predictor.target().classes, &rows));
    let reliability = is_classes.then(|| errors::reliability_diagram(&rows)).transpose()?;
    let html = render(
        "prediction.html",
        json!({
            "title": format!("Prediction of {}", predictor.label_column()),
            "label": predictor.label_column(),
            "problem": predictor.target().problem.name(),
            "modalities": modalities.join(", "),
            "rows": data.rows.len(),
            "split": data.split,
            "runs": runs.len(),
            "metrics": metrics_table(&metrics),
            "contributions": contributions::contributions(predictor, &data.manifest, &data.rows)?,
            "confusions": confusions,
            "reliability": reliability,
            "attributions": attributions::attributions(predictor, &data.manifest, &rows)?,
            "errors": errors::largest_errors(predictor.target().problem, &rows),
            "num_failed": data.failed.len(),
            "failed": data.failed_table(),
            "curves": curves(&member)?,
        }),
    )?;
    Ok(Report { html, evaluations: metrics.iter().map(|metrics| json!({"metrics": metrics})).collect() })
}

/// The name of the metric by which subsets of modalities are compared, and its value.
fn main_metric(problem: Problem, metrics: &Metrics) -> (&'static str, f64) {
    let name = if problem == Problem::Regression { "R²" } else { "accuracy" };
    (name, metrics.get("accuracy").or(metrics.get("r2")).unwrap_or(0.0))
}
