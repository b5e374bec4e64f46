//! Prediction as a registered task.

use super::{Prediction, PredictionConfig, Predictor, resolve};
use crate::{
    Error, Result,
    config::parse_task,
    report,
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec},
};
use mm_core::{Device, Params};
use mm_data::{Manifest, Split};
use mm_train::Run;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The name that configs give as `task`.
pub const TASK: &str = "prediction";

/// The command that uses a trained run.
const USAGE: &str = "mm predict";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "predict a column from any modalities",
        usage: USAGE,
        parse: |value| parse_task::<PredictionConfig>(value).map(drop),
        resolve: |value, base, context, log| resolve(value, base, context.encoders, log),
        build: |value, base, context| {
            Ok(Box::new(Prediction::new(parse_task(value)?, base, context.encoders, context.device)?))
        },
        load: |run, context| Ok(Box::new(LoadedPrediction::open(run, context)?)),
        report: |runs, split, context, _| report::build_prediction(runs, split, context.encoders, context.device),
        owns_folder: |run| run.join("ensemble.json").exists(),
    }
}

impl TaskModel for Prediction {
    fn task(&self) -> &'static str {
        TASK
    }

    fn usage(&self) -> &'static str {
        USAGE
    }

    fn params(&self) -> &Params {
        self.params()
    }

    fn dataset(&self) -> Result<Manifest> {
        self.manifest()
    }

    fn fit(&self, dataset: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        self.fit(Arc::new(dataset), run, context.progress, context.on_progress, context.stop)
    }

    fn evaluate(&self, _: Split, _: &TaskContext<'_>, _: ProgressFn<'_>) -> Result<EvaluationReport> {
        Err(Error::invalid("model", "a prediction model that is still trained", "one loaded from its run folder"))
    }
}

/// A run folder, or an ensemble of such, loaded to be evaluated.
struct LoadedPrediction {
    run: PathBuf,
    predictor: Predictor,
    device: Device,
}

impl LoadedPrediction {
    fn open(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let predictor = Predictor::open(run, context.encoders, context.device)?;
        Ok(Self { run: run.to_owned(), predictor, device: context.device })
    }
}

impl TaskModel for LoadedPrediction {
    fn task(&self) -> &'static str {
        TASK
    }

    fn usage(&self) -> &'static str {
        USAGE
    }

    fn params(&self) -> &Params {
        self.predictor.first().params()
    }

    fn dataset(&self) -> Result<Manifest> {
        self.predictor.manifest()
    }

    fn fit(&self, _: Manifest, _: &mut Run, _: FitContext<'_>) -> Result<FitOutcome> {
        Err(Error::invalid("model", "a trained prediction run", "a fresh model").with_hint("train with `mm train`"))
    }

    fn evaluate(&self, split: Split, context: &TaskContext<'_>, _: ProgressFn<'_>) -> Result<EvaluationReport> {
        let other;
        // Rows that were chosen on are measured by the networks that had not learned from them.
        let predictor = if split == Split::Test {
            &self.predictor
        } else {
            other = Predictor::open_for(&self.run, split, context.encoders, self.device)?;
            &other
        };
        let manifest = predictor.manifest()?;
        let rows = crate::rows_in_split(&manifest, split)?;
        let mut evaluation = predictor.evaluate(&manifest, &rows, &[])?;
        predictor.add_baselines(&mut evaluation.metrics, &manifest, &rows)?;
        Ok(evaluation.report())
    }
}
