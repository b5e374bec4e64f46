//! What a user asks for. So far: [`alignment`] of two arrays, cross-modal [`retrieval`], learned [`representation`], [`prediction`] of a
//! column from any modalities, their [`report`]s behind one door ([`job`]), [`answering`] of questions, and the [`embedding`] of whole data
//! sets.

pub mod alignment;
pub mod answering;
pub mod attending;
pub mod audit;
pub mod captioning;
pub mod embedding;
mod error;
mod features;
pub mod finetuning;
pub mod job;
pub mod metrics;
pub mod prediction;
pub mod report;
pub mod representation;
pub mod retrieval;
pub mod spelling;

pub use error::{Error, Result};

/// Told about long work before training: what, how much is done, of how much.
pub type Told<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// How a fit ended.
pub struct Fit {
    /// Where the training stands.
    pub outcome: mm_train::TrainOutcome,
    /// Samples that were skipped.
    pub broken: Vec<mm_data::FailedSample>,
    /// Rows that were trained on.
    pub rows: usize,
}

/// The rows of one side of a data set; an error when it has none.
pub(crate) fn side(manifest: &mm_data::Manifest, split: mm_data::Split) -> Result<Vec<usize>> {
    let rows = manifest.rows_in_split(split);
    if rows.is_empty() {
        let path = manifest.path.display();
        return Err(Error::Config(format!(
            "the {split} side of {path} has no rows; data.split says how rows are split"
        )));
    }
    Ok(rows)
}

/// Every encoder that this build knows, by the `kind` that a config names.
pub fn registry() -> mm_core::Registry {
    let mut registry = mm_core::Registry::new();
    mm_repr::register(&mut registry);
    representation::register(&mut registry);
    registry
}
