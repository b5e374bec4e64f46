//! The crate's error type.

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of mm-align.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Features, labels or settings that a function cannot work with.
    #[error("{what}: found {found}, expected {expected}")]
    InvalidInput {
        /// The function or setting.
        what: &'static str,
        /// What it was given.
        found: String,
        /// What it needs.
        expected: String,
    },
    /// An error of a method that another crate defines.
    #[error(transparent)]
    Method(Box<dyn std::error::Error + Send + Sync>),
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            Error::Method(source) => Self::Other(source),
            Error::InvalidInput { what, found, expected } => Self::Config { field: what.into(), found, expected },
        }
    }
}
