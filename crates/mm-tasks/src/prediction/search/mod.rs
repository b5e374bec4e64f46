//! Search over fusion operators and other settings by successive halving.
//!
//! Random settings of a search space are trained for a few epochs, the best of them for twice as many, and so on, and
//! are compared on the validation rows. Any value of the config may be in the space, such as the layers of an encoder.
//!
//! From *Non-stochastic Best Arm Identification and Hyperparameter Optimization* (Jamieson and Talwalkar, 2016,
//! <https://arxiv.org/abs/1502.07943>); searching the layers that are fused as in *MFAS: Multimodal Fusion Architecture
//! Search* (Pérez-Rúa et al., 2019, <https://arxiv.org/abs/1903.06496>).

mod report;
mod space;

pub use space::{SearchSpace, parse_search_space};

use super::{config::PredictionConfig, evaluation::SELECTION_METRIC, fit::fit, model::Prediction, resolve::resolve};
use crate::{
    Error, Result,
    config::parse_task,
    report::Report,
    task::{FitContext, ProgressFn, TaskContext},
};
use mm_core::{checkpoint, config as settings};
use mm_data::Split;
use mm_train::{NoopProgress, Run, environment};
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The config of the best trial, in the folder of a search.
const BEST_FILE: &str = "best.toml";

/// Options of the search.
#[derive(Debug, Clone)]
pub struct SearchOptions {
    /// The search space; every fusion operator and the fusion dimensions 32, 64 and 128 when empty.
    pub space: SearchSpace,
    /// Number of sampled settings; all of them when the space has fewer.
    pub num_trials: usize,
    /// Number of rounds; each trains twice as long as the one before, the last for as many epochs as the config states.
    pub num_rounds: usize,
    /// Fraction of the settings that goes on to the next round.
    pub keep_fraction: f64,
    /// Seed of the sampled settings.
    pub seed: u64,
}

/// One sampled setting and its results.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// Keys of the config and their values.
    pub settings: Vec<(String, String)>,
    /// For each round that it took part in: epochs, and the score on the validation rows.
    pub scores: Vec<(u64, f64)>,
    /// Why it could not be trained.
    pub error: Option<String>,
}

impl Trial {
    /// The settings as text, without the tables of their keys.
    fn name(&self) -> String {
        let setting = |(key, value): &(String, String)| format!("{}={value}", key.rsplit('.').next().unwrap_or(key));
        self.settings.iter().map(setting).collect::<Vec<_>>().join(" ")
    }

    fn last_score(&self) -> f64 {
        self.scores.last().map_or(f64::NEG_INFINITY, |s| s.1)
    }
}

/// A search in progress.
struct Search<'a> {
    /// The resolved config.
    config: toml::Value,
    base_dir: &'a Path,
    out: &'a Path,
    options: &'a SearchOptions,
    context: &'a TaskContext<'a>,
}

