//! The training loop.

use crate::{
    BatchSource, EarlyStopping, Ema, Error, MetricDirection, MetricRecord, Optimizer, Progress, Result, Run,
    TrainConfig, TrainState, distributed::Ranks, ema::model_tensors, passes::Passes, profile::StepProfile,
};
use mm_core::{Params, Tensor, TrainingObjective, distributed::with_divided_work, no_grad, seed};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// Validation metrics by name.
pub type EvalMetrics = BTreeMap<String, f64>;

/// Callbacks of a training run, and the flag that stops it.
pub struct TrainHooks<'a> {
    /// Computes the validation metrics of the current model, without recording gradients; `None` when there is no
    /// validation data.
    pub evaluate: &'a mut dyn FnMut() -> Result<Option<EvalMetrics>>,
    /// Receives progress reports.
    pub progress: &'a mut dyn Progress,
    /// When set to true, training saves a checkpoint and stops after the current step.
    pub stop: &'a AtomicBool,
}

/// The result of a training run.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOutcome {
    /// The state at the end.
    pub state: TrainState,
    /// Whether it was stopped by [`TrainHooks::stop`]; it can then be resumed.
    pub stopped: bool,
}

/// Which validation metric selects the best checkpoint, and when training stops early.
#[derive(Debug, Clone, Default)]
struct BestMetric {
    metric: Option<String>,
    direction: MetricDirection,
    patience: Option<usize>,
}

impl BestMetric {
    fn new(config: &TrainConfig) -> Self {
        let Some(stopping) = &config.early_stopping else { return Self::default() };
        let EarlyStopping { metric, direction, patience } = stopping.clone();
        Self { metric, direction, patience: Some(patience) }
    }

    /// Updates the state with the metrics of an evaluation; returns whether its weights are to be saved as the best.
    /// Without metrics the latest weights are the best. NaN is never an improvement, but its weights are saved as long
    /// as there are none with another value.
    fn update(&self, state: &mut TrainState, metrics: &EvalMetrics) -> Result<bool> {
        let Some(metric) = self.metric.as_ref().filter(|_| !metrics.is_empty()) else { return Ok(true) };
        let Some(value) = metrics.get(metric).copied() else {
            let known = metrics.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownMetric { metric: metric.clone(), known });
        };
        let best = state.best.filter(|best| !best.is_nan());
        let improved = !value.is_nan() && best.is_none_or(|best| self.direction.is_better(value, best));
        if improved {
            (state.best, state.evals_without_improvement) = (Some(value), 0);
        } else {
            state.evals_without_improvement += 1;
            state.finished |= self.patience.is_some_and(|p| state.evals_without_improvement >= p);
        }
        Ok(improved || best.is_none())
    }
}

/// One optimizer step.
#[derive(Debug)]
struct StepResult {
    /// Mean loss over the accumulated batches.
    loss: f64,
    /// L2 norm of the mean gradient, before clipping.
    grad_norm: f64,
    lr: f64,
    /// Number of samples.
    samples: usize,
    /// Whether training stops after this step.
    stop: bool,
}

/// Sums of logged values since the last log record.
struct LogWindow {
    sums: BTreeMap<String, (f64, u64)>,
    start: Instant,
}

impl LogWindow {
    fn new() -> Self {
        Self { sums: BTreeMap::new(), start: Instant::now() }
    }

    fn add(&mut self, name: String, value: f64) {
        let (sum, count) = self.sums.entry(name).or_default();
        (*sum, *count) = (*sum + value, *count + 1);
    }

    /// Means of the window with the step's own values; starts the next window.
    fn take(&mut self, step: &StepResult, steps_in_window: u64, ranks: &Ranks) -> Result<EvalMetrics> {
        let sums = ranks.sum(std::mem::take(&mut self.sums))?;
        let mut values: EvalMetrics = sums.into_iter().map(|(n, (sum, count))| (n, sum / count as f64)).collect();
        let seconds = self.start.elapsed().as_secs_f64().max(1e-9);
        values.insert("grad_norm".into(), step.grad_norm);
        values.insert("lr".into(), step.lr);
        values.insert("samples_per_second".into(), (steps_in_window as usize * step.samples) as f64 / seconds);
        self.start = Instant::now();
        Ok(values)
    }
}

