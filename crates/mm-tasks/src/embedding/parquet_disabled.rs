//! Stands for the writers of Parquet where the feature `parquet` is off.

use super::write::EmbeddingTable;
use mm_data::Manifest;
use std::path::Path;

const DISABLED: &str = "this build does not write Parquet; build mm-tasks with its `parquet` feature";

impl EmbeddingTable<'_> {
    /// # Errors
    /// Always.
    #[allow(clippy::unused_self)]
    pub(super) fn write_parquet(&self, _: &Path) -> Result<(), &'static str> {
        Err(DISABLED)
    }
}

/// # Errors
/// Always.
pub(super) fn metadata_bytes(_: &Manifest, _: &[usize]) -> Result<Vec<u8>, &'static str> {
    Err(DISABLED)
}
