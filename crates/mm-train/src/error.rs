//! The crate's one error.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The loss is not a number any more.
    #[error(
        "the loss is {loss} at step {step} (samples {samples}); the last good checkpoint is {checkpoint}. A lower train.optimizer.lr, train.max_grad_norm, or a look at those samples helps"
    )]
    NonFiniteLoss {
        /// The loss.
        loss: f64,
        /// The step.
        step: u64,
        /// Ids of the batch's samples.
        samples: String,
        /// Where the last good checkpoint is.
        checkpoint: String,
    },
    /// No batch had anything to learn from.
    #[error(
        "no batch of the {rows} rows had anything to learn from: too few rows have what the loss needs, or too many are broken (mm inspect tells), or loader.batch_size is too small"
    )]
    NoUsableBatch {
        /// Rows of the training side.
        rows: usize,
    },
    /// A run folder cannot be used.
    #[error("{path}: {reason}")]
    Run {
        /// The folder or file.
        path: PathBuf,
        /// What was wrong and what to do.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("{field}: found {found}, wanted {wanted}")]
    Config {
        /// Dotted path of the setting.
        field: &'static str,
        /// What was found.
        found: String,
        /// What was wanted.
        wanted: &'static str,
    },
    /// An error of mm-data.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

impl Error {
    /// An error about a run's folder or file.
    pub fn run(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::Run { path: path.into(), reason: reason.to_string() }
    }

    pub(crate) fn config(field: &'static str, found: impl std::fmt::Display, wanted: &'static str) -> Self {
        Self::Config { field, found: found.to_string(), wanted }
    }
}
