//! The crate's one error.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a file and a batch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or understood.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was wrong and what to do.
        reason: String,
    },
    /// A row of a manifest is not what it should be.
    #[error("{path}, row {row}: {reason}")]
    Row {
        /// The manifest.
        path: PathBuf,
        /// Its row, counted from one.
        row: usize,
        /// What was wrong and what to do.
        reason: String,
    },
    /// A column that the schema names is not there.
    #[error("{path}: no column `{column}`; its columns are {known}")]
    Column {
        /// The manifest.
        path: PathBuf,
        /// The column that was wanted.
        column: String,
        /// The columns that it has.
        known: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// A broken sample, where the run was told to fail on one.
    #[error("{sample}; {hint}")]
    FailedSample {
        /// The sample and what was wrong with it.
        sample: String,
        /// How to go on without it.
        hint: &'static str,
    },
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

impl Error {
    /// An error about `path`.
    pub fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            other => Self::Sample(other.to_string()),
        }
    }
}
