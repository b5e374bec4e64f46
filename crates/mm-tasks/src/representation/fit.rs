//! Training of a representation model.

use super::{data::SplitData, model::Representation};
use crate::{
    Error, Result,
    fit::{TaskTrainer, TrainingData, run_training},
    task::{FitContext, FitOutcome},
};
use mm_core::{
    LossOutput, Modality, Params, Processor, Tensor, TrainingObjective,
    distributed::{on_rank_zero, process_group, rank_zero_first},
    no_grad,
    seed::manual_seed,
};
use mm_data::{Batch, Manifest, Split};
use mm_train::{EvalMetrics, Run};
use std::{collections::BTreeMap, sync::Arc};

/// The metric that selects the best weights: the negative loss on the validation rows.
const METRIC: &str = "negative_loss";

struct RepresentationTrainer<'a> {
    model: &'a Representation,
    /// The class of each row of the manifest.
    labels: Vec<i64>,
    /// Number of validation rows.
    num_valid: usize,
    /// Those rows, in rank 0 alone: a loss over all of them is not divided.
    valid: Option<SplitData>,
}

impl RepresentationTrainer<'_> {
    fn evaluate_rows(&self, valid: &SplitData) -> Result<Option<EvalMetrics>> {
        manual_seed(0);
        let mut set = valid.set.clone();
        set.labels = Some(Tensor::from_slice(&valid.labels)?.to_device(self.model.params.device())?);
        let Some((loss, parts)) = self.model.learner.loss(&set, false)? else { return Ok(None) };
        let mut values: EvalMetrics = parts.into_iter().collect();
        values.insert(METRIC.into(), -loss.to_f64()?);
        Ok(Some(values))
    }
}

impl TrainingObjective<Batch> for RepresentationTrainer<'_> {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let parts = batch.modalities.iter().map(|(m, p)| (m, &p.input.values, p.rows.as_slice()));
        let mut set = self.model.assemble(batch.rows.len(), &parts.collect::<Vec<_>>())?;
        self.model.fill_missing_modalities(&mut set)?;
        let labels: Vec<i64> = batch.rows.iter().map(|r| self.labels[*r]).collect();
        set.labels = Some(Tensor::from_slice(&labels)?.to_device(self.model.params.device())?);
        self.model.learner.loss(&set, train)
    }
}

impl TaskTrainer for RepresentationTrainer<'_> {
    fn params(&self) -> &Params {
        &self.model.params
    }

    fn metric(&self) -> &str {
        METRIC
    }

    fn evaluate(&self) -> Result<Option<EvalMetrics>> {
        if self.num_valid == 0 {
            return Ok(None);
        }
        // Bit for bit: a loss may be infinite, which JSON cannot say.
        let evaluate = || -> Result<Option<BTreeMap<String, u64>>> {
            let metrics = self.valid.as_ref().map(|valid| self.evaluate_rows(valid)).transpose()?.flatten();
            Ok(metrics.map(|m| m.into_iter().map(|(name, value)| (name, value.to_bits())).collect()))
        };
        let metrics = on_rank_zero(evaluate)?;
        Ok(metrics.map(|m| m.into_iter().map(|(name, bits)| (name, f64::from_bits(bits))).collect()))
    }
}

/// Fits the standardization of real values on the training rows.
fn fit_standardizers(
    model: &Representation,
    manifest: &Manifest,
    processors: &BTreeMap<Modality, Arc<dyn Processor>>,
) -> Result<()> {
    for (modality, input) in &model.inputs {
        let Some(standardizer) = &input.standardizer else { continue };
        let processor = BTreeMap::from([(modality.clone(), processors[modality].clone())]);
        let data = model.split_data(manifest, Split::Train, &processor)?;
        let Some((input, present)) = data.set.parts.get(modality) else {
            return Err(Error::invalid(
                format!("inputs.{modality}"),
                "no training row that can be read",
                "at least one",
            ));
        };
        standardizer.fit(&input.values.index_select(0, &present.nonzero()?)?)?;
    }
    Ok(())
}

/// Trains a model on its data set into a run folder.
pub(super) fn fit(
    model: &Representation,
    manifest: Manifest,
    run: &mut Run,
    context: FitContext<'_>,
) -> Result<FitOutcome> {
    if process_group().is_some() && !model.learner.supports_process_groups() {
        let kind = model.config.model.get("kind").and_then(toml::Value::as_str).unwrap_or_default();
        let expected = "one process, or a model whose loss is computed over the rows of all: autoencoder, vae, mae, multimodal_vae";
        return Err(Error::invalid("model.kind", format!("{kind} and several processes"), expected));
    }
    let manifest = Arc::new(manifest);
    let processors = rank_zero_first(|| model.prepare(&manifest, context.stop, &mut *context.on_progress))?;
    no_grad(|| fit_standardizers(model, &manifest, &processors))?;
    let is_first = process_group().is_none_or(|group| group.rank() == 0);
    let trainer = RepresentationTrainer {
        model,
        labels: manifest.rows.iter().map(|r| model.class_of(r)).collect(),
        num_valid: manifest.rows_in_split(Split::Valid).len(),
        valid: is_first.then(|| model.split_data(&manifest, Split::Valid, &processors)).transpose()?,
    };
    let rows = manifest.rows_in_split(Split::Train);
    let data = TrainingData { manifest, rows, processors, loader: model.config.common.loader.clone() };
    let mut outcome = run_training(&trainer, &model.config.common, data, run, context)?;
    // Validation rows are read outside the loader.
    outcome.failed.extend(trainer.valid.into_iter().flat_map(|valid| valid.failed));
    outcome.failed.sort();
    outcome.failed.dedup();
    Ok(outcome)
}
