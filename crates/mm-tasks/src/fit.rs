//! The training driver that all tasks share, those of other crates included.

use crate::{
    Error, Result,
    config::CommonConfig,
    task::{FitContext, FitOutcome},
};
use mm_core::{Modality, Params, Processor, TrainingObjective};
use mm_data::{Batch, Loader, LoaderConfig, Manifest};
use mm_train::{EvalMetrics, Run, TrainHooks, Trainer};
use std::{collections::BTreeMap, sync::Arc};

/// What differs between the training of tasks: the objective (loss and its state), and the evaluation on validation
/// rows. A trainer holds the state that changes during training; models do not.
pub trait TaskTrainer: TrainingObjective<Batch> {
    /// The parameters to train.
    fn params(&self) -> &Params;

    /// The metric of [`TaskTrainer::evaluate`] that selects the best weights; greater is better.
    fn metric(&self) -> &str;

    /// Metrics on the validation rows; `None` when there are none.
    ///
    /// # Errors
    /// When they cannot be read.
    fn evaluate(&self) -> Result<Option<EvalMetrics>>;
}

/// The data of a training run.
pub struct TrainingData {
    /// The data set.
    pub manifest: Arc<Manifest>,
    /// The training rows.
    pub rows: Vec<usize>,
    /// The processor of each modality.
    pub processors: BTreeMap<Modality, Arc<dyn Processor>>,
    /// Settings of the data loader.
    pub loader: LoaderConfig,
}

/// Trains from the start, or from the last checkpoint of the run folder.
///
/// # Errors
/// When there are fewer than two training rows, or training fails.
pub fn run_training(
    trainer: &impl TaskTrainer,
    config: &CommonConfig,
    data: TrainingData,
    run: &mut Run,
    context: FitContext<'_>,
) -> Result<FitOutcome> {
    let rows = data.rows.len();
    if rows < 2 {
        let found = format!("{rows} training rows in {}", data.manifest.path.display());
        return Err(Error::invalid("data", found, "at least two"));
    }
    let seed = config.train.seed;
    let loader = Loader::builder(data.manifest)
        .rows(data.rows)
        .processors(data.processors)
        .config(data.loader)
        .seed(seed)
        .for_training()
        .build()?;
    let hooks =
        TrainHooks { evaluate: &mut || Ok(trainer.evaluate()?), progress: context.progress, stop: context.stop };
    let training = Trainer::new(&config.train, trainer, trainer.params(), &loader)?;
    let training = training.with_metric(trainer.metric()).fit(run, hooks)?;
    Ok(FitOutcome { training, failed: loader.failed_samples(), rows })
}
