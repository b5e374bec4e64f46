//! Figures of tasks.

mod baselines;
mod retrieval;

pub use baselines::{Pca, accuracy, majority, probe, ridge};
pub use retrieval::{RetrievalMetrics, chance_recall, retrieval_metrics};
