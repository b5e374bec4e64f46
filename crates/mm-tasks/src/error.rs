//! The crate's one error.

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in a task.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting or an argument makes no sense.
    #[error("{0}")]
    Config(String),
    /// A file could not be written or read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What was wrong.
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
    /// An error of mm-align.
    #[error(transparent)]
    Align(#[from] mm_align::Error),
    /// An error of mm-fusion.
    #[error(transparent)]
    Fusion(#[from] mm_fusion::Error),
    /// An error of mm-reason.
    #[error(transparent)]
    Reason(#[from] mm_reason::Error),
    /// An error of mm-train.
    #[error(transparent)]
    Train(#[from] mm_train::Error),
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            other => Self::Sample(other.to_string()),
        }
    }
}

impl From<Error> for mm_train::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Train(train) => train,
            Error::Core(core) => core.into(),
            Error::Data(data) => data.into(),
            other => Self::Core(mm_core::Error::Sample(other.to_string())),
        }
    }
}
