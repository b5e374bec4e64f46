//! Prediction as a registered task.

use super::{
    config::{PredictionConfig, TASK},
    fit::fit,
    model::Prediction,
    predictor::{ENSEMBLE_FILE, Predictor},
    report::build_report,
    resolve::resolve,
};
use crate::{
    Error, Result,
    config::parse_task,
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec},
};
use mm_core::{Device, Params};
use mm_data::{Manifest, Split};
use mm_train::Run;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The command that uses a trained run.
const USAGE: &str = "mm predict";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "predict a column from any modalities",
        usage: USAGE,
        parse: |value| parse_task::<PredictionConfig>(value).map(drop),
        resolve: |value, base_dir, context, log| resolve(value, base_dir, context.encoders, log),
        build: |value, base_dir, context| {
            Ok(Box::new(Prediction::new(parse_task(value)?, base_dir, context.encoders, context.device)?))
        },
        load: |run, context| Ok(Box::new(LoadedPrediction::open(run, context)?)),
        report: |runs, split, context, _| build_report(runs, split, context),
        owns_folder: |run| run.join(ENSEMBLE_FILE).exists(),
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
        self.dataset()
    }

    fn fit(&self, dataset: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        fit(self, &Arc::new(dataset), run, context)
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
        self.predictor.dataset()
    }

    fn fit(&self, _: Manifest, _: &mut Run, _: FitContext<'_>) -> Result<FitOutcome> {
        Err(Error::invalid("model", "a trained prediction run", "an untrained model")
            .with_hint("train with `mm train`"))
    }

    fn evaluate(&self, split: Split, context: &TaskContext<'_>, _: ProgressFn<'_>) -> Result<EvaluationReport> {
        let other;
        // Validation rows are evaluated with the members that were not refit on them.
        let predictor = if split == Split::Test {
            &self.predictor
        } else {
            other = Predictor::open_for_split(&self.run, split, context.encoders, self.device)?;
            &other
        };
        let manifest = predictor.dataset()?;
        let rows = crate::rows_in_split(&manifest, split)?;
        let mut evaluation = predictor.evaluate(&manifest, &rows, &[])?;
        predictor.add_baselines(&mut evaluation.metrics, &manifest, &rows)?;
        Ok(evaluation.report(Some(split)))
    }
}
