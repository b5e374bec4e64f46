//! The task `template_name`: how a program builds, loads, trains and evaluates its model.

use super::{config::TemplateNameConfig, model::TemplateName, training};
use mm_core::Params;
use mm_data::{Manifest, Split};
use mm_tasks::{
    Result, TaskContext, TaskSpec,
    config::{TaskConfig, parse_task, to_value},
    report::metrics_report,
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskModel},
};
use mm_train::Run;
use std::{path::Path, sync::Arc};

/// The name that configs give as `task`.
pub const TASK: &str = "template_name";

/// The command that uses a trained run.
const USAGE: &str = "mm eval";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "predict a number from one modality",
        usage: USAGE,
        parse: |value| parse_task::<TemplateNameConfig>(value).map(drop),
        resolve,
        build: |value, base_dir, context| Ok(Box::new(TemplateName::new(parse_task(value)?, base_dir, context)?)),
        load: |run, context| Ok(Box::new(TemplateName::load(run, context)?)),
        report: |runs, split, context, _| {
            let models = runs.iter().map(|run| TemplateName::load(run, context));
            let metrics = models.map(|model| model?.metrics(split)).collect::<Result<Vec<_>>>()?;
            metrics_report("Prediction of a number", runs, split, &metrics)
        },
        owns_folder: |_| false,
    }
}

/// Writes what is computed from the training rows into the config, so that a run does not need them again.
fn resolve(
    value: &mut toml::Value,
    base_dir: &Path,
    context: &TaskContext<'_>,
    log: &mut dyn FnMut(String),
) -> Result<()> {
    let mut config: TemplateNameConfig = parse_task(value)?;
    config.complete(base_dir, context.encoders)?;
    if let Some([mean, deviation]) = config.statistics {
        log(format!("{}: mean {mean:.3}, standard deviation {deviation:.3}", config.target));
    }
    *value = to_value(&config)?;
    Ok(())
}

impl TaskModel for TemplateName {
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
        training::fit(self, Arc::new(dataset), run, context)
    }

    fn evaluate(&self, split: Split, _: &TaskContext<'_>, _: ProgressFn<'_>) -> Result<EvaluationReport> {
        let manifest = self.dataset()?;
        let rows = self.config.rows(&manifest, split)?.len();
        Ok(EvaluationReport::new(split, rows, self.metrics(split)?))
    }
}
