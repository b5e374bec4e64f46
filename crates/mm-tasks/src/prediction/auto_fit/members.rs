//! Training of the members of an ensemble, within a time limit.

use super::{
    super::{
        Prediction, Predictor, fit::fit, head_ensemble::HEAD_ENSEMBLE_FILE, model::EncodedFeatures,
        predictor::member_dir, resolve::AlternativeEncoder,
    },
    deadline::{CheckedProgress, Deadline},
    options::FitOptions,
};
use crate::{
    Error, Result,
    config::parse_task,
    task::{FitContext, FitOutcome},
};
use mm_core::{Device, Registry, config as settings};
use mm_data::{FailedSample, Manifest, Split};
use mm_train::{Run, environment};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Share of the remaining time for the first training where models are refit, which takes a little longer.
const FIRST_TRAINING_SHARE: f64 = 0.4;

/// Paths in the config are absolute.
pub(super) fn base_dir() -> &'static Path {
    Path::new("/")
}

/// A fit in progress.
pub(super) struct AutoFit<'a> {
    pub(super) options: &'a FitOptions,
    pub(super) registry: &'a Registry,
    pub(super) device: Device,
    pub(super) started: Instant,
    pub(super) limit: Option<Duration>,
    /// The resolved config that all members start from.
    pub(super) config: toml::Value,
    /// Second proposals of encoders.
    pub(super) alternatives: BTreeMap<String, AlternativeEncoder>,
    /// Fusion operator and seed of each member.
    pub(super) members: Vec<(&'static str, u64)>,
}

/// The rows that all members are trained on.
#[derive(Clone)]
pub(super) struct SharedData {
    pub(super) manifest: Arc<Manifest>,
    /// Labeled validation rows.
    pub(super) valid: Vec<usize>,
    pub(super) encoded: EncodedFeatures,
    /// Whether the time limit left rows out.
    pub(super) is_partial: bool,
}

/// The members after their first training.
pub(super) struct TrainedMembers {
    pub(super) predictor: Predictor,
    /// Their configs.
    pub(super) configs: Vec<toml::Value>,
    pub(super) data: SharedData,
    pub(super) train_rows: usize,
    pub(super) failed: Vec<FailedSample>,
    pub(super) stopped: bool,
    pub(super) seconds: Duration,
}

