//! Work that blocks, outside of the threads that answer.

use crate::error::ApiError;

/// Runs work that waits for files or a database.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?
}