/// Trains parameters on the batches of a [`BatchSource`].
///
/// The order of samples, augmentation and dropout are functions of the seed and the step, so that a run that was
/// stopped and resumed ends with the same weights as an uninterrupted one. See the [crate's example](crate).
///
/// Where the objective gives a batch in [chunks](TrainingObjective::chunks), its gradients are computed by gradient
/// caching: the memory of a chunk, the gradients of the whole batch, and one more forward pass.
///
/// # Several processes
/// Inside of [`mm_dist::with_group`], each process has its part of every batch ([`BatchSource`]), gradients are averaged
/// over the processes while the backward pass runs, and all take the same steps. Rank 0 writes checkpoints and metrics;
/// the run folders of the others are scratch, to which rank 0's checkpoints are copied ([`Run::share_checkpoint`]).
/// Where the objective computes the same loss from the rows of all processes ([`mm_core::distributed`]), the weights are
/// those that one process learns, up to rounding; a loss of the own rows alone is averaged, as in PyTorch's
/// `DistributedDataParallel`. Dropout is drawn by each process for itself.
pub struct Trainer<'a, S: BatchSource> {
    config: &'a TrainConfig,
    objective: &'a dyn TrainingObjective<S::Batch>,
    params: &'a Params,
    source: &'a S,
    state: TrainState,
    optimizer: Optimizer,
    ranks: Ranks,
    ema: Option<Ema>,
    best: BestMetric,
    total_steps: u64,
    autocast: bool,
    log: LogWindow,
    profile: StepProfile,
    /// When this process started to train, and the seconds of training before that.
    started: (Instant, f64),
    last_save: Option<Instant>,
}

impl<'a, S: BatchSource> Trainer<'a, S> {
    /// Creates a trainer at step 0.
    ///
    /// # Errors
    /// When a setting is out of range, or when all parameters are frozen.
    pub fn new(
        config: &'a TrainConfig,
        objective: &'a dyn TrainingObjective<S::Batch>,
        params: &'a Params,
        source: &'a S,
    ) -> Result<Self> {
        config.check()?;
        let steps_of = |epoch| source.num_batches(epoch).div_ceil(config.gradient_accumulation_steps) as u64;
        let optimizer = Optimizer::new(&config.optimizer, params)?;
        Ok(Self {
            ranks: Ranks::join(params, optimizer.parameters())?,
            optimizer,
            ema: config.ema_decay.map(|decay| Ema::new(decay, params)).transpose()?,
            best: BestMetric::new(config),
            total_steps: (0..config.epochs).map(steps_of).sum(),
            autocast: config.precision.uses_autocast(params.device()),
            state: TrainState::default(),
            log: LogWindow::new(),
            profile: StepProfile::new(0, 0),
            started: (Instant::now(), 0.0),
            last_save: None,
            config,
            objective,
            params,
            source,
        })
    }

    /// Sets the validation metric that selects the best checkpoint (larger is better), unless `early_stopping.metric`
    /// names another.
    pub fn with_metric(mut self, metric: &str) -> Self {
        self.best.metric.get_or_insert_with(|| metric.to_owned());
        self
    }

