//! The interface of a reader of a known data set.

use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// A known data set: what it is called, and how the manifest of its unpacked folder is written.
#[derive(Debug, Clone, Copy)]
pub struct DatasetReader {
    /// The name (`mm prepare --dataset`), in lower case with hyphens.
    pub name: &'static str,
    /// One line: what its rows hold, and the package that contains it.
    pub description: &'static str,
    /// Writes the manifest (the second path) of the folder or file to which the data set was unpacked (the first path),
    /// and returns the number of its rows; most readers end with [`write_manifest`].
    pub prepare: fn(&Path, &Path) -> Result<usize>,
}

/// Writes rows as a manifest, one JSON object a line, creating its folder; returns their number.
///
/// # Errors
/// When the file cannot be written.
pub fn write_manifest(manifest: &Path, rows: &[Value]) -> Result<usize> {
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    if let Some(parent) = manifest.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::file(parent, e))?;
    }
    mm_core::checkpoint::write_atomic(manifest, text.as_bytes())?;
    Ok(rows.len())
}
