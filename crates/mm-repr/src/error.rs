//! This crate's error type.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of loading and running encoders.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a checkpoint folder is missing or invalid.
    #[error("{path}: {reason}")]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
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
    pub fn folder(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::Folder { path: path.into(), reason: reason.to_string() }
    }
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            Error::Data(data) => data.into(),
            Error::Folder { path, reason } => Self::File { path, reason },
        }
    }
}
