//! The training driver that all tasks share, those of other crates included.

use crate::{
    Error, Result,
    config::CommonConfig,
    task::{FitContext, FitOutcome},
};
use mm_core::{
    Modality, Params, Processor, TrainingObjective,
    distributed::{gather_values, process_group},
};
use mm_data::{Batch, FailedSample, Loader, LoaderConfig, Manifest};
use mm_train::{EvalMetrics, Run, TrainHooks, Trainer};
use std::{collections::BTreeMap, sync::Arc};

pub use crate::agreement::agree_on_data;

/// What differs between the training of tasks: the objective (loss and its state), and the evaluation on validation
/// rows. Where several processes train together ([`process_group`]), the batch of a loss is the part of this process
/// ([`Batch::is_shard`]). A trainer holds the state that changes during training; models do not.
pub trait TaskTrainer: TrainingObjective<Batch> {
    /// The parameters to train.
    fn params(&self) -> &Params;

    /// The metric of [`TaskTrainer::evaluate`] that selects the best weights; greater is better.
    fn metric(&self) -> &str;

    /// Metrics on the validation rows; `None` when there are none. Processes that train together all call it, compute
    /// alone, and divide the work that [`map_over_ranks`](mm_core::distributed::map_over_ranks) gets.
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
    agree_on_rows(&data)?;
    let seed = config.train.seed;
    let (rank, world_size) = process_group().map_or((0, 1), |group| (group.rank(), group.world_size()));
    let loader = Loader::builder(data.manifest)
        .shard(rank, world_size)
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
    Ok(FitOutcome { training, failed: gather_failed(loader.failed_samples())?, rows })
}

/// Where several processes train together: checks that all have the same rows, of which each trains on and evaluates a
/// part.
fn agree_on_rows(data: &TrainingData) -> Result<()> {
    let Some(group) = process_group() else { return Ok(()) };
    let mut hasher = blake3::Hasher::new();
    for row in &data.manifest.rows {
        hasher.update(format!("{}\0{}\0{}\0{}\0", row.number, row.id, row.item, row.split).as_bytes());
    }
    for row in &data.rows {
        hasher.update(&row.to_le_bytes());
    }
    let own = format!("{} training rows with the hash {}", data.rows.len(), &hasher.finalize().to_hex()[..12]);
    let all = group.gather_text(&own)?;
    match all.iter().position(|other| *other != all[0]) {
        None => Ok(()),
        Some(rank) => {
            Err(Error::invalid("data", format!("{} in rank {rank}", all[rank]), format!("{} as in rank 0", all[0]))
                .with_hint("the processes read different tables"))
        }
    }
}

/// The samples that the loaders of all processes could not read.
fn gather_failed(own: Vec<FailedSample>) -> Result<Vec<FailedSample>> {
    let Some(group) = process_group() else { return Ok(own) };
    let mut all = gather_values(group.as_ref(), &own)?.concat();
    // A batch that is not cut is read by all.
    all.sort();
    all.dedup();
    Ok(all)
}