    /// The training state: steps and epochs done, the best metric so far.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// Trains until all epochs are done, early stopping applies or `hooks.stop` is set; continues from the run's last
    /// checkpoint if there is one.
    ///
    /// # Errors
    /// [`Error::NonFiniteLoss`], [`Error::NoUsableBatch`], and errors of the objective, the batch source, the
    /// evaluation and the file system.
    pub fn fit(mut self, run: &mut Run, hooks: TrainHooks<'_>) -> Result<TrainOutcome> {
        let TrainHooks { evaluate, progress, stop } = hooks;
        self.resume(run)?;
        if self.ranks.is_writer() {
            run.log_session(self.state.step, self.ranks.world_size())?;
        }
        self.started = (Instant::now(), self.state.seconds);
        self.log = LogWindow::new();
        self.profile = StepProfile::new(self.config.profile_steps, self.total_steps.saturating_sub(self.state.step));
        progress.begin(self.state.step, self.total_steps);
        let mut stopped = false;
        while !stopped && self.state.epoch < self.config.epochs && !self.state.finished {
            stopped = self.train_epoch(run, progress, stop)?;
            if stopped {
                break;
            }
            self.state.epoch += 1;
            self.state.batch = 0;
            let last = self.state.epoch == self.config.epochs;
            let every = self.config.evaluate_every_epochs;
            if last || (every > 0 && self.state.epoch.is_multiple_of(every)) {
                self.state.finished = last;
                self.evaluate(run, evaluate, progress)?;
            }
            let interval = self.config.min_seconds_between_saves;
            if self.state.finished || self.last_save.is_none_or(|at| at.elapsed().as_secs_f64() >= interval) {
                self.checkpoint(run, "last")?;
                self.last_save = Some(Instant::now());
            }
        }
        if stopped {
            self.checkpoint(run, "last")?;
        }
        self.profile.finish(run, &self.ranks)?;
        for name in ["last", "best"] {
            run.share_checkpoint(name)?;
        }
        progress.end();
        Ok(TrainOutcome { state: self.state, stopped })
    }

    /// Continues from the run's last checkpoint, if it has one.
    fn resume(&mut self, run: &mut Run) -> Result<()> {
        run.share_checkpoint("last")?;
        if !Run::checkpoint_path(run.folder(), "last").exists() {
            // A run that ended before its first checkpoint may have logged metrics.
            return run.truncate_metrics(0);
        }
        let (checkpoint, state) = Run::open_checkpoint(run.folder(), "last")?;
        self.params.load(&checkpoint, "model.")?;
        self.optimizer.load_state(&checkpoint, state.step)?;
        if let Some(ema) = &self.ema {
            ema.load_state(&checkpoint)?;
        }
        self.objective.load_state(&|name| checkpoint.get(&format!("objective.{name}")).ok())?;
        run.truncate_metrics(state.step)?;
        self.ranks.agree("the step to continue from", &state.step.to_string())?;
        self.state = state;
        Ok(())
    }

    /// Trains to the end of the current epoch; returns whether it was stopped before that.
    fn train_epoch(&mut self, run: &mut Run, progress: &mut dyn Progress, stop: &AtomicBool) -> Result<bool> {
        let num_batches = self.source.num_batches(self.state.epoch);
        let (first_batch, first_step) = (self.state.batch, self.state.step);
        let source = self.source;
        let mut batches = source.batches(self.state.epoch, first_batch);
        while let Some(step) = self.train_step(&mut *batches, run, stop)? {
            progress.step(self.state.step, step.loss, step.lr);
            if self.state.step.is_multiple_of(self.config.log_every_steps) || self.state.step == self.total_steps {
                let values = self.log.take(&step, self.config.log_every_steps, &self.ranks)?;
                self.write_metrics(run, num_batches, "train", values)?;
            }
            if step.stop {
                return Ok(true);
            }
            if self.config.save_every_steps > 0 && self.state.step.is_multiple_of(self.config.save_every_steps) {
                self.checkpoint(run, "last")?;
                if self.config.keep_last > 0 && self.ranks.is_writer() {
                    self.checkpoint(run, &format!("step-{:08}", self.state.step))?;
                    run.prune_checkpoints(self.config.keep_last)?;
                }
            }
        }
        if first_batch == 0 && self.state.step == first_step {
            return Err(Error::NoUsableBatch { samples: self.source.num_samples() });
        }
        Ok(false)
    }

