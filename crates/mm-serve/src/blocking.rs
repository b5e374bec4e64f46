//! Work that blocks, outside of the threads that answer.

use crate::error::ApiError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Work of this process that has not ended.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Work that counts as running until it is dropped.
pub(crate) struct Running;

impl Running {
    pub(crate) fn start() -> Self {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        Self
    }

    /// Whether any work has not ended.
    pub(crate) fn any() -> bool {
        RUNNING.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs work that waits for files or a database.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let running = Running::start();
    let counted = move || {
        let _running = running;
        work()
    };
    tokio::task::spawn_blocking(counted).await.map_err(ApiError::internal)?
}
