//! The crate's error type.

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of mm-fusion.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that is out of range, or features that do not fit it.
    #[error("{what}: found {found}, expected {expected}")]
    Config {
        /// The setting or computation.
        what: String,
        /// What was found.
        found: String,
        /// What is valid.
        expected: String,
    },
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

impl Error {
    pub(crate) fn config(what: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Config { what: what.into(), found: found.to_string(), expected: expected.into() }
    }
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            Error::Config { what, found, expected } => Self::Config { field: what, found, expected },
        }
    }
}
