//! Stands for the writer of Parquet where the feature `parquet` is off.

use super::RowPrediction;

/// # Errors
/// Always.
pub(super) fn parquet_bytes(_: &[RowPrediction], _: &[&String]) -> Result<Vec<u8>, &'static str> {
    Err("this build does not write Parquet; build mm-tasks with its `parquet` feature, or write .csv or .jsonl")
}
