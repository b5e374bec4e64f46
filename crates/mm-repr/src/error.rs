//! This crate's error type.

use mm_core::Cause;
use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of loading and running encoders.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a checkpoint folder is missing or invalid.
    #[error("{path}: {source}")]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        source: Cause,
    },
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
    /// An error of mm-data.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
}

impl Error {
    /// An error about `path`.
    pub fn folder(path: impl Into<PathBuf>, cause: impl Into<Cause>) -> Self {
        Self::Folder { path: path.into(), source: cause.into() }
    }
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            Error::Data(data) => data.into(),
            Error::Folder { path, source } => Self::File { path, source },
        }
    }
}
