//! The crate's error type.

use mm_core::Cause;
use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The loss, or the norm of the gradients, is infinite or not a number.
    #[error(
        "the loss is {loss} at step {step} (samples {samples}); the last good checkpoint is {checkpoint}. \
         Lower train.optimizer.lr or train.max_grad_norm, or inspect those samples"
    )]
    NonFiniteLoss {
        /// The loss or gradient norm.
        loss: f64,
        /// The step, counted from 0.
        step: u64,
        /// Ids of the batch's samples.
        samples: String,
        /// Path of the last good checkpoint.
        checkpoint: String,
    },
    /// No batch of an epoch gave a loss.
    #[error(
        "no batch of the {samples} training samples gave a loss: too few samples have what the loss needs, too many could not be read \
         (`mm inspect` lists them), or loader.batch_size is too small"
    )]
    NoUsableBatch {
        /// Number of training samples.
        samples: usize,
    },
    /// The metric that selects the best checkpoint was not measured.
    #[error("train.early_stopping.metric: found `{metric}`, expected one of the validation metrics {known}")]
    UnknownMetric {
        /// The requested metric.
        metric: String,
        /// The metrics that were measured.
        known: String,
    },
    /// A run folder cannot be used.
    #[error("{path}: {source}")]
    Run {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong and what to do.
        source: Cause,
    },
    /// A setting is out of range.
    #[error("{field}: found {found}, expected {expected}")]
    Config {
        /// Dotted path of the setting.
        field: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// An error of the processes that train together.
    #[error(transparent)]
    Dist(#[from] mm_dist::Error),
    /// An error of mm-data.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}

impl Error {
    /// An error about a run folder or a file in it.
    pub fn run(path: impl Into<PathBuf>, cause: impl Into<Cause>) -> Self {
        Self::Run { path: path.into(), source: cause.into() }
    }

    pub(crate) fn config(field: &'static str, found: impl std::fmt::Display, expected: &'static str) -> Self {
        Self::Config { field, found: found.to_string(), expected }
    }
}
