//! Fine-tuning of pretrained models that answer questions, caption images or transcribe speech: all weights, or
//! low-rank adapters. The trained model is a folder that transformers (or PEFT) loads.

mod config;
mod evaluate;
mod model;
mod objective;
mod tokens;

pub use config::FinetuningConfig;
pub use evaluate::FinetuningEvaluation;
pub use model::Finetuning;

use crate::{
    Error, Result,
    config::{parse_task, to_value},
    metrics::Metrics,
    report::{Report, examples_page},
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec},
};
use mm_core::Params;
use mm_data::{Manifest, Split};
use mm_train::Run;
use std::path::{Path, PathBuf};

/// The name that configs give as `task`.
pub const TASK: &str = "finetuning";

/// The command that uses a trained run.
const USAGE: &str = "mm answer` or `mm caption";

/// The folder of a run with the trained model, in the format of transformers or PEFT.
pub const MODEL_DIR: &str = "model";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "fine-tune a pretrained vision-language or speech model",
        usage: USAGE,
        parse: |value| parse_task::<FinetuningConfig>(value).map(drop),
        resolve: |value, base_dir, _, _| resolve(value, base_dir),
        build: |value, base_dir, context| Ok(Box::new(Finetuning::new(parse_task(value)?, base_dir, context.device)?)),
        load: |run, context| Ok(Box::new(Finetuning::load(run, context)?)),
        report,
        owns_folder: |_| false,
    }
}

/// The folder of the trained model, where a folder is a fine-tuning run.
pub fn model_dir(run: &Path) -> Option<PathBuf> {
    let folder = run.join(MODEL_DIR);
    (run.join("config.toml").exists() && folder.is_dir()).then_some(folder)
}

/// Writes the labels of the training rows into the config of a classifier whose checkpoint has others.
fn resolve(value: &mut toml::Value, base_dir: &Path) -> Result<()> {
    let mut config: FinetuningConfig = parse_task(value)?;
    config.fit_labels(&config.common.base_dir_or(base_dir))?;
    *value = to_value(&config)?;
    Ok(())
}

impl TaskModel for Finetuning {
    fn task(&self) -> &'static str {
        TASK
    }

    fn usage(&self) -> &'static str {
        USAGE
    }

    fn params(&self) -> &Params {
        &self.loaded.pipeline.params
    }

    fn dataset(&self) -> Result<Manifest> {
        self.dataset()
    }

    fn fit(&self, dataset: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        objective::fit(self, dataset, run, context)
    }

    fn evaluate(&self, split: Split, _: &TaskContext<'_>, _: ProgressFn<'_>) -> Result<EvaluationReport> {
        Ok(self.evaluate_split(split)?.report())
    }
}

/// The report of runs that differ only in their seed: metrics, and examples of the first run.
fn report(runs: &[PathBuf], split: Split, context: &TaskContext<'_>, on_progress: ProgressFn<'_>) -> Result<Report> {
    let mut metrics: Vec<Metrics> = Vec::new();
    let mut first = None;
    for run in runs {
        on_progress(&format!("evaluating {}", run.display()), metrics.len(), runs.len());
        let model = Finetuning::load(run, context)?;
        let evaluation = model.evaluate_split(split)?;
        metrics.push(evaluation.metrics.clone());
        first.get_or_insert((model, evaluation.examples));
    }
    let Some((model, examples)) = first else { return Err(Error::invalid("runs", "none", "at least one run folder")) };
    examples_page("Fine-tuning", runs, split, &metrics, &model.dataset()?, &model.modality, &examples)
}
