//! The training of the task: its loss, and the metric that selects the best weights.

use super::model::TemplateName;
use mm_core::{LossOutput, Params, Tensor, TrainingObjective};
use mm_data::{Batch, Manifest, Split};
use mm_tasks::{
    Result,
    config::TaskConfig,
    fit::{TaskTrainer, TrainingData, run_training},
    task::{FitContext, FitOutcome},
};
use mm_train::{EvalMetrics, Run};
use std::{collections::BTreeMap, sync::Arc};

struct Training<'a> {
    model: &'a TemplateName,
    manifest: Arc<Manifest>,
    /// Validation rows with a number; empty where there are none.
    valid: Vec<usize>,
}

impl TrainingObjective<Batch> for Training<'_> {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let TemplateName { config, params, statistics: [mean, deviation], .. } = self.model;
        let Some(part) = batch.modalities.get(&config.modality) else { return Ok(None) };
        let number = |row: &usize| config.number(&self.manifest.rows[batch.rows[*row]]);
        let numbers: Vec<f32> = part.rows.iter().filter_map(number).map(|v| ((v - mean) / deviation) as f32).collect();
        let targets = Tensor::from_slice(&numbers)?.to_device(params.device())?;
        let predicted = self.model.forward(&part.input.to_device(params.device())?, train)?;
        Ok(Some((predicted.sub(&targets)?.pow(2.0)?.mean()?, Vec::new())))
    }
}

impl TaskTrainer for Training<'_> {
    fn params(&self) -> &Params {
        &self.model.params
    }

    fn metric(&self) -> &'static str {
        "negative_mae"
    }

    fn evaluate(&self) -> Result<Option<EvalMetrics>> {
        if self.valid.is_empty() {
            return Ok(None);
        }
        let predicted = self.model.predict(&self.manifest, self.valid.clone())?;
        let mae = predicted.iter().map(|(p, t)| (p - t).abs()).sum::<f64>() / predicted.len().max(1) as f64;
        Ok(Some(BTreeMap::from([("mae".to_owned(), mae), ("negative_mae".to_owned(), -mae)])))
    }
}

/// Trains the model into a run folder.
pub(super) fn fit(
    model: &TemplateName,
    manifest: Arc<Manifest>,
    run: &mut Run,
    context: FitContext<'_>,
) -> Result<FitOutcome> {
    let common = model.config.common();
    let data = TrainingData {
        rows: model.config.rows(&manifest, Split::Train)?,
        processors: BTreeMap::from([(model.config.modality.clone(), model.encoder.processor.clone())]),
        loader: common.loader.clone(),
        manifest: manifest.clone(),
    };
    // Without validation rows the last weights are used.
    let valid = model.config.rows(&manifest, Split::Valid).unwrap_or_default();
    run_training(&Training { model, manifest, valid }, common, data, run, context)
}
