//! Figures of tasks.

mod retrieval;

pub use retrieval::{RetrievalMetrics, chance_recall, retrieval_metrics};
