//! transformers' feature extractor configs.

use crate::{Error, Result, family::ModelBuilder};
use serde_json::Value;
use std::path::PathBuf;

/// A feature extractor's settings: `preprocessor_config.json`, or that part of `processor_config.json`.
pub(super) struct FeatureExtractorConfig {
    file: PathBuf,
    json: Value,
}

impl FeatureExtractorConfig {
    pub(super) fn read(b: &ModelBuilder<'_>) -> Result<Self> {
        let file = b.folder.join("preprocessor_config.json");
        let json = b.json("preprocessor_config.json")?;
        if !json.is_null() {
            return Ok(Self { file, json });
        }
        let whole = b.json("processor_config.json")?;
        let part = ["feature_extractor", "audio_processor"].iter().map(|k| &whole[*k]).find(|v| !v.is_null());
        let json = part.cloned().ok_or_else(|| {
            Error::folder(
                b.folder,
                "no preprocessor_config.json here, so the preprocessing is unknown; fetch the model again with all its files",
            )
        })?;
        Ok(Self { file, json })
    }

    /// An error about the settings.
    pub(super) fn error(&self, reason: impl Into<mm_core::Cause>) -> Error {
        Error::folder(&self.file, reason)
    }

    /// A positive integer; some files have it as 480.0.
    pub(super) fn count(&self, key: &str, default: usize) -> Result<usize> {
        match &self.json[key] {
            Value::Null => Ok(default),
            v => match v.as_f64().filter(|n| *n >= 1.0 && *n <= 1e9) {
                Some(n) => Ok(n as usize),
                None => Err(self.error(format!("{key}: found {v}, expected a positive number"))),
            },
        }
    }

    pub(super) fn number(&self, key: &str, default: f64) -> f64 {
        self.json[key].as_f64().unwrap_or(default)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        self.json[key].as_bool().unwrap_or(default)
    }

    pub(super) fn string<'s>(&'s self, key: &str, default: &'s str) -> &'s str {
        self.json[key].as_str().unwrap_or(default)
    }
}
