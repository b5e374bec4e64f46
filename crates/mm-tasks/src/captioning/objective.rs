//! Training of a captioner: cross entropy of the next word, with scheduled sampling and self-critical training.

use super::{features::InputFeatures, model::Captioning};
use crate::{
    Result,
    batch::texts,
    fit::{TaskTrainer, TrainingData, run_training},
    metrics::{Cider, caption_tokens},
    task::{FitContext, FitOutcome},
};
use mm_core::{
    DType, Device, Features, LossOutput, Modality, Params, Processor, Tensor, TrainingObjective,
    distributed::{mean_by_count, rand_rows, rank_zero_first},
    no_grad,
};
use mm_data::{Batch, Manifest, Split};
use mm_reason::{
    captioner::{BOS, EOS},
    generate::{GenerationConfig, LogitsProcessors},
};
use mm_train::{EvalMetrics, Run};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The metric that selects the best weights.
const METRIC: &str = "cider_d";

struct CaptioningTrainer<'a> {
    model: &'a Captioning,
    manifest: &'a Manifest,
    input: &'a InputFeatures,
    /// Reference captions of the training rows, for self-critical training.
    references: HashMap<usize, Vec<Vec<String>>>,
    cider: Cider,
}

impl CaptioningTrainer<'_> {
    /// The input words, some replaced by the model's own predictions (scheduled sampling).
    fn sample_inputs(&self, features: &Features, inputs: &Tensor) -> mm_core::Result<Tensor> {
        let (length, rate) = (inputs.size(1)?, self.model.config.scheduled_sampling.get());
        if rate == 0.0 || length < 2 {
            return Ok(inputs.clone());
        }
        let predicted = no_grad(|| self.model.captioner.teacher_forcing(features, inputs, false)?.argmax(2))?;
        // The prediction after a word is the input at the next position; the first token stays.
        let predicted = Tensor::cat(&[&inputs.narrow(1, 0, 1)?, &predicted.narrow(1, 0, length - 1)?], 1)?;
        let random = rand_rows(&inputs.shape(), inputs.device())?;
        let replaced = random.gt_scalar(1.0 - rate)?.logical_and(&inputs.gt_scalar(EOS as f64)?)?;
        inputs.add(&predicted.sub(inputs)?.mul(&replaced.to_dtype(DType::I64)?)?)
    }

    /// The self-critical loss: log-likelihood of sampled captions, weighted by their CIDEr-D minus the greedy
    /// caption's.
    fn self_critical(&self, features: &Features, rows: &[usize], train: bool) -> mm_core::Result<LossOutput> {
        let model = self.model;
        let seed = Tensor::rand(&[1], DType::F64, Device::Cpu)?.to_f64()?.to_bits();
        let greedy = GenerationConfig { num_beams: 1, ..model.generation() };
        let sampling = GenerationConfig { do_sample: true, seed, ..greedy.clone() };
        let generate = |config: &GenerationConfig| -> mm_core::Result<Vec<Vec<i64>>> {
            let sequences = model.generate_tokens(features, config, &LogitsProcessors::default())?;
            Ok(sequences.into_iter().map(|g| g.token_ids).collect())
        };
        let (greedy, sampled) = (generate(&greedy)?, generate(&sampling)?);
        let score = |ids: &[i64], row: &usize| {
            let words: Vec<String> = model.tokenizer.decode(ids).split(' ').map(ToOwned::to_owned).collect();
            self.references.get(row).map_or(0.0, |references| self.cider.score(&words, references))
        };
        let pairs = rows.iter().zip(greedy.iter().zip(&sampled));
        let advantages: Vec<f32> = pairs.map(|(row, (g, s))| (score(s, row) - score(g, row)) as f32).collect();
        let length = sampled.iter().map(Vec::len).max().unwrap_or(0) + 2;
        let padded = |ids: &Vec<i64>| {
            let mut all: Vec<i64> = std::iter::once(BOS).chain(ids.iter().copied()).chain([EOS]).collect();
            all.resize(length, 0);
            all
        };
        let ids: Vec<i64> = sampled.iter().flat_map(padded).collect();
        let ids =
            Tensor::from_vec(&ids, &[sampled.len() as i64, length as i64])?.to_device(features.values.device())?;
        let steps = length as i64 - 1;
        let logits = model.captioner.teacher_forcing(features, &ids.narrow(1, 0, steps)?.contiguous()?, train)?;
        let next = ids.narrow(1, 1, steps)?;
        let log_probs = logits.to_dtype(DType::F32)?.log_softmax(-1)?.gather(2, &next.unsqueeze(2)?)?.squeeze(2)?;
        let mask = next.gt_scalar(0.5)?.to_dtype(DType::F32)?;
        let weights = Tensor::from_slice(&advantages)?.to_device(features.values.device())?.unsqueeze(1)?;
        let loss = log_probs.mul(&mask)?.mul(&weights)?.sum()?.div(&mask.sum()?)?.neg()?;
        let loss = mean_by_count(&loss, mask.sum()?.to_f64()?)?;
        let mean = f64::from(advantages.iter().sum::<f32>()) / advantages.len().max(1) as f64;
        Ok((loss, vec![("cider_d_above_greedy".to_owned(), mean)]))
    }
}

