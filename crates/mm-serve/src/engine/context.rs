//! What models are loaded with.

use super::batch::Budget;
use mm_core::{Device, Registry};
use mm_tasks::TaskRegistry;
use std::sync::Arc;

/// What models are loaded with.
#[derive(Clone)]
pub(crate) struct LoadContext {
    pub(crate) encoders: Arc<Registry>,
    pub(crate) tasks: Arc<TaskRegistry>,
    pub(crate) device: Device,
    /// What one batch may hold.
    pub(crate) budget: Budget,
    /// Bytes of weights in memory; unlimited when absent.
    pub(crate) max_model_bytes: Option<u64>,
    /// Interval of checks for changed files, in seconds; never when 0.
    pub(crate) reload_seconds: u64,
}
