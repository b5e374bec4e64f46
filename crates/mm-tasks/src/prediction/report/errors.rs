//! Confusions, calibration and the largest errors.

use super::{super::target::Problem, PredictedRow};
use crate::{
    Result, metrics,
    report::{
        chart::{Line, lines},
        curves::Chart,
        html_thumbnail,
    },
};
use mm_core::{Modality, Source};
use serde::Serialize;
use std::collections::BTreeMap;

/// A matrix is shown for at most this many classes.
const MAX_MATRIX_CLASSES: usize = 12;

/// Pairs of classes that are listed otherwise.
const MAX_PAIRS: usize = 15;

/// Rows with the largest errors that are shown.
const MAX_ERRORS: usize = 12;

/// Bins of the reliability diagram.
const NUM_BINS: usize = 10;

/// Characters of a text that are shown.
const MAX_TEXT: usize = 80;

/// How often classes were confused.
#[derive(Serialize)]
pub(super) struct Confusions {
    /// The confusion matrix; empty with many classes.
    matrix: Vec<Vec<String>>,
    /// Class, predicted class and number of rows, most frequent first; empty with few classes.
    pairs: Vec<Vec<String>>,
}

impl Confusions {
    pub(super) fn new(classes: &[String], rows: &[PredictedRow<'_>]) -> Self {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for row in rows {
            if let Some(label) = row.label {
                *counts.entry((label, row.prediction.class())).or_default() += 1;
            }
        }
        if classes.len() <= MAX_MATRIX_CLASSES {
            return Self { matrix: matrix(classes, &counts), pairs: Vec::new() };
        }
        let mut wrong: Vec<_> = counts.into_iter().filter(|((label, predicted), _)| label != predicted).collect();
        wrong.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut pairs = vec![["label", "prediction", "rows"].map(ToOwned::to_owned).to_vec()];
        let pair = |((label, predicted), count): ((&str, &str), usize)| {
            vec![label.to_owned(), predicted.to_owned(), count.to_string()]
        };
        pairs.extend(wrong.into_iter().take(MAX_PAIRS).map(pair));
        Self { matrix: Vec::new(), pairs }
    }
}

/// Labels in rows, predictions in columns.
fn matrix(classes: &[String], counts: &BTreeMap<(&str, &str), usize>) -> Vec<Vec<String>> {
    let mut table = vec![std::iter::once("label ↓ prediction →".to_owned()).chain(classes.iter().cloned()).collect()];
    for label in classes {
        let cell =
            |predicted: &String| counts.get(&(label.as_str(), predicted.as_str())).copied().unwrap_or(0).to_string();
        table.push(std::iter::once(label.clone()).chain(classes.iter().map(cell)).collect());
    }
    table
}

/// Accuracy of predictions by their probability.
pub(super) fn reliability_diagram(rows: &[PredictedRow<'_>]) -> Result<Chart> {
    // Sum of confidences, number of correct rows, number of rows.
    let mut bins = [(0.0, 0.0, 0usize); NUM_BINS];
    for row in rows {
        let Some(label) = row.label else { continue };
        let probabilities: Vec<f64> = row.prediction.probabilities.iter().map(|p| p.1).collect();
        let confidence = probabilities[metrics::argmax(&probabilities)];
        let bin = &mut bins[((confidence * NUM_BINS as f64) as usize).min(NUM_BINS - 1)];
        let is_correct = row.prediction.class() == label;
        *bin = (bin.0 + confidence, bin.1 + f64::from(u8::from(is_correct)), bin.2 + 1);
    }
    let used = bins.iter().filter(|(.., count)| *count > 0);
    let points = used.map(|(confidence, correct, n)| (confidence / *n as f64, correct / *n as f64)).collect();
    let series = [
        Line { name: "this model".into(), points },
        Line { name: "perfect calibration".into(), points: vec![(0.0, 0.0), (1.0, 1.0)] },
    ];
    let svg = lines(&series, "probability of the prediction", "accuracy")?;
    Ok(Chart { svg, caption: "accuracy against probability".into() })
}

/// A row that was predicted wrong.
#[derive(Serialize)]
pub(super) struct ErrorRow {
    id: String,
    /// The texts of the row.
    texts: Vec<String>,
    /// The image as an `<img>` element; empty without one.
    image: String,
    label: String,
    prediction: String,
    /// The probability of the prediction, or the absolute error of a regression.
    size: String,
}

/// The most confident wrong predictions, or the largest absolute errors of a regression.
pub(super) fn largest_errors(problem: Problem, rows: &[PredictedRow<'_>]) -> Vec<ErrorRow> {
    let error = |row: &PredictedRow<'_>| -> Option<f64> {
        let label = row.label?;
        match problem {
            Problem::Regression => Some((row.prediction.prediction.as_f64()? - label.parse::<f64>().ok()?).abs()),
            Problem::Multilabel => None,
            _ => (row.prediction.class() != label).then(|| row.prediction.confidence()),
        }
    };
    let mut wrong: Vec<(f64, &PredictedRow<'_>)> = rows.iter().filter_map(|row| Some((error(row)?, row))).collect();
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    wrong.into_iter().take(MAX_ERRORS).map(|(size, row)| ErrorRow::new(row, size)).collect()
}

impl ErrorRow {
    fn new(row: &PredictedRow<'_>, size: f64) -> Self {
        let PredictedRow { row, label, prediction, .. } = row;
        let text = |values: &Vec<Source>| match values.first() {
            Some(Source::Text(text)) => Some(text.chars().take(MAX_TEXT).collect()),
            _ => None,
        };
        let image = match row.values.get(&Modality::IMAGE).and_then(|values| values.first()) {
            Some(image @ (Source::Path(_) | Source::Bytes(_))) => html_thumbnail(image, &row.id),
            _ => String::new(),
        };
        let number = prediction.prediction.as_f64().map(|v| format!("{v:.3}"));
        Self {
            id: row.id.clone(),
            texts: row.values.values().filter_map(text).collect(),
            image,
            label: label.unwrap_or_default().to_owned(),
            prediction: number.unwrap_or_else(|| prediction.class().to_owned()),
            size: format!("{size:.3}"),
        }
    }
}
