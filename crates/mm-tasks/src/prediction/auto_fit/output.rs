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
/// Those of [`check`], and when the folder is in use by another process or cannot be written.
pub(super) fn claim(options: &FitOptions, data: &Path, validation: Option<&Path>) -> Result<FolderLock> {
    let lock = FolderLock::acquire(&options.out)?;
    check(options, data, validation)?;
    let file = options.out.join(REQUEST_FILE);
    if !file.exists() {
        write_atomic(&file, format!("{:#}\n", request(options, data, validation)?).as_bytes())?;
    }
    Ok(lock)
}

/// Refuses a folder that holds something else than this fit.
///
/// # Errors
/// When the folder holds a run that no fit made, or a fit of other data or options.
pub(super) fn check(options: &FitOptions, data: &Path, validation: Option<&Path>) -> Result<()> {
    let out = &options.out;
    let file = out.join(REQUEST_FILE);
    let Ok(bytes) = std::fs::read(&file) else {
        if out.join(ENSEMBLE_FILE).exists() || out.join("config.toml").exists() {
            return Err(Error::file(out, "holds a run already; choose another folder with --out"));
        }
        return Ok(());
    };
    let found: Value = serde_json::from_slice(&bytes).map_err(|e| Error::file(&file, e))?;
    match difference(&found, &request(options, data, validation)?) {
        Some(difference) => {
            Err(Error::file(out, format!("holds a fit with {difference}; choose another folder with --out")))
        }
        None => Ok(()),
    }
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
    let keys = expected.as_object().into_iter().flat_map(|object| object.keys());
    keys.map(|key| (key, &found[key], &expected[key]))
        .find(|(_, a, b)| a != b)
        .map(|(key, a, b)| format!("{key} = {a}, expected {b}"))
}
