//! Config files with overrides of single values.

use anyhow::{Result, bail};
use std::path::Path;

/// Reads a config file and applies `--set` to it.
///
/// # Errors
/// When there is no such file, it is neither TOML nor JSON, or an override is invalid.
pub(crate) fn read_config(path: &Path, overrides: &[String]) -> Result<toml::Value> {
    if !path.is_file() {
        let found = if path.is_dir() { "a folder" } else { "no such file" };
        bail!(
            "CONFIG {}: found {found}, expected a config file (.toml or .json) as docs/tasks.md describes for each task",
            path.display()
        );
    }
    Ok(mm_core::config::read(path, overrides)?)
}
