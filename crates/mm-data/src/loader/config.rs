//! Settings of a loader.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Policy for samples that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorPolicy {
    /// It is left out, logged and counted.
    #[default]
    Skip,
    /// The run fails.
    Fail,
}

/// Settings of a [`Loader`](crate::Loader) (`[loader]` in a config file).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderConfig {
    /// Number of rows in a batch; of items with `group_by_item`.
    pub batch_size: usize,
    /// Number of batches prepared ahead of the one in use.
    pub prefetch: usize,
    /// Number of worker threads; 0 for one for each core.
    pub num_workers: usize,
    /// Policy for samples that cannot be read.
    pub on_error: ErrorPolicy,
    /// A modality by whose length rows are batched, to reduce padding.
    pub bucket_by: Option<String>,
    /// Whether the rows of an item stay together, in their order.
    pub group_by_item: bool,
    /// Modalities whose first value is always taken where a row has several. Of the others one is sampled in training.
    pub always_first_source: Vec<String>,
    /// The rows that training starts with; all rows from the start when absent.
    pub curriculum: Option<Curriculum>,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 32,
            prefetch: 4,
            num_workers: 0,
            on_error: ErrorPolicy::Skip,
            bucket_by: None,
            group_by_item: false,
            always_first_source: Vec::new(),
            curriculum: None,
        }
    }
}

impl LoaderConfig {
    /// Checks the ranges of all settings.
    pub fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::Config("loader.batch_size: found 0, expected at least 1".into()));
        }
        Ok(())
    }
}

/// Easier rows first: the first epochs use only the rows whose cell in a column is one of the given values.
///
/// [*Curriculum Learning*](https://doi.org/10.1145/1553374.1553380) (Bengio et al., 2009).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curriculum {
    /// The column.
    pub column: String,
    /// The values in the easier rows.
    pub values: Vec<String>,
    /// Number of epochs on the easier rows alone.
    pub epochs: u64,
}
