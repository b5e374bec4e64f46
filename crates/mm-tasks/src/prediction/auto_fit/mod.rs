//! From a table to a trained predictor: columns, encoders and fusion operators are chosen, several models are trained and ensembled.

mod columns;
mod config;
mod deadline;
mod options;

pub use options::{FitOptions, FitResult, Preset};

use super::{
    Prediction, Predictor,
    dataset::id_column,
    fit::fit,
    head_ensemble::HEAD_ENSEMBLE_FILE,
    model::EncodedFeatures,
    predictor::{ENSEMBLE_FILE, member_dir},
    resolve::{AlternativeEncoder, resolve_with_alternatives},
};
use crate::{
    Error, Result,
    config::parse_task,
    metrics::Metrics,
    task::{FitContext, FitOutcome},
};
use columns::{InferredColumns, infer_columns};
use config::{TableInfo, fit_config};
use deadline::{CheckedProgress, Deadline};
use mm_core::{Device, Modality, Registry, config as settings};
use mm_data::{FailedSample, Manifest, Split, read_table};
use mm_train::{Run, environment};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Share of the remaining time for the first training where models are refit, which takes a little longer.
const FIRST_TRAINING_SHARE: f64 = 0.4;

/// A refit is started when this many times the time of the first training is left.
const REFIT_TIME: f64 = 1.5;

/// Paths in the config are absolute.
fn base_dir() -> &'static Path {
    Path::new("/")
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))
}

/// A fit in progress.
struct AutoFit<'a> {
    options: &'a FitOptions,
    registry: &'a Registry,
    device: Device,
    started: Instant,
    limit: Option<Duration>,
    /// The resolved config that all members start from.
    config: toml::Value,
    /// Second proposals of encoders.
    alternatives: BTreeMap<String, AlternativeEncoder>,
    /// Fusion operator and seed of each member.
    members: Vec<(&'static str, u64)>,
}

/// The rows that all members are trained on.
#[derive(Clone)]
struct SharedData {
    manifest: Arc<Manifest>,
    /// Labeled validation rows.
    valid: Vec<usize>,
    encoded: EncodedFeatures,
    /// Whether the time limit left rows out.
    is_partial: bool,
}

/// The members after their first training.
struct TrainedMembers {
    predictor: Predictor,
    /// Their configs.
    configs: Vec<toml::Value>,
    data: SharedData,
    train_rows: usize,
    failed: Vec<FailedSample>,
    stopped: bool,
    seconds: Duration,
}

/// Fits a predictor to a table; `log` gets a line for each decision.
///
/// # Errors
/// When an option is out of range, the table cannot be read or has no usable column, or the output folder holds a run.
pub fn fit_table(
    options: &FitOptions,
    registry: &Registry,
    device: Device,
    log: &mut dyn FnMut(String),
    mut context: FitContext<'_>,
) -> Result<FitResult> {
    let started = Instant::now();
    options.validate()?;
    let path = absolute(&options.data)?;
    let table = read_table(&path, None)?;
    let (rows, id_column) = (table.len(), id_column(&table));
    let has_tabular = registry.proposable_modalities().any(|m| m == "tabular");
    let InferredColumns { columns, log: lines } = infer_columns(&table, options, has_tabular)?;
    lines.into_iter().for_each(&mut *log);
    check_out(&options.out)?;
    if let Some(group) = &options.group_column
        && !table.iter().take(super::dataset::HEADER_ROWS).any(|r| r.contains_key(group))
    {
        let known = table.first().into_iter().flat_map(|r| r.keys()).map(String::as_str);
        return Err(Error::unknown_column(&options.data, "group column", group, known));
    }
    drop(table);
    let validation = options.validation_data.as_deref().map(absolute).transpose()?;
    let info =
        TableInfo { path: &path, validation: validation.as_deref(), columns: &columns, rows, id_column: &id_column };
    let mut config = fit_config(options, &info)?;
    let alternatives = resolve_with_alternatives(&mut config, base_dir(), registry, log)?;
    std::fs::create_dir_all(&options.out).map_err(|e| Error::file(&options.out, e))?;
    let mut members = options.preset.members();
    if columns.len() == 1 {
        // With one modality the operators differ little.
        members.truncate(members.len().div_ceil(2));
    }
    let limit = options.time_limit.map(Duration::from_secs_f64);
    let auto_fit = AutoFit { options, registry, device, started, limit, config, alternatives, members };
    let trained = auto_fit.train_members(log, &mut context)?;
    auto_fit.finish(trained, columns, log, &mut context)
}

