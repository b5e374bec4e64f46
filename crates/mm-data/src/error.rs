//! The crate's error type.

use mm_core::Cause;
use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of loading data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or decoded.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        source: Cause,
    },
    /// A row of a manifest is invalid.
    #[error("{path}, row {row}: {reason}")]
    Row {
        /// The manifest.
        path: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A column that the config names is missing.
    #[error("{path}: no column `{column}`; its columns are {known}")]
    Column {
        /// The manifest.
        path: PathBuf,
        /// The column that was expected.
        column: String,
        /// The columns that it has.
        known: String,
    },
    /// A setting is invalid.
    #[error("{0}")]
    Config(String),
    /// A sample cannot be read, and the loader is set to fail then.
    #[error("{sample}; {hint}")]
    FailedSample {
        /// The sample and what is wrong with it.
        sample: String,
        /// How to continue without it.
        hint: &'static str,
    },
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

impl Error {
    /// An error about the file `path`.
    pub fn file(path: impl Into<PathBuf>, cause: impl Into<Cause>) -> Self {
        Self::File { path: path.into(), source: cause.into() }
    }
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            other => Self::Other(Box::new(other)),
        }
    }
}