    /// One optimizer step on the gradients of the next `gradient_accumulation_steps` batches; `None` when no batch is
    /// left.
    fn train_step(
        &mut self,
        batches: &mut dyn Iterator<Item = Result<S::Batch>>,
        run: &Run,
        stop: &AtomicBool,
    ) -> Result<Option<StepResult>> {
        self.profile.before_step()?;
        self.optimizer.zero_grad();
        let mut step = StepResult { loss: 0.0, grad_norm: 0.0, lr: 0.0, samples: 0, stop: false };
        let (mut count, mut ids) = (0, Vec::new());
        while count < self.config.gradient_accumulation_steps {
            let Some(batch) = batches.next() else { break };
            let (batch, is_part) = self.source.synchronize(batch?)?;
            self.state.batch += 1;
            let objective = self.objective;
            let forward = self.passes(count, is_part).forward(objective, &batch)?;
            let own_ids = self.source.sample_ids(&batch);
            let own_loss = forward.output.as_ref().map(|(loss, _)| loss.to_f64()).transpose()?;
            let status = self.ranks.exchange(own_loss, stop.load(Ordering::Relaxed), own_ids.len(), is_part)?;
            step.stop |= status.stop;
            let Some(loss) = status.loss else { continue };
            ids.extend(own_ids);
            self.check_finite(loss, &ids, run)?;
            let scale = 1.0 / self.config.gradient_accumulation_steps as f64;
            forward.backward(scale, &self.ranks, &self.optimizer.parameters())?;
            let parts = forward.output.map(|(_, parts)| parts);
            for (name, value) in parts.into_iter().flatten().chain([("loss".to_owned(), loss)]) {
                self.log.add(name, value);
            }
            step.loss += loss;
            step.samples += status.samples;
            count += 1;
        }
        if count == 0 {
            return Ok(None);
        }
        // Losses were divided by the configured number of batches; the last step of an epoch may have fewer.
        let mean_scale = self.config.gradient_accumulation_steps as f64 / count as f64;
        let grad_norm = self.optimizer.grad_norm()? * mean_scale;
        self.check_finite(grad_norm, &ids, run)?;
        let clip_scale = self.config.max_grad_norm.map_or(1.0, |max| (max / (grad_norm + 1e-6)).min(1.0));
        let lr_factor = self.config.schedule.factor(self.state.step, self.total_steps);
        self.optimizer.step(lr_factor, mean_scale * clip_scale)?;
        if let Some(ema) = &self.ema {
            ema.update(self.params, self.state.step)?;
        }
        self.state.step += 1;
        self.state.seconds = self.started.1 + self.started.0.elapsed().as_secs_f64();
        self.profile.after_step(run, &self.ranks)?;
        let lr = self.config.optimizer.lr * lr_factor;
        Ok(Some(StepResult { loss: step.loss / count as f64, grad_norm, lr, ..step }))
    }

    /// How the passes of the `index`-th batch of a step are run.
    fn passes(&self, index: usize, is_part: bool) -> Passes {
        // Dropout depends on the step, so that a resumed run samples the same masks, and on the part of the batch.
        let mut parts = vec![self.config.seed, self.state.step, index as u64];
        if is_part && self.ranks.rank() > 0 {
            parts.push(self.ranks.rank() as u64);
        }
        let autocast = self.autocast.then(|| self.params.device());
        Passes { seed: seed::derive_seed(&parts), autocast, is_part }
    }

    /// Evaluates the model (its moving average if there is one) and saves it as `best` if it is the best so far.
    fn evaluate(
        &mut self,
        run: &mut Run,
        evaluate: &mut dyn FnMut() -> Result<Option<EvalMetrics>>,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        if let Some(ema) = self.ema.as_mut() {
            ema.swap(self.params)?;
        }
        let mut improved = true;
        // Every process gets the result for all rows, so that what an objective remembers of it is the same in all.
        let metrics = with_divided_work(|| no_grad(&mut *evaluate))?;
        if let Some(metrics) = self.ranks.metrics_of_first(metrics)? {
            progress.evaluated(self.state.step, &metrics);
            let num_batches = self.source.num_batches(self.state.epoch.saturating_sub(1));
            self.write_metrics(run, num_batches, "valid", metrics.clone())?;
            improved = self.best.update(&mut self.state, &metrics)?;
        }
        if improved && self.ranks.is_writer() {
            run.save_checkpoint("best", &with_prefix("model", model_tensors(self.params)), &self.state)?;
        }
        if let Some(ema) = self.ema.as_mut() {
            ema.swap(self.params)?;
        }
        self.log.start = Instant::now();
        Ok(())
    }

