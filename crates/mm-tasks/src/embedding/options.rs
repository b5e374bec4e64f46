//! Options of an embedding.

use crate::{Error, Result};
use mm_core::{Modality, Pooling};
use std::path::{Path, PathBuf};

/// The format of a file with embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// NumPy: one float32 array `[values, dim]`.
    Npy,
    /// Parquet: a table with the columns id, row, modality, value, error and embedding.
    Parquet,
    /// Safetensors: one float32 tensor `[values, dim]` for each modality.
    Safetensors,
}

impl OutputFormat {
    /// The format of a file by its extension.
    ///
    /// # Errors
    /// When it has another extension.
    pub fn from_path(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
            "npy" => Ok(Self::Npy),
            "parquet" => Ok(Self::Parquet),
            "safetensors" => Ok(Self::Safetensors),
            other => {
                let reason = format!("found the extension `{other}`, expected .npy, .parquet or .safetensors");
                Err(Error::file(path, reason))
            }
        }
    }
}

/// Options for embedding a data set.
#[derive(Debug, Clone, Default)]
pub struct EmbedOptions {
    /// The modalities, in this order; when empty, those that both the model and the data set have.
    pub modalities: Vec<Modality>,
    /// How positions are pooled into one vector; as the model's folder states when absent.
    pub pooling: Option<Pooling>,
    /// Whether vectors are normalized to unit length.
    pub normalize: bool,
    /// Whether the first value that cannot be read is an error.
    pub fail_on_error: bool,
}

/// A path with text behind its name, whatever its encoding: `vectors.npy` → `vectors.npy.part`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
