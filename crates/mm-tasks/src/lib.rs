#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! [`retrieval`], [`representation`] learning, [`prediction`] of a column from any modalities, [`captioning`],
//! [`finetuning`] of pretrained models and [`answering`] with them, [`alignment`] of two feature matrices, [`audit`] of
//! a data set, [`embedding`] of whole data sets, [`indexing`] of them for search, work on many files by many workers
//! ([`shards`]), and their [`metrics`] and [`report`]s.
//!
//! Every task that a config file can name implements [`task::TaskModel`] and is found in a [`task::TaskRegistry`].

mod agreement;
pub mod alignment;
pub mod answering;
pub mod audit;
mod batch;
pub mod captioning;
mod checkpoint;
pub mod config;
pub mod embedding;
mod error;
mod features;
pub mod finetuning;
pub mod fit;
pub mod indexing;
mod inputs;
pub mod metrics;
pub mod prediction;
pub mod provenance;
pub mod ranges;
pub mod report;
pub mod representation;
pub mod retrieval;
pub mod shards;
pub mod task;

pub use error::{Error, Result};
pub use task::{FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskRegistry, TaskSpec};

/// The rows of one split of a data set.
///
/// # Errors
/// When it has none.
pub(crate) fn rows_in_split(manifest: &mm_data::Manifest, split: mm_data::Split) -> Result<Vec<usize>> {
    let rows = manifest.rows_in_split(split);
    if rows.is_empty() {
        let path = manifest.path.display();
        return Err(Error::invalid("data.split", format!("no {split} rows in {path}"), "at least one"));
    }
    Ok(rows)
}

/// The built-in encoders, by the `kind` that a config names.
pub fn registry() -> mm_core::Registry {
    let mut registry = mm_core::Registry::new();
    mm_repr::register(&mut registry);
    representation::register(&mut registry);
    registry
}

/// The built-in tasks.
pub fn tasks() -> TaskRegistry {
    let mut tasks = TaskRegistry::new();
    tasks
        .register(retrieval::spec())
        .register(representation::spec())
        .register(prediction::spec())
        .register(captioning::spec())
        .register(finetuning::spec());
    tasks
}
