//! The output folder of a fit: an interrupted fit continues in it, another fit is refused.

use super::{super::predictor::ENSEMBLE_FILE, options::FitOptions};
use crate::{Error, Result};
use mm_core::checkpoint::{FolderLock, write_atomic};
use serde_json::{Value, json};
use std::path::Path;

/// What the fit was started with, in the output folder.
const REQUEST_FILE: &str = "fit.json";

/// Locks the output folder, and records what is fitted in it.
///
/// # Errors
/// When the folder holds a run that no fit made, or a fit of other data or options, or is in use by another process.
pub(super) fn claim(options: &FitOptions, data: &Path, validation: Option<&Path>) -> Result<FolderLock> {
    let out = &options.out;
    let file = out.join(REQUEST_FILE);
    if !file.exists() && (out.join(ENSEMBLE_FILE).exists() || out.join("config.toml").exists()) {
        return Err(Error::file(out, "holds a run already; choose another folder with --out"));
    }
    let lock = FolderLock::acquire(out)?;
    let request = request(options, data, validation)?;
    match std::fs::read(&file) {
        Ok(bytes) => {
            let found: Value = serde_json::from_slice(&bytes).map_err(|e| Error::file(&file, e))?;
            if let Some(difference) = difference(&found, &request) {
                let reason = format!("holds a fit with {difference}; choose another folder with --out");
                return Err(Error::file(out, reason));
            }
        }
        Err(_) => write_atomic(&file, format!("{request:#}\n").as_bytes())?,
    }
    Ok(lock)
}

/// Everything that the models depend on. The time limit is not among it: a fit may be continued with more time.
fn request(options: &FitOptions, data: &Path, validation: Option<&Path>) -> Result<Value> {
    let table = |path: &Path| {
        let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        Ok::<_, Error>(json!({
            "path": path, "bytes": metadata.len(), "modified": modified.map(|t| format!("{}.{:09}", t.as_secs(), t.subsec_nanos())),
        }))
    };
    Ok(json!({
        "data": table(data)?,
        "validation_data": validation.map(table).transpose()?,
        "label_column": options.label_column,
        "columns": options.columns,
        "problem": format!("{:?}", options.problem),
        "group_column": options.group_column,
        "test_fraction": options.test_fraction,
        "preset": format!("{:?}", options.preset),
        "refit": options.refit,
        "seed": options.seed,
    }))
}

/// The first setting in which two requests differ.
fn difference(found: &Value, expected: &Value) -> Option<String> {
    let keys = expected.as_object().into_iter().flat_map(|o| o.keys());
    keys.map(|key| (key, &found[key], &expected[key]))
        .find(|(_, a, b)| a != b)
        .map(|(key, a, b)| format!("{key} = {a}, expected {b}"))
}
