//! Captioning: an encoder and a decoder trained to describe images, or values of another modality.

mod config;
mod evaluate;
mod features;
mod model;
mod objective;
mod tokenizer;

pub use config::CaptioningConfig;
pub use evaluate::CaptioningEvaluation;
pub use model::Captioning;

use crate::{
    Error, Result,
    config::{parse_task, to_value},
    metrics::{CaptionScorers, Metrics},
    report::{Report, examples_page},
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec},
};
use mm_core::Params;
use mm_data::{Manifest, Split};
use mm_train::Run;
use std::path::{Path, PathBuf};

/// The name that configs give as `task`.
pub const TASK: &str = "captioning";

/// The command that uses a trained run.
const USAGE: &str = "mm caption";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "describe images, or another modality, in words",
        usage: USAGE,
        parse: |value| parse_task::<CaptioningConfig>(value).map(drop),
        resolve: |value, base_dir, _, _| resolve(value, base_dir),
        build: |value, base_dir, context| {
            Ok(Box::new(Captioning::new(parse_task(value)?, base_dir, context.encoders, context.device)?))
        },
        load: |run, context| Ok(Box::new(Captioning::load(run, context)?)),
        report,
        owns_folder: |_| false,
    }
}

/// Writes the vocabulary of the training captions into a config that has none.
fn resolve(value: &mut toml::Value, base_dir: &Path) -> Result<()> {
    let mut config: CaptioningConfig = parse_task(value)?;
    config.fit_vocabulary(&config.common.base_dir_or(base_dir))?;
    *value = to_value(&config)?;
    Ok(())
}

impl TaskModel for Captioning {
    fn task(&self) -> &'static str {
        TASK
    }

    fn usage(&self) -> &'static str {
        USAGE
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn dataset(&self) -> Result<Manifest> {
        self.dataset()
    }

    fn fit(&self, dataset: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        objective::fit(self, dataset, run, context)
    }

    fn evaluate(&self, split: Split, _: &TaskContext<'_>, on_progress: ProgressFn<'_>) -> Result<EvaluationReport> {
        Ok(self.evaluate_split(split, CaptionScorers::default(), on_progress)?.report())
    }
}

/// The report of runs that differ only in their seed: metrics, and examples of the first run.
fn report(runs: &[PathBuf], split: Split, context: &TaskContext<'_>, on_progress: ProgressFn<'_>) -> Result<Report> {
    let mut metrics: Vec<Metrics> = Vec::new();
    let mut first = None;
    for run in runs {
        on_progress(&format!("evaluating {}", run.display()), metrics.len(), runs.len());
        let model = Captioning::load(run, context)?;
        let evaluation = model.evaluate_split(split, CaptionScorers::default(), &mut |_, _, _| {})?;
        metrics.push(evaluation.metrics.clone());
        first.get_or_insert((model, evaluation.examples));
    }
    let Some((model, examples)) = first else { return Err(Error::invalid("runs", "none", "at least one run folder")) };
    examples_page("Captioning", runs, split, &metrics, &model.dataset()?, &model.modality, &examples)
}
