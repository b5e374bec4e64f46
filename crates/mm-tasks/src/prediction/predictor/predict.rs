//! Predictions for rows of a table and for single values.

use super::{
    super::{inference::InferenceOptions, network::Saliency, target::Problem},
    Predictor,
};
use crate::{Error, Result, metrics};
use mm_core::{Modality, Source};
use mm_data::{Columns, FailedSample, Manifest, Row, Split};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The prediction for one row.
#[derive(Debug, Clone)]
pub struct RowPrediction {
    /// The row in the file, counted from 1.
    pub row: usize,
    /// The id.
    pub id: String,
    /// The most probable class, the list of labels with a probability of at least 0.5, or the number.
    pub prediction: Value,
    /// The probability of each class or label; empty in a regression.
    pub probabilities: Vec<(String, f64)>,
    /// The modalities that it had.
    pub present: Vec<Modality>,
}

impl RowPrediction {
    /// The prediction as a JSON object.
    pub fn to_json(&self) -> Value {
        let probabilities: Map<String, Value> = self.probabilities.iter().map(|(c, p)| (c.clone(), json!(p))).collect();
        let present: Vec<&str> = self.present.iter().map(Modality::name).collect();
        json!({
            "row": self.row, "id": self.id, "prediction": self.prediction, "probabilities": probabilities,
            "present": present,
        })
    }

    /// The predicted class; empty in a regression and for several labels.
    pub(in super::super) fn class(&self) -> &str {
        self.prediction.as_str().unwrap_or_default()
    }

    /// The largest probability.
    pub(in super::super) fn confidence(&self) -> f64 {
        self.probabilities.iter().map(|p| p.1).fold(0.0, f64::max)
    }
}

/// The prediction for values that are not in a table.
#[derive(Debug, Clone)]
pub struct ValuePrediction {
    /// The probability of each class.
    pub probabilities: Vec<f64>,
    /// The logit of each class, of the fused head.
    pub logits: Vec<f64>,
    /// How much each position of the inputs contributed; empty unless requested.
    pub saliency: Saliency,
}

impl Predictor {
    /// Predictions for rows without the modalities in `exclude`, sorted by row, and the values that could not be read.
    ///
    /// # Errors
    /// When the network fails.
    pub fn predict(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        exclude: &[Modality],
    ) -> Result<(Vec<RowPrediction>, Vec<FailedSample>)> {
        let found = self.combine(manifest, rows, InferenceOptions { exclude, ..InferenceOptions::default() })?;
        let columns = found.values.size(1)?.max(1) as usize;
        let values = found.values.to_vec::<f64>()?;
        let mut out = Vec::new();
        for ((row, values), present) in found.rows.iter().zip(values.chunks(columns)).zip(found.present) {
            let row = &manifest.rows[*row];
            let (prediction, probabilities) = self.decide(values);
            out.push(RowPrediction { row: row.number, id: row.id.clone(), prediction, probabilities, present });
        }
        out.sort_by_key(|p| p.row);
        Ok((out, found.failed))
    }

    /// The prediction of a row, and the probabilities of the classes.
    fn decide(&self, values: &[f64]) -> (Value, Vec<(String, f64)>) {
        let target = self.target();
        let prediction = match target.problem {
            Problem::Regression => json!(values[0]),
            Problem::Multilabel => {
                let labels = target.classes.iter().zip(values).filter(|(_, p)| **p >= 0.5);
                json!(labels.map(|(c, _)| c).collect::<Vec<_>>())
            }
            _ => json!(target.classes[metrics::argmax(values)]),
        };
        (prediction, target.classes.iter().cloned().zip(values.iter().copied()).collect())
    }

    /// Predictions for values by modality that are not in a table; with the saliency of the first member when
    /// `explain`.
    ///
    /// # Errors
    /// When a value cannot be read.
    pub fn predict_values(
        &self,
        inputs: Vec<BTreeMap<Modality, Source>>,
        explain: bool,
    ) -> Result<Vec<ValuePrediction>> {
        let row = |(index, values): (usize, BTreeMap<Modality, Source>)| {
            let values = values.into_iter().map(|(m, v)| (m, vec![v]));
            Row { split: Split::Test, ..Row::new(index.to_string(), index + 1, values) }
        };
        let rows: Vec<Row> = inputs.into_iter().enumerate().map(row).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        let manifest = Manifest { path: "values".into(), rows, columns: Columns::default() };
        let options = InferenceOptions { saliency: explain, ..InferenceOptions::default() };
        let found = self.combine(&manifest, &all, options)?;
        if let Some(failed) = found.failed.first() {
            return Err(Error::Core(mm_core::Error::Sample(failed.reason.clone())));
        }
        let classes = found.values.size(1)? as usize;
        let (probabilities, logits) = (found.values.to_vec::<f64>()?, found.fused.to_vec::<f64>()?);
        let outputs = (logits.len() / all.len().max(1)).max(1);
        let saliency = found.saliency.into_iter().chain(std::iter::repeat_with(Saliency::default));
        let value = |((probabilities, logits), saliency): ((&[f64], &[f64]), _)| ValuePrediction {
            probabilities: probabilities.to_vec(),
            logits: logits.to_vec(),
            saliency,
        };
        Ok(probabilities.chunks(classes).zip(logits.chunks(outputs)).zip(saliency).map(value).collect())
    }
}