/// Refuses a folder that holds a run.
fn check_out(out: &Path) -> Result<()> {
    if out.join(ENSEMBLE_FILE).exists() || out.join("config.toml").exists() {
        return Err(Error::file(out, "holds a run already; choose another folder with --out"));
    }
    Ok(())
}

impl AutoFit<'_> {
    /// Trains the members one after the other; the ensemble is saved after each, so that an interruption loses one of them at most.
    fn train_members(&self, log: &mut dyn FnMut(String), context: &mut FitContext<'_>) -> Result<TrainedMembers> {
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

    fn can_refit(&self) -> bool {
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
        // The whole table, so that no option of another operator is left.
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

    /// Trains one model into a run folder, until a deadline.
    fn train(
        &self,
        model: &Prediction,
        manifest: &Arc<Manifest>,
        run: &Path,
        config: &toml::Value,
        deadline: Option<Instant>,
        context: &mut FitContext<'_>,
    ) -> Result<FitOutcome> {
        let mut run = Run::create(run, config, environment(json!({"device": self.device.to_string()})))?;
        let deadline = Deadline::new(context.stop, deadline);
        let on_progress = &mut |label: &str, done: usize, total: usize| {
            deadline.check();
            (context.on_progress)(label, done, total);
        };
        let progress = &mut CheckedProgress { progress: &mut *context.progress, deadline: &deadline };
        fit(model, manifest, &mut run, FitContext { progress, on_progress, stop: deadline.flag() })
    }

    /// Refits the members on all rows where there is time, and measures the predictor.
    fn finish(
        &self,
        trained: TrainedMembers,
        columns: BTreeMap<String, Vec<String>>,
        log: &mut dyn FnMut(String),
        context: &mut FitContext<'_>,
    ) -> Result<FitResult> {
        let TrainedMembers { mut predictor, configs, data, train_rows, failed, mut stopped, seconds } = trained;
        let split = if self.options.test_fraction > 0.0 { Split::Test } else { Split::Valid };
        let mut refit_rows = None;
        if self.can_refit() && !data.is_partial && !stopped {
            let needed = seconds.mul_f64(REFIT_TIME);
            if self.limit.is_none_or(|limit| self.started.elapsed() + needed < limit) {
                log("refitting on all rows, validation rows included".into());
                let refit = self.refit(&configs, context)?;
                // Where it was stopped, the first members are used.
                stopped = refit.is_none();
                if let Some((members, rows)) = refit {
                    predictor.save(&self.options.out, (0..configs.len()).map(member_dir).collect(), members)?;
                    refit_rows = Some(rows);
                }
            }
            if refit_rows.is_some() && split == Split::Test {
                predictor = Predictor::open(&self.options.out, self.registry, self.device)?;
            }
        }
        let manifest = &data.manifest;
        let has_label = |row: &usize| manifest.rows[*row].cells.contains_key(&self.options.label_column);
        let rows: Vec<usize> = manifest.rows_in_split(split).into_iter().filter(has_label).collect();
        let (metrics, ablations) = measure(&predictor, manifest, &rows)?;
        Ok(FitResult {
            problem: predictor.target().problem,
            classes: predictor.target().classes.clone(),
            columns: columns.into_iter().map(|(modality, columns)| (modality, columns.join(" + "))).collect(),
            split,
            metrics,
            ablations,
            train_rows,
            failed,
            stopped,
            num_members: configs.len(),
            refit_rows,
        })
    }

    /// Trains each member again from scratch, on the validation rows as well, for the number of epochs that was best without them; the ensemble
    /// of its heads stays. Returns the folders and the number of rows; `None` when it was stopped.
    fn refit(&self, configs: &[toml::Value], context: &mut FitContext<'_>) -> Result<Option<(Vec<String>, usize)>> {
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

/// Metrics on some rows, and those with each modality alone and without it.
fn measure(predictor: &Predictor, manifest: &Manifest, rows: &[usize]) -> Result<(Metrics, BTreeMap<String, Metrics>)> {
    if rows.is_empty() {
        return Ok(Default::default());
    }
    let modalities = predictor.modalities();
    let evaluate = |exclude: &[Modality]| Ok::<_, Error>(predictor.evaluate(manifest, rows, exclude)?.metrics);
    let metrics = evaluate(&[])?;
    let mut ablations = BTreeMap::new();
    for modality in modalities.iter().filter(|_| modalities.len() > 1) {
        let others: Vec<Modality> = modalities.iter().filter(|m| *m != modality).cloned().collect();
        ablations.insert(format!("{modality}_only"), evaluate(&others)?);
        ablations.insert(format!("without_{modality}"), evaluate(std::slice::from_ref(modality))?);
    }
    Ok((metrics, ablations))
}
