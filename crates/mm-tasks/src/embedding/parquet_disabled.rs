//! Stands for the writer of Parquet where the feature `parquet` is off.

use super::write::EmbeddingTable;
use std::path::Path;

impl EmbeddingTable<'_> {
    /// # Errors
    /// Always.
    #[allow(clippy::unused_self)]
    pub(super) fn write_parquet(&self, _: &Path) -> Result<(), &'static str> {
        Err(
            "this build does not write Parquet; build mm-tasks with its `parquet` feature, or write .npy or .safetensors",
        )
    }
}