    /// Saves everything that a resumed run needs: weights, optimizer state, moving average, and the objective's state.
    fn checkpoint(&self, run: &Run, name: &str) -> Result<()> {
        if !self.ranks.is_writer() {
            return Ok(());
        }
        let mut tensors = with_prefix("model", model_tensors(self.params));
        tensors.extend(self.optimizer.state());
        tensors.extend(self.ema.iter().flat_map(Ema::state));
        tensors.extend(with_prefix("objective", self.objective.state()?));
        run.save_checkpoint(name, &tensors, &self.state)
    }

    fn write_metrics(&self, run: &mut Run, num_batches: usize, split: &str, values: EvalMetrics) -> Result<()> {
        if !self.ranks.is_writer() {
            return Ok(());
        }
        let epoch = self.state.epoch as f64 + self.state.batch as f64 / num_batches.max(1) as f64;
        let (step, seconds) = (self.state.step, self.state.seconds);
        run.log(&MetricRecord { step, epoch, split: split.into(), seconds, values })
    }

    fn check_finite(&self, value: f64, ids: &[String], run: &Run) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        let ids = self.ranks.gather_ids(ids)?;
        let shown = ids.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let samples = if ids.len() > 8 { format!("{shown} and {} more", ids.len() - 8) } else { shown };
        let path = Run::checkpoint_path(run.folder(), "last");
        let checkpoint = if path.exists() { path.display().to_string() } else { "none yet".into() };
        Err(Error::NonFiniteLoss { loss: value, step: self.state.step, samples, checkpoint })
    }
}

fn with_prefix(prefix: &str, tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each evaluation of a run with this patience does: whether it is saved as the best, and whether it ends the
    /// run.
    fn evaluations(
        direction: MetricDirection,
        patience: usize,
        values: &[f64],
    ) -> (Vec<bool>, Option<usize>, Option<f64>) {
        let best = BestMetric { metric: Some("m".into()), direction, patience: Some(patience) };
        let mut state = TrainState::default();
        let (mut saved, mut end) = (Vec::new(), None);
        for (index, value) in values.iter().enumerate() {
            saved.push(best.update(&mut state, &BTreeMap::from([("m".to_owned(), *value)])).unwrap());
            if state.finished {
                end.get_or_insert(index);
            }
        }
        (saved, end, state.best)
    }

    #[test]
    fn nan_is_never_the_best_and_counts_against_patience() {
        let nan = f64::NAN;
        let (saved, end, best) = evaluations(MetricDirection::Max, 3, &[nan, 0.2, nan, 0.3, 0.1]);
        assert_eq!((saved, end, best), (vec![true, true, false, true, false], None, Some(0.3)));
        let (saved, end, _) = evaluations(MetricDirection::Min, 3, &[nan, nan, nan]);
        assert_eq!((saved, end), (vec![true; 3], Some(2)), "only NaN: the latest weights, and an end");
        let (_, _, best) = evaluations(MetricDirection::Min, 3, &[nan, 0.2, 0.3]);
        assert_eq!(best, Some(0.2));
    }

    /// As Keras, PyTorch Lightning and transformers count.
    #[test]
    fn training_stops_after_patience_evaluations_without_an_improvement() {
        for (patience, end) in [(1, 2), (2, 5), (3, 6)] {
            let found = evaluations(MetricDirection::Max, patience, &[0.1, 0.2, 0.2, 0.3, 0.3, 0.1, 0.3]);
            assert_eq!((found.1, found.2), (Some(end), Some(0.3)), "patience {patience}");
        }
    }

    #[test]
    fn a_metric_that_was_not_measured_is_an_error() {
        let config = TrainConfig { early_stopping: None, ..TrainConfig::default() };
        let best = BestMetric { metric: Some("acuracy".into()), ..BestMetric::new(&config) };
        let measured = BTreeMap::from([("accuracy".to_owned(), 0.5), ("loss".to_owned(), 1.0)]);
        let error = best.update(&mut TrainState::default(), &measured).unwrap_err().to_string();
        assert!(error.contains("`acuracy`") && error.contains("accuracy, loss"), "{error}");
    }
}