impl AutoFit<'_> {
    /// Trains the members one after the other; the ensemble is saved after each, so that an interruption loses one of
    /// them at most.
    pub(super) fn train_members(
        &self,
        log: &mut dyn FnMut(String),
        context: &mut FitContext<'_>,
    ) -> Result<TrainedMembers> {
        let started = Instant::now();
        let mut shared: Option<SharedData> = None;
        let (mut predictor, mut predictions, mut configs) = (Predictor::empty(), Vec::new(), Vec::new());
        let (mut failed, mut train_rows, mut stopped) = (Vec::new(), 0, false);
        for (index, (operator, seed)) in self.members.iter().enumerate() {
            if index > 0 && (context.stop.load(Ordering::Relaxed) || self.is_over()) {
                stopped = true;
                break;
            }
            let config = self.member_config(index, operator, *seed)?;
            let mut model = Prediction::new(parse_task(&config)?, base_dir(), self.registry, self.device)?;
            let data = match &shared {
                Some(data) => data.clone(),
                None => shared.insert(self.open_data(&mut model, log, context)?).clone(),
            };
            model.encoded = data.encoded;
            let run = self.options.out.join(member_dir(index));
            let total = self.members.len();
            if total > 1 {
                log(format!("model {} of {total}: {operator}", index + 1));
            }
            let can_refit = self.can_refit() && !data.is_partial;
            let deadline = self.member_deadline(total - index, can_refit);
            let outcome = self.train(&model, &data.manifest, &run, &config, deadline, context)?;
            stopped |= outcome.training.stopped;
            (train_rows, failed) = (outcome.rows, outcome.failed);
            predictions.push(predictor.add_member(model, &run, &data.manifest, &data.valid)?);
            predictor.fit_weights(&predictions, &data.manifest)?;
            configs.push(config);
            predictor.save(&self.options.out, (0..configs.len()).map(member_dir).collect(), Vec::new())?;
        }
        let data = shared.ok_or_else(|| Error::invalid("preset", "no models", "at least one"))?;
        Ok(TrainedMembers { predictor, configs, data, train_rows, failed, stopped, seconds: started.elapsed() })
    }

    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.started.elapsed() >= limit)
    }

    pub(super) fn can_refit(&self) -> bool {
        self.options.refit && self.options.validation_data.is_none()
    }

    /// The time that is left, shared evenly among the remaining members (and their refits).
    fn member_deadline(&self, num_remaining: usize, can_refit: bool) -> Option<Instant> {
        self.limit.map(|limit| {
            let left = limit.saturating_sub(self.started.elapsed());
            let share = if can_refit { FIRST_TRAINING_SHARE } else { 1.0 };
            Instant::now() + left.mul_f64(share) / num_remaining as u32
        })
    }

    /// The config of a member.
    fn member_config(&self, index: usize, operator: &str, seed: u64) -> Result<toml::Value> {
        let mut config = self.config.clone();
        settings::set(&mut config, &format!("train.seed={}", self.options.seed * 100 + seed))?;
        // All of the table is replaced, so that no option of another operator remains.
        settings::set(&mut config, &format!("fusion.operator={{kind={operator:?}}}"))?;
        if index % 2 == 1 {
            // The second proposals of encoders: members that make different errors are better together.
            let inputs = config.get_mut("inputs").and_then(toml::Value::as_table_mut);
            for (name, input) in inputs.into_iter().flat_map(|inputs| inputs.iter_mut()) {
                if let (Some(input), Some(other)) = (input.as_table_mut(), self.alternatives.get(name)) {
                    input.insert("encoder".into(), other.encoder.clone());
                    input.insert("standardize".into(), other.standardize.into());
                }
            }
        }
        Ok(config)
    }

    /// Opens the data; with a time limit, encodes rows for half of the time that is left and leaves out the others.
    fn open_data(
        &self,
        model: &mut Prediction,
        log: &mut dyn FnMut(String),
        context: &mut FitContext<'_>,
    ) -> Result<SharedData> {
        let mut manifest = model.dataset()?;
        let mut is_partial = false;
        if let Some(limit) = self.limit {
            let half = limit.saturating_sub(self.started.elapsed()) / 2;
            let is_encoded =
                model.encode_until(&manifest, Instant::now() + half, context.stop, &mut *context.on_progress)?;
            let (count, total) = (is_encoded.iter().filter(|e| **e).count(), is_encoded.len());
            if count < total {
                log(format!(
                    "{count} of {total} rows are used; there is no time to encode more of them (half of --time-limit)"
                ));
                let mut is_encoded = is_encoded.into_iter();
                manifest.rows.retain(|_| is_encoded.next() == Some(true));
                is_partial = true;
            }
        }
        let manifest = Arc::new(manifest);
        let valid = model.labeled_rows(&manifest, Split::Valid);
        Ok(SharedData { manifest, valid, encoded: std::mem::take(&mut model.encoded), is_partial })
    }

    /// Trains one model into a run folder, from its last checkpoint where it has one, until a deadline.
    fn train(
        &self,
        model: &Prediction,
        manifest: &Arc<Manifest>,
        run: &Path,
        config: &toml::Value,
        deadline: Option<Instant>,
        context: &mut FitContext<'_>,
    ) -> Result<FitOutcome> {
        let mut run = if run.join("config.toml").exists() {
            Run::resume(run)?
        } else {
            Run::create(run, config, environment(json!({"device": self.device.to_string()})))?
        };
        let deadline = Deadline::new(context.stop, deadline);
        let on_progress = &mut |label: &str, done: usize, total: usize| {
            deadline.check();
            (context.on_progress)(label, done, total);
        };
        let progress = &mut CheckedProgress { progress: &mut *context.progress, deadline: &deadline };
        fit(model, manifest, &mut run, FitContext { progress, on_progress, stop: deadline.flag() })
    }

    /// Trains each member again from scratch, on the validation rows as well, for the number of epochs that was best
    /// without them; the ensemble of its heads stays. Returns the folders and the number of rows; `None` when it was
    /// stopped.
    pub(super) fn refit(
        &self,
        configs: &[toml::Value],
        context: &mut FitContext<'_>,
    ) -> Result<Option<(Vec<String>, usize)>> {
        let (mut members, mut rows) = (Vec::new(), 0);
        let deadline = self.limit.map(|limit| self.started + limit);
        for (index, config) in configs.iter().enumerate() {
            let first = self.options.out.join(member_dir(index));
            let epochs = Run::open_checkpoint(&first, "best")?.1.epoch.max(1);
            let mut config = config.clone();
            settings::set(&mut config, &format!("train.epochs={epochs}"))?;
            settings::set(&mut config, "train.evaluate_every_epochs=0")?;
            settings::set(&mut config, "data.split.valid=0.0")?;
            let model = Prediction::new(parse_task(&config)?, base_dir(), self.registry, self.device)?;
            let name = format!("{}-refit", member_dir(index));
            let run = self.options.out.join(&name);
            let manifest = Arc::new(model.dataset()?);
            let outcome = self.train(&model, &manifest, &run, &config, deadline, context)?;
            if outcome.training.stopped {
                return Ok(None);
            }
            let ensemble = run.join(HEAD_ENSEMBLE_FILE);
            std::fs::copy(first.join(HEAD_ENSEMBLE_FILE), &ensemble).map_err(|e| Error::file(&ensemble, e))?;
            rows = outcome.rows;
            members.push(name);
        }
        Ok(Some((members, rows)))
    }
}
