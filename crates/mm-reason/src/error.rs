//! The crate's error type.

use mm_core::Cause;
use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of mm-reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or a request is invalid.
    #[error("{what}: found {found}, expected {expected}")]
    InvalidArgument {
        /// The option or request.
        what: String,
        /// What was found.
        found: String,
        /// What would be valid.
        expected: String,
    },
    /// A file of a checkpoint is missing or invalid.
    #[error("{path}: {source}")]
    Checkpoint {
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
    /// An error of mm-repr.
    #[error(transparent)]
    Repr(#[from] mm_repr::Error),
}

impl Error {
    /// An error about an option or a request.
    pub fn invalid_argument(
        what: impl Into<String>,
        found: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::InvalidArgument { what: what.into(), found: found.to_string(), expected: expected.into() }
    }

    /// An error about a file or folder of a checkpoint.
    pub fn checkpoint(path: impl Into<PathBuf>, cause: impl Into<Cause>) -> Self {
        Self::Checkpoint { path: path.into(), source: cause.into() }
    }
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            Error::Data(data) => data.into(),
            Error::Repr(repr) => repr.into(),
            Error::Checkpoint { path, source } => Self::File { path, source },
            Error::InvalidArgument { what, found, expected } => Self::config(what, found, expected),
        }
    }
}
