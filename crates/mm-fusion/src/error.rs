//! The crate's one error.

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in mm-fusion.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting, or features that do not go with it.
    #[error("{what}: found {found}, wanted {wanted}")]
    Config {
        /// What was being set up or computed.
        what: String,
        /// What was found.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

impl Error {
    pub(crate) fn config(what: impl Into<String>, found: impl ToString, wanted: impl Into<String>) -> Self {
        Self::Config { what: what.into(), found: found.to_string(), wanted: wanted.into() }
    }
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            Error::Config { what, found, wanted } => Self::Config { field: what, found, wanted },
        }
    }
}