/// Searches settings for a config; returns the trials, best first, and a page with them. The best config is written to
/// `best.toml` in `out`, the trials to `search.json`.
///
/// # Errors
/// When the options are out of range, the config has no validation rows, or no setting can be trained.
pub fn search(
    config: &toml::Value,
    base_dir: &Path,
    out: &Path,
    options: &SearchOptions,
    context: &TaskContext<'_>,
    (on_progress, stop): (ProgressFn<'_>, &AtomicBool),
) -> Result<(Vec<Trial>, Report)> {
    if options.num_rounds == 0 || options.num_trials == 0 {
        let found = format!("{} trials in {} rounds", options.num_trials, options.num_rounds);
        return Err(Error::invalid("fusion-search", found, "at least one trial and one round"));
    }
    if !(0.0 < options.keep_fraction && options.keep_fraction < 1.0) {
        return Err(Error::invalid("keep_fraction", options.keep_fraction, "a number in (0, 1)"));
    }
    let mut config = config.clone();
    resolve(&mut config, base_dir, context.encoders, &mut |text| tracing::info!("{text}"))?;
    std::fs::create_dir_all(out).map_err(|e| Error::file(out, e))?;
    let search = Search { config, base_dir, out, options, context };
    let trials = search.run(on_progress, stop)?;
    let report = report::search_report(&trials)?;
    Ok((trials, report))
}

/// Epochs of a round (from 0): half of those of the next one, at least 1.
fn epochs_of_round(epochs: u64, num_rounds: usize, round: usize) -> u64 {
    let halvings = u32::try_from(num_rounds - 1 - round).unwrap_or(u32::MAX);
    epochs.checked_shr(halvings).unwrap_or(0).max(1)
}

impl Search<'_> {
    fn run(&self, on_progress: ProgressFn<'_>, stop: &AtomicBool) -> Result<Vec<Trial>> {
        let SearchOptions { num_rounds, keep_fraction, .. } = *self.options;
        let epochs = parse_task::<PredictionConfig>(&self.config)?.common.train.epochs;
        let settings = space::sample(&self.options.space, self.options.num_trials, self.options.seed);
        let mut trials: Vec<Trial> =
            settings.into_iter().map(|settings| Trial { settings, scores: Vec::new(), error: None }).collect();
        let mut remaining: BTreeSet<usize> = (0..trials.len()).collect();
        'rounds: for round in 0..num_rounds {
            let epochs = epochs_of_round(epochs, num_rounds, round);
            for (done, index) in remaining.iter().enumerate() {
                let label = format!("round {} of {num_rounds}, {epochs} epochs", round + 1);
                on_progress(&label, done, remaining.len());
                if stop.load(Ordering::Relaxed) {
                    break 'rounds;
                }
                let dir = self.out.join(format!("trials/{index}-{round}"));
                match self.train(&dir, &trials[*index].settings, epochs, stop) {
                    Ok(score) => trials[*index].scores.push((epochs, score)),
                    // Some settings exclude each other; the other trials go on.
                    Err(error) => trials[*index].error = Some(error.to_string()),
                }
            }
            let mut order: Vec<usize> = remaining.iter().copied().filter(|n| trials[*n].error.is_none()).collect();
            order.sort_by(|a, b| trials[*b].last_score().total_cmp(&trials[*a].last_score()));
            let kept = ((order.len() as f64 * keep_fraction).ceil() as usize).max(1);
            remaining = order.into_iter().take(kept).collect();
            self.save(&trials)?;
        }
        // By the number of rounds, then by score.
        trials.sort_by(|a, b| b.scores.len().cmp(&a.scores.len()).then(b.last_score().total_cmp(&a.last_score())));
        self.save(&trials)?;
        let Some(best) = trials.first().filter(|t| !t.scores.is_empty()) else {
            let reason = trials.iter().find_map(|t| t.error.clone()).unwrap_or_else(|| "stopped".into());
            let found = format!("no setting that can be trained ({reason})");
            return Err(Error::invalid("fusion-search", found, "at least one"));
        };
        let path = self.out.join(BEST_FILE);
        let text = toml::to_string_pretty(&self.with_settings(&best.settings)?).map_err(|e| Error::file(&path, e))?;
        checkpoint::write_atomic(&path, text.as_bytes())?;
        Ok(trials)
    }

    /// The config with the settings of a trial.
    fn with_settings(&self, trial: &[(String, String)]) -> Result<toml::Value> {
        let mut config = self.config.clone();
        for (key, value) in trial {
            // Another operator replaces all of the table, so that no option of the previous one remains.
            match key.strip_suffix(".kind") {
                Some(table) => settings::set(&mut config, &format!("{table}={{kind={value}}}"))?,
                None => settings::set(&mut config, &format!("{key}={value}"))?,
            }
        }
        Ok(config)
    }

    /// Trains a setting in a new run folder; returns the best score on the validation rows.
    fn train(&self, dir: &Path, trial: &[(String, String)], epochs: u64, stop: &AtomicBool) -> Result<f64> {
        let mut config = self.with_settings(trial)?;
        settings::set(&mut config, &format!("train.epochs={epochs}"))?;
        settings::set(&mut config, "train.evaluate_every_epochs=1")?;
        let device = self.context.device;
        let model = Prediction::new(parse_task(&config)?, self.base_dir, self.context.encoders, device)?;
        let manifest = model.dataset()?;
        if manifest.rows_in_split(Split::Valid).is_empty() {
            return Err(Error::invalid("data.split.valid", "no validation rows", "rows to compare settings on")
                .with_hint("set data.split.valid = 0.2, or data.valid to a table"));
        }
        // A folder of an earlier search is replaced.
        if dir.exists() {
            std::fs::remove_dir_all(dir).map_err(|e| Error::file(dir, e))?;
        }
        let mut run = Run::create(dir, &config, environment(json!({"device": device.to_string()})))?;
        let context = FitContext { progress: &mut NoopProgress, on_progress: &mut |_, _, _| {}, stop };
        let outcome = fit(&model, &Arc::new(manifest), &mut run, context)?;
        outcome.training.state.best.ok_or_else(|| Error::Stopped {
            what: format!("training before the first `{SELECTION_METRIC}`"),
            done: outcome.training.state.epoch as usize,
            total: epochs as usize,
            hint: "start the search again",
        })
    }

    fn save(&self, trials: &[Trial]) -> Result<()> {
        let path = self.out.join("search.json");
        let text = serde_json::to_string_pretty(trials).map_err(|e| Error::file(&path, e))?;
        Ok(checkpoint::write_atomic(&path, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::epochs_of_round;

    #[test]
    fn rounds_double_the_epochs_however_many_there_are() {
        assert_eq!([0, 1, 2].map(|round| epochs_of_round(12, 3, round)), [3, 6, 12]);
        assert_eq!([0, 1, 62, 63, 64].map(|round| epochs_of_round(12, 65, round)), [1, 1, 3, 6, 12]);
    }
}
