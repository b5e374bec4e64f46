//! The output folder of a fit: an interrupted fit continues in it, another fit is refused.

use super::{super::predictor::ENSEMBLE_FILE, options::FitOptions};
use crate::{Error, Result};
use mm_core::checkpoint::{FolderLock, write_atomic};
use serde_json::{Value, json};
use std::path::Path;

/// What the fit was started with, in the output folder.
const REQUEST_FILE: &str = "fit.json";

/// A fit and the folder that it writes.
pub(super) struct Request<'a> {
    out: &'a Path,
    /// Everything that the models depend on.
    json: Value,
}

impl<'a> Request<'a> {
    /// A fit of these tables with these options. The time limit is not part of it: a fit may be continued with more
    /// time.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(super) fn new(options: &'a FitOptions, data: &Path, validation: Option<&Path>) -> Result<Self> {
        let table = |path: &Path| {
            let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
            let modified = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            let modified = modified.map(|t| format!("{}.{:09}", t.as_secs(), t.subsec_nanos()));
            Ok::<_, Error>(json!({"path": path, "bytes": metadata.len(), "modified": modified}))
        };
        let json = json!({
            "data": table(data)?,
            "validation_data": validation.map(table).transpose()?,
            "label_column": options.label_column,
            "columns": options.columns,
            "encoding": options.encoding,
            "missing_values": options.missing_values,
            "fetch_urls": options.fetch_urls,
            "problem": format!("{:?}", options.problem),
            "group_column": options.group_column,
            "test_fraction": options.test_fraction,
            "preset": format!("{:?}", options.preset),
            "refit": options.refit,
            "seed": options.seed,
        });
        Ok(Self { out: &options.out, json })
    }

    /// Locks the output folder, and records what is fitted in it.
    ///
    /// # Errors
    /// Those of [`Request::check`], and when the folder is in use by another process or cannot be written.
    pub(super) fn claim(&self) -> Result<FolderLock> {
        let lock = FolderLock::acquire(self.out)?;
        self.check()?;
        let file = self.out.join(REQUEST_FILE);
        if !file.exists() {
            write_atomic(&file, format!("{:#}\n", self.json).as_bytes())?;
        }
        Ok(lock)
    }

    /// Refuses a folder that holds something else than this fit.
    ///
    /// # Errors
    /// When the folder holds a run that no fit made, or a fit of other data or options.
    pub(super) fn check(&self) -> Result<()> {
        let out = self.out;
        let file = out.join(REQUEST_FILE);
        let Ok(bytes) = std::fs::read(&file) else {
            if out.join(ENSEMBLE_FILE).exists() || out.join("config.toml").exists() {
                return Err(Error::file(out, "holds a run already; choose another folder with --out"));
            }
            return Ok(());
        };
        let found: Value = serde_json::from_slice(&bytes).map_err(|e| Error::file(&file, e))?;
        match difference(&found, &self.json) {
            Some(difference) => {
                Err(Error::file(out, format!("holds a fit with {difference}; choose another folder with --out")))
            }
            None => Ok(()),
        }
    }
}

/// The first setting in which two requests differ.
fn difference(found: &Value, expected: &Value) -> Option<String> {
    let keys = expected.as_object().into_iter().flat_map(|object| object.keys());
    keys.map(|key| (key, &found[key], &expected[key]))
        .find(|(_, a, b)| a != b)
        .map(|(key, a, b)| format!("{key} = {a}, expected {b}"))
}
