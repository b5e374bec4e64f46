//! Training of a prediction model.

use super::{
    evaluation::{SELECTION_METRIC, measure, selection_score},
    head_ensemble::{HeadEnsemble, MIN_ENSEMBLE_ROWS},
    inference::{InferenceOptions, RowOutputs},
    loss::{BatchLoss, RowLabels},
    model::{Prediction, PreparedInputs},
    network::NetworkInput,
    target::{Label, Problem},
    training_state::{FUSED, GradientBlending, TrainingState, UnimodalLabels},
};
use crate::{
    Error, Result,
    batch::{BATCH_SIZE, SampleBatch},
    fit::{TaskTrainer, TrainingData, run_training},
    inputs::Standardizer,
    task::{FitContext, FitOutcome},
};
use mm_core::{
    DType, Device, LossOutput, Modality, Params, Processor, Source, Tensor, TrainingObjective,
    distributed::{process_group, rank_zero_first},
    no_grad,
};
use mm_data::{Batch, LoaderConfig, Manifest, Split};
use mm_train::{EvalMetrics, Run};
use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

/// Standardization is fitted on at most about this many rows, which is enough for a mean.
const MAX_STANDARDIZER_ROWS: usize = 20_000;

struct PredictionTrainer<'a> {
    model: &'a Prediction,
    manifest: &'a Manifest,
    inputs: &'a PreparedInputs,
    /// The label of each row of the manifest.
    labels: Vec<Option<Label>>,
    /// Validation rows with a label.
    valid: Vec<usize>,
    /// The trait's methods take `&self`.
    state: RefCell<TrainingState>,
}

impl<'a> PredictionTrainer<'a> {
    fn new(
        model: &'a Prediction,
        manifest: &'a Manifest,
        inputs: &'a PreparedInputs,
        labels: Vec<Option<Label>>,
        train_rows: &[usize],
    ) -> Result<Self> {
        let config = &model.config;
        let modalities: Vec<Modality> = model.modalities().cloned().collect();
        let mut state = TrainingState::default();
        if config.loss.unimodal_labels {
            // Of the training rows alone.
            let mut train = vec![None; labels.len()];
            train_rows.iter().for_each(|r| train[*r].clone_from(&labels[*r]));
            state.unimodal_labels = UnimodalLabels::new(&train, &modalities, &model.target);
            if state.unimodal_labels.is_none() {
                let found = "no training label with a sign";
                return Err(Error::invalid("loss.unimodal_labels", found, "a binary problem or regression"));
            }
        }
        if config.loss.gradient_blending {
            state.gradient_blending = Some(GradientBlending::new(&modalities));
        }
        let valid = model.labeled_rows(manifest, Split::Valid);
        if process_group().is_some() && config.loss.cutmix_alpha.get() > 0.0 {
            let found = "several processes, each of which has the images of its own rows alone";
            return Err(Error::invalid("loss.cutmix_alpha", found, "0, or one process"));
        }
        for (field, is_used, min_rows) in [
            ("loss.gradient_blending", config.loss.gradient_blending, 1),
            ("ensembling", config.ensembling.is_stacked(), MIN_ENSEMBLE_ROWS),
        ] {
            if is_used && valid.len() < min_rows {
                let found = format!("{} validation rows with a label", valid.len());
                return Err(Error::invalid(field, found, format!("at least {min_rows}"))
                    .with_hint("set data.split.valid = 0.2, or data.valid to a table"));
            }
        }
        Ok(Self { model, manifest, inputs, labels, valid, state: RefCell::new(state) })
    }

    /// The labels of rows as [`Target::loss`](super::Target) takes them.
    fn label_tensor(&self, rows: &[usize], device: Device) -> Result<Tensor> {
        let labels: Vec<Option<Label>> = rows.iter().map(|r| self.labels.get(*r).cloned().flatten()).collect();
        self.model.target.to_tensor(&labels, self.model.label_stats()?, device)
    }

    fn predict_valid(&self) -> Result<RowOutputs> {
        self.model.predict_rows(self.manifest, &self.valid, self.inputs, InferenceOptions::default())
    }

    /// The loss of each head.
    fn head_losses(&self, outputs: &RowOutputs) -> Result<BTreeMap<String, f64>> {
        let labels = self.label_tensor(&outputs.rows, Device::Cpu)?;
        let unimodal = outputs.unimodal.iter().map(|(m, (logits, flags))| (m.to_string(), logits, Some(flags)));
        let mut losses = BTreeMap::new();
        for (head, logits, flags) in std::iter::once((FUSED.to_owned(), &outputs.fused, None)).chain(unimodal) {
            let smoothing = self.model.config.loss.label_smoothing.get();
            if let Some(loss) = self.model.target.loss(logits, &labels, flags, smoothing)? {
                losses.insert(head, loss.to_f64()?);
            }
        }
        Ok(losses)
    }

