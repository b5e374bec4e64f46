//! What every request sees: models, store, limits, and threads that decode.

use crate::{
    Error,
    auth::Keys,
    blocking::Running,
    cancellation::Cancellation,
    config::Limits,
    engine::{Capability, ModelPool},
    error::{ApiError, Kind},
    index::Index,
    urls::UrlAccess,
};
use metrics_exporter_prometheus::PrometheusHandle;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The state of a server.
pub(crate) struct AppState {
    pub(crate) pool: ModelPool,
    pub(crate) index: Option<Index>,
    pub(crate) limits: Limits,
    pub(crate) keys: Keys,
    pub(crate) urls: UrlAccess,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) device: String,
    /// Whether only programs of this machine reach the server.
    pub(crate) is_local: bool,
    /// Threads that decode files and tokenize.
    pub(crate) decoders: rayon::ThreadPool,
    /// One permit for each request that is worked on or waits.
    pub(crate) requests: Arc<Semaphore>,
    /// One permit for each [`BODY_UNIT`] bytes of the bodies of these requests, and of those that are being received.
    pub(crate) bodies: Arc<Semaphore>,
    /// Whether the server was asked to stop.
    pub(crate) draining: AtomicBool,
    /// Whether it no longer waits for the answers to the requests that it accepted.
    pub(crate) has_stopped: AtomicBool,
}

/// A shared state.
pub(crate) type Shared = Arc<AppState>;

/// Bytes of a body for which a permit stands.
pub(crate) const BODY_UNIT: usize = 1024;

impl AppState {
    /// The permit for so many units of a body, until it is dropped.
    pub(crate) fn admit_body(&self, units: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let full = |_| {
            let message = format!(
                "the bodies of all requests have {} bytes, which is the limit (limits.max_total_body_bytes)",
                self.limits.max_total_body_bytes
            );
            ApiError::new(Kind::Busy, message).with_code("overloaded")
        };
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.bodies.clone().try_acquire_many_owned(units).map_err(full)
    }

    /// The right to have one request worked on, until it is dropped.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.requests.clone().try_acquire_owned().map_err(|_| self.full())
    }

    /// Refuses a request where the server stops, or as many are worked on or wait as may.
    pub(crate) fn check_room(&self) -> Result<(), ApiError> {
        if self.is_draining() {
            return Err(ApiError::new(Kind::Unavailable, "the server is about to stop"));
        }
        if self.requests.available_permits() == 0 { Err(self.full()) } else { Ok(()) }
    }

    fn full(&self) -> ApiError {
        let message = format!("{} requests are worked on or wait, which is the limit", self.limits.max_requests);
        ApiError::new(Kind::Busy, message).with_code("overloaded")
    }

    /// Refuses a store whose vectors are of none of the models, where any of them embeds.
    pub(crate) fn check_store(&self) -> crate::Result<()> {
        let embeds = self.pool.models().iter().any(|model| model.info().is_ok_and(|info| info.can(Capability::Embed)));
        let Some(index) = self.index.as_ref().filter(|_| embeds) else { return Ok(()) };
        let Some(model) = index.model_name() else { return Ok(()) };
        match index.model(&self.pool) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::setting(
                "--store",
                format!("vectors of model {model}"),
                format!(
                    "those of a model that is served; add --model {model}, or index again with the model of --model"
                ),
            )),
        }
    }

    /// Whether the server was asked to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether no request is being received, waits or is worked on.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.available_permits() == self.limits.max_requests
            && self.bodies.available_permits() == self.limits.body_units()
    }

    /// Whether requests can be answered.
    pub(crate) fn is_ready(&self) -> bool {
        self.pool.is_ready() && !self.is_draining()
    }

    /// Runs work in the threads that decode. It is skipped where the client disconnects before it begins, and ends at its
    /// next check of the cancellation where the client disconnects later.
    pub(crate) async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce(Cancellation<'_>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        let running = Running::start();
        self.decoders.spawn(move || {
            let _running = running;
            if !reply.is_closed() {
                let is_cancelled = || reply.is_closed();
                let result = caught(|| work(Cancellation::new(&is_cancelled)));
                // The client may have disconnected meanwhile.
                drop(reply.send(result));
            }
        });
        answer.await.map_err(|_| ApiError::internal("decoding ended without a result"))?
    }
}

/// The result of work, or an error where it panics: a panic that leaves a thread of a pool ends the process.
fn caught<T>(work: impl FnOnce() -> Result<T, ApiError>) -> Result<T, ApiError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(ApiError::internal("decoding panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_decoding_is_an_error_of_its_request() {
        let panicking = || -> Result<(), ApiError> { panic!("a decoder panics") };
        assert_eq!(caught(panicking).unwrap_err().kind, Kind::Internal);
        assert_eq!(caught(|| Ok(3)).unwrap(), 3);
    }
}
