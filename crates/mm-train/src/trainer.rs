//! The trainer, top to bottom.

use crate::{Error, MetricRecord, Optimizer, OptimizerConfig, Result, Run, ScheduleConfig, TrainState, flat};
use mm_core::{DType, Params, Role, Tensor, TrainingObjective, autocast, no_grad, seed};
use mm_data::{Batch, Loader};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// Numbers that the network computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bfloat16 on a GPU, float32 elsewhere.
    #[default]
    Auto,
    /// bfloat16 wherever there is hardware for it: a GPU, a processor with AVX-512 BF16 or AMX; float32 elsewhere.
    Fast,
    /// float32 throughout.
    F32,
    /// Matrix products and convolutions in bfloat16.
    Bf16,
}

/// Which direction of a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricDirection {
    /// Larger values are better (accuracy, recall).
    #[default]
    Max,
    /// Smaller values are better (loss, error).
    Min,
}

impl MetricDirection {
    /// Whether `value` is better than `best`.
    pub fn is_better(self, value: f64, best: f64) -> bool {
        match self {
            Self::Max => value > best,
            Self::Min => value < best,
        }
    }
}

/// Stops training when a validation metric no longer improves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// The validation metric; the task's own when absent. It selects the best checkpoint as well.
    #[serde(default)]
    pub metric: Option<String>,
    /// Whether larger or smaller values of the metric are better.
    #[serde(default)]
    pub direction: MetricDirection,
    /// Evaluations without an improvement that are tolerated; training stops at the next one.
    pub patience: usize,
}

/// Settings of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the data.
    pub epochs: u64,
    /// Everything random is a function of it.
    pub seed: u64,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// The rate's course.
    pub schedule: ScheduleConfig,
    /// Longest that all gradients together may be; not bounded when absent.
    pub max_grad_norm: Option<f64>,
    /// Batches whose gradients make one step.
    pub gradient_accumulation_steps: usize,
    /// Decay of a running mean of the weights that is evaluated and kept as the best; none when absent.
    pub ema_decay: Option<f64>,
    /// Numbers that the network computes with.
    pub precision: Precision,
    /// Epochs between evaluations; only at the end when 0.
    pub evaluate_every_epochs: u64,
    /// Which metric selects the best checkpoint, and when training stops early; never when absent.
    pub early_stopping: Option<EarlyStopping>,
    /// Steps between checkpoints, beside those at ends of epochs; none when 0.
    pub save_every_steps: u64,
    /// Seconds that must have gone by since the last save before the end of an epoch saves again: short epochs would be spent on it. The
    /// first epoch's end and the last's always do.
    pub min_seconds_between_saves: f64,
    /// Numbered checkpoints that are kept beside `last` and `best`.
    pub keep_last: usize,
    /// Steps between lines of figures.
    pub log_every_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            seed: 0,
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
            max_grad_norm: Some(1.0),
            gradient_accumulation_steps: 1,
            ema_decay: None,
            precision: Precision::Auto,
            evaluate_every_epochs: 0,
            early_stopping: None,
            save_every_steps: 0,
            min_seconds_between_saves: 20.0,
            keep_last: 0,
            log_every_steps: 10,
        }
    }
}

impl TrainConfig {
    /// Whether the settings make sense.
    pub fn check(&self) -> Result<()> {
        self.optimizer.check()?;
        if self.epochs == 0 {
            return Err(Error::config("train.epochs", 0, "at least 1"));
        }
        if self.gradient_accumulation_steps == 0 || self.log_every_steps == 0 {
            return Err(Error::config("train.gradient_accumulation_steps, train.log_every_steps", 0, "at least 1"));
        }
        if self.ema_decay.is_some_and(|d| !(0.0..1.0).contains(&d)) {
            return Err(Error::config("train.ema_decay", self.ema_decay.unwrap_or(0.0), "a decay in [0, 1)"));
        }
        if !(self.min_seconds_between_saves >= 0.0 && self.min_seconds_between_saves.is_finite()) {
            return Err(Error::config(
                "train.min_seconds_between_saves",
                self.min_seconds_between_saves,
                "a number of at least 0",
            ));
        }
        if self.max_grad_norm.is_some_and(|c| c.is_nan() || c <= 0.0) {
            return Err(Error::config("train.max_grad_norm", self.max_grad_norm.unwrap_or(0.0), "a positive length"));
        }
        if !(0.0..1.0).contains(&self.schedule.warmup_ratio) {
            return Err(Error::config("train.schedule.warmup_ratio", self.schedule.warmup_ratio, "a share in [0, 1)"));
        }
        Ok(())
    }
}