    /// The ensemble of the heads, fitted on the validation rows where there are such.
    fn fit_ensemble(&self) -> Result<HeadEnsemble> {
        if self.valid.is_empty() {
            return Ok(HeadEnsemble::unfitted(self.model));
        }
        HeadEnsemble::fit(self.model, self.manifest, &self.predict_valid()?)
    }
}

impl TrainingObjective<Batch> for PredictionTrainer<'_> {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let model = self.model;
        let device = model.params.device();
        let labels = self.label_tensor(&batch.rows, device)?;
        let whole = batch.whole();
        let all_labels = self.label_tensor(&whole.rows, device)?;
        let parts: BTreeMap<_, _> =
            batch.modalities.iter().map(|(m, part)| (m, (part.input.clone(), part.rows.clone()))).collect();
        if parts.is_empty() {
            return Ok(None);
        }
        let mut state = self.state.borrow_mut();
        if let (Some(own), 0, true) = (&mut state.unimodal_labels, batch.index, train) {
            own.update()?;
        }
        let loss = BatchLoss {
            network: &model.network,
            target: &model.target,
            label_stats: model.label_stats()?,
            config: &model.config.loss,
        };
        let input = NetworkInput { parts, precomputed: &self.inputs.precomputed, items: &batch.items };
        let own = RowLabels { labels: &labels, rows: &batch.rows, items: &batch.items };
        let all = RowLabels { labels: &all_labels, rows: &whole.rows, items: &whole.items };
        loss.compute(input, own, all, &mut state, train)
    }

    fn state(&self) -> mm_core::Result<Vec<(String, Tensor)>> {
        self.state.borrow().state()
    }

    fn load_state(&self, find: &dyn Fn(&str) -> Option<Tensor>) -> mm_core::Result<()> {
        self.state.borrow_mut().load_state(find)
    }
}

impl TaskTrainer for PredictionTrainer<'_> {
    fn params(&self) -> &Params {
        &self.model.params
    }

    fn metric(&self) -> &str {
        SELECTION_METRIC
    }

    fn evaluate(&self) -> Result<Option<EvalMetrics>> {
        if self.valid.is_empty() {
            return Ok(None);
        }
        let model = self.model;
        let outputs = self.predict_valid()?;
        let values = model.target.probabilities(&outputs.fused, 1.0, model.label_stats()?)?;
        let evaluation = measure(&model.config, &model.target, self.manifest, &outputs.rows, &values)?;
        let mut metrics = evaluation.metrics.to_map();
        let score = selection_score(&metrics);
        if let Some(blending) = &mut self.state.borrow_mut().gradient_blending {
            let weights = blending.update(&self.head_losses(&outputs)?)?;
            metrics.extend(weights.into_iter().map(|(head, weight)| (format!("blending_weight_{head}"), weight)));
        }
        metrics.insert(SELECTION_METRIC.to_owned(), score);
        Ok(Some(metrics))
    }
}

/// Trains a model on its data set ([`Prediction::dataset`]) into a run folder.
pub(super) fn fit(
    model: &Prediction,
    manifest: &Arc<Manifest>,
    run: &mut Run,
    context: FitContext<'_>,
) -> Result<FitOutcome> {
    let labels = model.labels(manifest);
    let rows: Vec<usize> = manifest.rows_in_split(Split::Train).into_iter().filter(|r| labels[*r].is_some()).collect();
    warn_unknown_labels(model, manifest, &labels);
    if rows.len() < 2 {
        let found = format!("{} training rows with a label in {}", rows.len(), manifest.path.display());
        return Err(Error::invalid("label", found, "at least two"));
    }
    let all: Vec<usize> = (0..manifest.rows.len()).collect();
    let inputs = rank_zero_first(|| model.prepare(manifest, &all, context.stop, &mut *context.on_progress))?;
    let is_resumed = Run::checkpoint_path(run.folder(), "last").exists();
    if !is_resumed {
        fit_standardizers(model, manifest, &rows, &inputs)?;
        if model.target.problem == Problem::Regression {
            fit_label_stats(model, &labels, &rows)?;
        }
    }
    let trainer = PredictionTrainer::new(model, manifest, &inputs, labels, &rows)?;
    let common = &model.config.common;
    let loader = LoaderConfig { group_by_item: model.network.groups_items(), ..common.loader.clone() };
    let data = TrainingData { manifest: manifest.clone(), rows, processors: inputs.processors.clone(), loader };
    let outcome = run_training(&trainer, common, data, run, context)?;
    // The ensemble is of the best weights.
    Run::load_weights(run.folder(), &model.params)?;
    trainer.fit_ensemble()?.save(run.folder())?;
    Ok(outcome)
}