impl TrainingObjective<Batch> for CaptioningTrainer<'_> {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        let model = self.model;
        let both = [&model.modality, &Modality::TEXT];
        let Some((rows, inputs)) = batch.rows_with_all(&both, model.params.device())? else { return Ok(None) };
        let [values, captions] = &inputs[..] else { return Ok(None) };
        let features = model.encode(values, self.input.precomputed, train)?;
        let ids = &captions.values; // [rows, words], zero after the end
        let weight = if train { model.config.self_critical_weight.get() } else { 0.0 };
        let rows: Vec<usize> = rows.iter().map(|n| batch.rows[*n]).collect();
        let critical = (weight > 0.0).then(|| self.self_critical(&features, &rows, train)).transpose()?;
        if weight >= 1.0 {
            return Ok(critical);
        }
        let length = ids.size(1)? - 1;
        let inputs = ids.narrow(1, 0, length)?.contiguous()?;
        let inputs = if train { self.sample_inputs(&features, &inputs)? } else { inputs };
        let logits = model.captioner.teacher_forcing(&features, &inputs, train)?;
        let targets = ids.narrow(1, 1, length)?.contiguous()?.reshape(&[-1])?;
        let smoothing = model.config.label_smoothing.get();
        let loss = logits.flatten(0, 1)?.to_dtype(DType::F32)?.cross_entropy(&targets, 0, smoothing)?;
        let loss = mean_by_count(&loss, targets.gt_scalar(0.5)?.sum()?.to_f64()?)?;
        Ok(Some(match critical {
            Some((critical, logged)) => (loss.mul_scalar(1.0 - weight)?.add(&critical.mul_scalar(weight)?)?, logged),
            None => (loss, Vec::new()),
        }))
    }
}

impl TaskTrainer for CaptioningTrainer<'_> {
    fn params(&self) -> &Params {
        &self.model.params
    }

    fn metric(&self) -> &str {
        METRIC
    }

    fn evaluate(&self) -> Result<Option<EvalMetrics>> {
        let rows = self.manifest.rows_in_split(Split::Valid);
        if rows.is_empty() {
            return Ok(None);
        }
        let captions = self.model.caption_rows(self.manifest, &rows, self.input)?;
        Ok(Some(captions.metrics(self.manifest, None).to_map()))
    }
}

/// Trains a model on its data set into a run folder.
pub(super) fn fit(
    model: &Captioning,
    manifest: Manifest,
    run: &mut Run,
    context: FitContext<'_>,
) -> Result<FitOutcome> {
    let manifest = Arc::new(manifest);
    let input = rank_zero_first(|| model.input_features(&manifest, context.stop, &mut *context.on_progress))?;
    let tokenizer: Arc<dyn Processor> = Arc::new(model.new_tokenizer());
    let processors = BTreeMap::from([(model.modality.clone(), input.processor.clone()), (Modality::TEXT, tokenizer)]);
    let rows = manifest.rows_in_split(Split::Train);
    let references: HashMap<usize, Vec<Vec<String>>> = if model.config.self_critical_weight.get() > 0.0 {
        let tokens = |row| texts(&manifest, row, &Modality::TEXT).map(caption_tokens).collect();
        rows.iter().map(|row| (*row, tokens(*row))).collect()
    } else {
        HashMap::new()
    };
    let cider = Cider::new(references.values().map(Vec::as_slice));
    let trainer = CaptioningTrainer { model, manifest: &manifest, input: &input, references, cider };
    let loader = model.config.common.loader.clone();
    let data = TrainingData { manifest: manifest.clone(), rows, processors, loader };
    let outcome = run_training(&trainer, &model.config.common, data, run, context)?;
    Run::load_weights(run.folder(), &model.params)?;
    Ok(outcome)
}