/// Who watches a training.
pub trait Progress {
    /// Training begins at `done` of `steps`.
    fn begin(&mut self, done: u64, steps: u64);
    /// A step is made.
    fn step(&mut self, step: u64, loss: f64, rate: f64);
    /// An evaluation is made.
    fn evaluated(&mut self, step: u64, values: &BTreeMap<String, f64>);
    /// Training ends.
    fn end(&mut self);
}

/// Nobody watches.
pub struct NoopProgress;

impl Progress for NoopProgress {
    fn begin(&mut self, _: u64, _: u64) {}
    fn step(&mut self, _: u64, _: f64, _: f64) {}
    fn evaluated(&mut self, _: u64, _: &BTreeMap<String, f64>) {}
    fn end(&mut self) {}
}

/// Figures of an evaluation, the first of which (by `target`) is to grow.
pub type Evaluation = BTreeMap<String, f64>;

/// All that [`train`] needs.
pub struct TrainInput<'a> {
    /// Settings.
    pub config: &'a TrainConfig,
    /// What is learned.
    pub objective: &'a dyn TrainingObjective<Batch>,
    /// Its parameters.
    pub params: &'a Params,
    /// The batches.
    pub loader: &'a Loader,
    /// Figures of the model as it stands; `None` when there is nothing to evaluate on.
    pub evaluate: &'a mut dyn FnMut() -> Result<Option<Evaluation>>,
    /// The metric that selects the best checkpoint (larger is better), unless `early_stopping.metric` names another.
    pub metric: &'a str,
    /// Who watches.
    pub progress: &'a mut dyn Progress,
    /// Set from outside to save and stop.
    pub stop: &'a AtomicBool,
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOutcome {
    /// Where it stands.
    pub state: TrainState,
    /// Whether it was stopped from outside and can be resumed.
    pub stopped: bool,
}

