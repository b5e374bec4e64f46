//! The crate's one error.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a question and its answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting, or what was asked, is not what it should be.
    #[error("{what}: found {found}, wanted {wanted}")]
    InvalidArgument {
        /// Which setting, or what was asked.
        what: String,
        /// What was found.
        found: String,
        /// What would do.
        wanted: String,
    },
    /// A file of a checkpoint folder is missing or not what it should be.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What was wrong and what to do.
        reason: String,
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
    /// An error about a setting or a question.
    pub fn invalid_argument(what: impl Into<String>, found: impl std::fmt::Display, wanted: impl Into<String>) -> Self {
        Self::InvalidArgument { what: what.into(), found: found.to_string(), wanted: wanted.into() }
    }

    /// An error about `path`.
    pub fn checkpoint(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::Checkpoint { path: path.into(), reason: reason.to_string() }
    }
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            Error::Data(data) => data.into(),
            Error::Repr(repr) => repr.into(),
            Error::Checkpoint { path, reason } => Self::File { path, reason },
            Error::InvalidArgument { what, found, wanted } => Self::config(what, found, wanted),
        }
    }
}
