//! Training: cross entropy of the target tokens, or binary cross entropy of the labels of a classifier.

use super::{
    MODEL_DIR,
    config::target_modality,
    model::{Finetuning, question, targets},
    tokens::pair_key,
};
use crate::{
    Error, Result,
    fit::{TaskTrainer, TrainingData, run_training},
    task::{FitContext, FitOutcome},
};
use mm_core::{
    DType, LossOutput, Modality, Params, Processor, Source, TrainingObjective,
    distributed::{map_over_ranks, mean_by_count},
};
use mm_data::{Batch, Manifest, Split};
use mm_reason::TrainBatch;
use mm_train::{EvalMetrics, Run};
use std::{collections::BTreeMap, sync::Arc};

/// The target of positions that the loss ignores.
const IGNORE_INDEX: i64 = -100;

struct FinetuningTrainer<'a> {
    model: &'a Finetuning,
    /// The data set, with target texts.
    manifest: &'a Manifest,
}

impl TrainingObjective<Batch> for FinetuningTrainer<'_> {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let (model, pipeline) = (self.model, &self.model.loaded.pipeline);
        let target = target_modality();
        let mut modalities = vec![&model.modality, &target];
        modalities.extend(model.config.answer_column.as_ref().map(|_| &Modality::TEXT));
        let Some((_, inputs)) = batch.rows_with_all(&modalities, pipeline.params.device())? else { return Ok(None) };
        let [values, targets, question @ ..] = &inputs[..] else { return Ok(None) };
        let targets = &targets.values; // [rows, tokens, 2]
        let (ids, is_target) = (targets.select(2, 0)?, targets.select(2, 1)?);
        let mut input = TrainBatch {
            modality: &model.modality,
            values: &values.values,
            question: question.first(),
            decoder_input_ids: None,
            train,
        };
        if !pipeline.can_generate() {
            let logits = pipeline.forward(&input)?.to_dtype(DType::F32)?;
            let label = ids.select(1, 0)?; // -1 where the answer is not a label
            let classes = logits.size(1)?;
            let one_hot = label.clamp_min(0.0)?.to_dtype(DType::I64)?.one_hot(classes)?.to_dtype(DType::F32)?;
            let one_hot = one_hot.mul(&label.gt_scalar(-0.5)?.to_dtype(DType::F32)?.unsqueeze(1)?)?;
            // Binary cross entropy, summed over the labels, as ViLT was trained.
            let loss = logits.softplus()?.sub(&logits.mul(&one_hot)?)?.mean()?.mul_scalar(classes as f64)?;
            return Ok(Some((mean_by_count(&loss, logits.size(0)? as f64)?, Vec::new())));
        }
        let length = ids.size(1)? - 1;
        let decoder_input_ids = ids.narrow(1, 0, length)?.contiguous()?;
        input.decoder_input_ids = Some(&decoder_input_ids);
        let logits = pipeline.forward(&input)?.to_dtype(DType::F32)?;
        let is_target = is_target.narrow(1, 1, length)?.to_dtype(DType::F32)?;
        let ignored = is_target.neg()?.add_scalar(1.0)?.mul_scalar(IGNORE_INDEX as f64)?;
        let labels = ids.narrow(1, 1, length)?.to_dtype(DType::F32)?.mul(&is_target)?.add(&ignored)?;
        let labels = labels.to_dtype(DType::I64)?.contiguous()?.reshape(&[-1])?;
        let smoothing = model.config.label_smoothing.get();
        let loss = logits.flatten(0, 1)?.cross_entropy(&labels, IGNORE_INDEX, smoothing)?;
        let loss = mean_by_count(&loss, is_target.sum()?.to_f64()?)?;
        Ok(Some((loss, Vec::new())))
    }
}

impl TaskTrainer for FinetuningTrainer<'_> {
    fn params(&self) -> &Params {
        &self.model.loaded.pipeline.params
    }

    fn metric(&self) -> &str {
        match &self.model.config.answer_column {
            Some(_) => "accuracy",
            None if self.model.modality == Modality::AUDIO => "word_accuracy",
            None => "cider_d",
        }
    }

    fn evaluate(&self) -> Result<Option<EvalMetrics>> {
        let rows = self.manifest.rows_in_split(Split::Valid);
        if rows.is_empty() {
            return Ok(None);
        }
        // Processes that train together have a part of the batches each.
        let batches = rows.chunks(self.model.loaded.pipeline.max_batch_size());
        let texts =
            map_over_ranks(batches, |rows| Ok::<_, Error>(self.model.generate_rows(self.manifest, rows)?.texts))?;
        Ok(Some(self.model.text_metrics(self.manifest, &texts.concat()).to_map()))
    }
}

/// Trains on a data set into a run folder, and saves the model into [`MODEL_DIR`].
pub(super) fn fit(
    model: &Finetuning,
    manifest: Manifest,
    run: &mut Run,
    context: FitContext<'_>,
) -> Result<FitOutcome> {
    let (rows, target) = (manifest.rows.len(), target_modality());
    (context.on_progress)("tokenizing", 0, rows);
    let tokens = model.tokenize(&manifest)?;
    (context.on_progress)("tokenizing", rows, rows);
    let mut keyed = manifest.clone();
    for row in 0..rows {
        let question = question(&manifest, row);
        let keys = targets(&manifest, row).map(|t| Source::Text(pair_key(question, t))).collect();
        keyed.rows[row].values.insert(target.clone(), keys);
    }
    let input = model.loaded.pipeline.train_processor(&model.modality)?.clone();
    let mut processors: BTreeMap<Modality, Arc<dyn Processor>> =
        BTreeMap::from([(model.modality.clone(), input), (target, Arc::new(tokens.targets) as Arc<dyn Processor>)]);
    if model.config.answer_column.is_some() {
        processors.insert(Modality::TEXT, Arc::new(tokens.questions));
    }
    let loader = model.config.common.loader.clone();
    let train = keyed.rows_in_split(Split::Train);
    let data = TrainingData { manifest: Arc::new(keyed), rows: train, processors, loader };
    let trainer = FinetuningTrainer { model, manifest: &manifest };
    let outcome = run_training(&trainer, &model.config.common, data, run, context)?;
    Run::load_weights(run.folder(), &model.loaded.pipeline.params)?;
    model.save(&run.folder().join(MODEL_DIR))?;
    Ok(outcome)
}
