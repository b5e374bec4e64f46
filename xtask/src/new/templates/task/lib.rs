//! The task `template_name`: a number is predicted from one modality, by a linear layer on top of an encoder.
//!
//! A program registers [`spec`]; a config then names it: `task = "template_name"`.

mod config;
mod model;
#[cfg(test)]
mod tests;
mod training;

pub use config::TemplateNameConfig;
pub use model::TemplateName;

use mm_tasks::{
    Result, TaskContext, TaskSpec,
    config::{parse_task, to_value},
    report::metrics_report,
};
use std::path::Path;

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