/// Trains from the start, or from the run's last checkpoint when there is one.
pub fn train(input: TrainInput<'_>, run: &mut Run) -> Result<TrainOutcome> {
    let TrainInput { config, objective: task, params, loader, evaluate, metric, progress, stop } = input;
    config.check()?;
    let mut optimizer = Optimizer::new(&config.optimizer, params)?;
    let stopping = config.early_stopping.as_ref();
    let metric = stopping.and_then(|e| e.metric.as_deref()).unwrap_or(metric);
    let direction = stopping.map_or(MetricDirection::Max, |e| e.direction);
    let mut kept: Option<Instant> = None;
    let mut averaged = config.ema_decay.map(|decay| Ema::new(decay, params)).transpose()?;
    let mut saved = TrainState::default();
    if Run::checkpoint_path(run.folder(), "last").exists() {
        let (checkpoint, state) = Run::open_checkpoint(run.folder(), "last")?;
        params.load(&checkpoint, "model.")?;
        optimizer.load_state(&checkpoint, state.step)?;
        if let Some(averaged) = &averaged {
            averaged.restore(&checkpoint)?;
        }
        task.restore(&|name| checkpoint.get(&format!("task.{name}")).ok())?;
        run.truncate_metrics(state.step)?;
        saved = state;
    }
    let steps =
        (0..config.epochs).map(|epoch| loader.batches(epoch).div_ceil(config.gradient_accumulation_steps) as u64).sum();
    let half = match config.precision {
        Precision::Auto => matches!(params.device(), mm_core::Device::Cuda(_)),
        Precision::Fast => params.device().preferred_dtype() == DType::BF16,
        Precision::F32 => false,
        Precision::Bf16 => true,
    };
    let (mut clock, before) = (Instant::now(), saved.seconds);
    let started = clock;
    let mut sums: BTreeMap<String, (f64, u64)> = BTreeMap::new();
    progress.begin(saved.step, steps);
    let mut stopped = false;
    'epochs: while saved.epoch < config.epochs && !saved.finished {
        let batches = loader.batches(saved.epoch);
        let (mut epoch, first_batch, first_step) = (loader.epoch(saved.epoch, saved.batch), saved.batch, saved.step);
        loop {
            // One step: the gradients of `accumulate` batches.
            optimizer.zero_grad();
            let (mut loss_sum, mut count, mut ids) = (0.0, 0, Vec::new());
            while count < config.gradient_accumulation_steps {
                let Some(batch) = epoch.next() else { break };
                let batch = batch?;
                // Dropout is a function of the step, so that a resumed run draws the same.
                seed::manual_seed(seed::mix(&[config.seed, saved.step, count as u64]));
                saved.batch = batch.index + 1;
                let forward = || task.loss(&batch, true);
                let made = if half { autocast(params.device(), forward) } else { forward() };
                let Some((loss, parts)) = made? else { continue };
                let value = loss.to_f64()?;
                ids.extend(batch.ids.iter().cloned());
                if !value.is_finite() {
                    return Err(not_finite(value, saved.step, &ids, run));
                }
                loss.mul_scalar(1.0 / config.gradient_accumulation_steps as f64)?.backward()?;
                for (name, value) in parts.into_iter().chain([("loss".to_owned(), value)]) {
                    let sum = sums.entry(name).or_default();
                    *sum = (sum.0 + value, sum.1 + 1);
                }
                loss_sum += value;
                count += 1;
            }
            if count == 0 {
                break;
            }
            let norm = optimizer.grad_norm()?;
            if !norm.is_finite() {
                return Err(not_finite(norm, saved.step, &ids, run));
            }
            let scale = config.max_grad_norm.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
            let factor = config.schedule.factor(saved.step, steps);
            optimizer.step(factor, scale)?;
            if let Some(averaged) = &averaged {
                averaged.update(params, saved.step)?;
            }
            saved.step += 1;
            saved.seconds = before + started.elapsed().as_secs_f64();
            progress.step(saved.step, loss_sum / count as f64, config.optimizer.lr * factor);
            if saved.step.is_multiple_of(config.log_every_steps) || saved.step == steps {
                let mut values: BTreeMap<String, f64> =
                    std::mem::take(&mut sums).into_iter().map(|(n, (s, c))| (n, s / c as f64)).collect();
                values.insert("grad_norm".into(), norm);
                values.insert("lr".into(), config.optimizer.lr * factor);
                values.insert(
                    "samples_per_second".into(),
                    (config.log_every_steps as usize * ids.len()) as f64 / clock.elapsed().as_secs_f64().max(1e-9),
                );
                clock = Instant::now();
                run.log(&line(&saved, batches, "train", values))?;
            }
            if stop.load(Ordering::Relaxed) {
                stopped = true;
                break 'epochs;
            }
            if config.save_every_steps > 0 && saved.step.is_multiple_of(config.save_every_steps) {
                save(run, "last", params, &optimizer, averaged.as_ref(), task, &saved)?;
                if config.keep_last > 0 {
                    save(run, &format!("step-{:08}", saved.step), params, &optimizer, averaged.as_ref(), task, &saved)?;
                    run.prune_checkpoints(config.keep_last)?;
                }
            }
        }
        drop(epoch);
        if first_batch == 0 && saved.step == first_step {
            return Err(Error::NoUsableBatch { rows: loader.rows() });
        }
        saved.epoch += 1;
        saved.batch = 0;
        let last = saved.epoch == config.epochs;
        if last || (config.evaluate_every_epochs > 0 && saved.epoch.is_multiple_of(config.evaluate_every_epochs)) {
            saved.finished = last;
            if let Some(averaged) = averaged.as_mut() {
                averaged.swap(params)?;
            }
            let figures = no_grad(&mut *evaluate)?;
            let mut better = true;
            if let Some(values) = figures {
                progress.evaluated(saved.step, &values);
                let figure = values.get(metric).copied();
                run.log(&line(&saved, batches, "valid", values))?;
                better = match (figure, saved.best) {
                    (Some(figure), Some(best)) => direction.is_better(figure, best),
                    _ => true,
                };
                if better {
                    saved.best = figure.or(saved.best);
                    saved.evals_without_improvement = 0;
                } else {
                    saved.evals_without_improvement += 1;
                    saved.finished |=
                        config.early_stopping.as_ref().is_some_and(|e| saved.evals_without_improvement > e.patience);
                }
            }
            if better {
                // The averaged weights, where there are some, are the model.
                let tensors: Vec<_> = model(params).into_iter().map(|(n, t)| (format!("model.{n}"), t)).collect();
                run.save_checkpoint("best", &tensors, &saved)?;
            }
            if let Some(averaged) = averaged.as_mut() {
                averaged.swap(params)?;
            }
            clock = Instant::now();
        }
        if saved.finished || kept.is_none_or(|at| at.elapsed().as_secs_f64() >= config.min_seconds_between_saves) {
            save(run, "last", params, &optimizer, averaged.as_ref(), task, &saved)?;
            kept = Some(Instant::now());
        }
    }
    if stopped {
        save(run, "last", params, &optimizer, averaged.as_ref(), task, &saved)?;
    }
    progress.end();
    Ok(TrainOutcome { state: saved, stopped })
}

