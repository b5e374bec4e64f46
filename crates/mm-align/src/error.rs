//! The crate's one error.

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in mm-align.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two sets of features do not go together.
    #[error("{what}: found {found}, wanted {wanted}")]
    Features {
        /// What was being computed.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            Error::Features { what, found, wanted } => Self::Config { field: what.into(), found, wanted },
        }
    }
}