/// Says which training rows have a label that is none of the model's classes (or no number): they are left out.
fn warn_unknown_labels(model: &Prediction, manifest: &Manifest, labels: &[Option<Label>]) {
    let label = |row: usize| manifest.rows[row].cells.get(&model.config.label);
    let train = manifest.rows_in_split(Split::Train);
    let unknown: Vec<&str> = train.into_iter().filter(|r| labels[*r].is_none()).filter_map(label).collect();
    if let Some(first) = unknown.first() {
        tracing::warn!(
            "{} training rows have a label that the model does not know, such as `{first}`; they are left out",
            unknown.len()
        );
    }
}

/// Fits mean and standard deviation of regression targets on the training rows.
fn fit_label_stats(model: &Prediction, labels: &[Option<Label>], rows: &[usize]) -> Result<()> {
    let number = |row: &usize| if let Some(Label::Number(v)) = labels[*row] { Some(v) } else { None };
    let numbers: Vec<f64> = rows.iter().filter_map(number).collect();
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let std = (numbers.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / numbers.len() as f64).sqrt();
    model.set_label_stats(mean, std.max(1e-9))
}

/// Fits the standardization of each input on the features of the training rows.
fn fit_standardizers(model: &Prediction, manifest: &Manifest, rows: &[usize], inputs: &PreparedInputs) -> Result<()> {
    let step = rows.len().div_ceil(MAX_STANDARDIZER_ROWS).max(1);
    for (modality, branch) in &model.network.branches {
        let (Some(standardizer), Some(processor)) = (&branch.standardizer, inputs.processors.get(modality)) else {
            continue;
        };
        let sources: Vec<&Source> =
            rows.iter().step_by(step).filter_map(|r| manifest.rows[*r].values.get(modality)?.first()).collect();
        if !fit_standardizer(standardizer, model, modality, processor.as_ref(), &sources, inputs)? {
            let found = "no training row whose value can be read";
            return Err(Error::invalid(format!("inputs.{modality}"), found, "at least one"));
        }
    }
    Ok(())
}

/// Fits one standardizer on the (unmasked) features of values, in batches; `false` when no value can be read. A
/// constant feature gets a standard deviation of 1.
fn fit_standardizer(
    standardizer: &Standardizer,
    model: &Prediction,
    modality: &Modality,
    processor: &dyn Processor,
    sources: &[&Source],
    inputs: &PreparedInputs,
) -> Result<bool> {
    let branch = &model.network.branches[modality];
    let is_precomputed = inputs.precomputed.contains(modality);
    let (mut sum, mut squares, mut count) = (None::<Tensor>, None::<Tensor>, 0.0);
    for batch in sources.chunks(BATCH_SIZE) {
        let Some(input) = SampleBatch::read(processor, batch).collate(processor)? else { continue };
        let input = input.to_device(model.params.device())?;
        let x = no_grad(|| branch.encode(&input, is_precomputed, false))?;
        let x = match &x.mask {
            Some(mask) => x.values.flatten(0, 1)?.index_select(0, &mask.reshape(&[-1])?.nonzero()?)?,
            None => x.values.flatten(0, 1)?,
        };
        let x = x.to_dtype(DType::F64)?;
        count += x.size(0)? as f64;
        let (s, q) = (x.sum_dim(&[0], false)?, x.pow(2.0)?.sum_dim(&[0], false)?);
        sum = Some(sum.map_or(Ok(s.clone()), |t| t.add(&s))?);
        squares = Some(squares.map_or(Ok(q.clone()), |t| t.add(&q))?);
    }
    let (Some(sum), Some(squares)) = (sum, squares) else { return Ok(false) };
    let mean = sum.mul_scalar(1.0 / count)?;
    let std = squares.mul_scalar(1.0 / count)?.sub(&mean.pow(2.0)?)?.clamp_min(0.0)?.sqrt()?;
    let is_constant = std.lt(&Tensor::from_slice(&[1e-6f64])?.to_device(std.device())?)?;
    let std = std.masked_fill(&is_constant, 1.0)?.to_dtype(DType::F32)?;
    standardizer.set_stats(&mean.to_dtype(DType::F32)?, &std)?;
    Ok(true)
}