fn model(params: &Params) -> Vec<(String, Tensor)> {
    params.named(&[Role::Trainable, Role::Buffer])
}

fn line(saved: &TrainState, batches: usize, split: &str, values: BTreeMap<String, f64>) -> MetricRecord {
    let epoch = saved.epoch as f64 + saved.batch as f64 / batches.max(1) as f64;
    MetricRecord { step: saved.step, epoch, split: split.into(), seconds: saved.seconds, values }
}

fn save(
    run: &Run,
    name: &str,
    params: &Params,
    optimizer: &Optimizer,
    averaged: Option<&Ema>,
    task: &dyn TrainingObjective<Batch>,
    saved: &TrainState,
) -> Result<()> {
    let mut tensors: Vec<(String, Tensor)> =
        model(params).into_iter().map(|(n, t)| (format!("model.{n}"), t)).collect();
    tensors.extend(optimizer.state());
    tensors.extend(averaged.into_iter().flat_map(Ema::state));
    tensors.extend(task.state()?.into_iter().map(|(n, t)| (format!("task.{n}"), t)));
    run.save_checkpoint(name, &tensors, saved)
}

fn not_finite(loss: f64, step: u64, ids: &[String], run: &Run) -> Error {
    let shown = ids.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
    let samples = if ids.len() > 8 { format!("{shown} and {} more", ids.len() - 8) } else { shown };
    let path = Run::checkpoint_path(run.folder(), "last");
    let checkpoint = if path.exists() { path.display().to_string() } else { "none yet".into() };
    Error::NonFiniteLoss { loss, step, samples, checkpoint }
}

/// A running mean of the weights (Polyak 1992).
struct Ema {
    decay: f64,
    mean: Vec<(String, Tensor)>,
    /// Where the means lie side by side: all of them.
    joined: Option<Tensor>,
}

impl Ema {
    fn new(decay: f64, params: &Params) -> Result<Self> {
        let now = model(params);
        let alike = now.windows(2).all(|pair| pair[0].1.dtype().ok() == pair[1].1.dtype().ok());
        if flat::worth(params.device()) && alike && !now.is_empty() {
            let (all, each) = flat::copy(&now.iter().map(|(_, t)| t).collect::<Vec<_>>())?;
            let mean = now.into_iter().map(|(name, _)| name).zip(each).collect();
            return Ok(Self { decay, mean, joined: Some(all) });
        }
        let mean = now.into_iter().map(|(n, t)| Ok((n, t.detach()?.copy()?))).collect::<Result<_>>()?;
        Ok(Self { decay, mean, joined: None })
    }

    fn update(&self, params: &Params, step: u64) -> Result<()> {
        // Young means follow the weights closely, as in timm.
        let decay = self.decay.min((1.0 + step as f64) / (10.0 + step as f64));
        if let Some(all) = &self.joined {
            let now = flat::join(&model(params).iter().map(|(_, t)| t).collect::<Vec<_>>())?;
            return Ok(all.scale_add_(decay, &now, 1.0 - decay)?);
        }
        for ((_, mean), (_, now)) in self.mean.iter().zip(model(params)) {
            mean.scale_add_(decay, &now.detach()?, 1.0 - decay)?;
        }
        Ok(())
    }

    /// Puts the mean into the parameters and the parameters into the mean.
    fn swap(&mut self, params: &Params) -> Result<()> {
        for ((_, mean), (_, now)) in self.mean.iter().zip(model(params)) {
            let held = now.detach()?.copy()?;
            now.copy_(mean)?;
            mean.copy_(&held)?;
        }
        Ok(())
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.mean.iter().map(|(n, t)| (format!("averaged.{n}"), t.clone())).collect()
    }

    fn restore(&self, checkpoint: &mm_core::Checkpoint) -> Result<()> {
        for (name, tensor) in self.state() {
            tensor.copy_(&checkpoint.get(&name)?)?;
        }
        Ok(())
    }
}
