//! The file next to an array that states which row of a data set each vector is of.

use crate::{Error, Result, error::io_error};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The value that a vector is of. Two arrays correspond row by row where these are equal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct VectorRow {
    /// The id of the row.
    pub id: String,
    /// The index among the row's values; `None` where the row has none.
    #[serde(default)]
    pub value: Option<usize>,
}

/// The file with the rows of an array: `vectors.rows.jsonl` for `vectors.npy`.
pub fn rows_file(array: &Path) -> PathBuf {
    array.with_extension("rows.jsonl")
}

/// Reads the rows of an array; `None` when there is no such file.
///
/// # Errors
/// When the file cannot be read, or lists another number of rows than the array has.
pub fn read_rows(array: &Path, num_vectors: usize) -> Result<Option<Vec<VectorRow>>> {
    let file = rows_file(array);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(&file)(e)),
    };
    let mut rows: Vec<VectorRow> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let expected = r#"{"id": …, "value": …}, as `mm embed` writes it"#;
        let invalid = |e| Error::file(&file, format!("line {}: {e}; expected {expected}", index + 1));
        rows.push(serde_json::from_str(line).map_err(invalid)?);
    }
    if rows.len() != num_vectors {
        let reason = format!(
            "lists {} rows, {} has {num_vectors}; delete the file if it is not of this array",
            rows.len(),
            array.display()
        );
        return Err(Error::file(file, reason));
    }
    Ok(Some(rows))
}

/// Writes the rows of `from` next to the array `to`, whose rows are the same; where `from` has none, those of an
/// earlier array at `to` are removed.
///
/// # Errors
/// When the files cannot be read or written.
pub fn copy_rows(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (rows_file(from), rows_file(to));
    if from == to {
        return Ok(());
    }
    let result = if from.exists() {
        std::fs::copy(&from, &to).map(drop)
    } else {
        match std::fs::remove_file(&to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    };
    result.map_err(io_error(&to))
}
