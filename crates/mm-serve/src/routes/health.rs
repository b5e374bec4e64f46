//! Probes and metrics.

use crate::{
    error::{ApiError, Kind},
    state::Shared,
};
use axum::{extract::State, http::header::CONTENT_TYPE, response::IntoResponse};

/// Whether the process answers.
#[utoipa::path(get, path = "/health", tag = "probes", responses((status = 200, description = "The server answers")))]
pub(super) async fn health() {}

/// Whether requests are answered: every model is loaded, and the server was not asked to stop.
#[utoipa::path(get, path = "/ready", tag = "probes", responses(
    (status = 200, description = "Requests are answered"),
    (status = 503, description = "Models are being loaded, or the server is about to stop")
))]
pub(super) async fn ready(State(state): State<Shared>) -> Result<(), ApiError> {
    if state.is_ready() {
        return Ok(());
    }
    let reason = if state.is_draining() { "the server is about to stop" } else { "models are being loaded" };
    Err(ApiError::new(Kind::Unavailable, reason).with_retry_after(5))
}

/// Counts and times in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, description = "Prometheus text", body = String)))]
pub(super) async fn metrics(State(state): State<Shared>) -> impl IntoResponse {
    for model in state.pool.models() {
        metrics::gauge!("mm_queue_requests", "model" => model.name().to_owned()).set(model.waiting() as f64);
    }
    let worked_on = state.limits.max_requests - state.requests.available_permits();
    metrics::gauge!("mm_requests_in_progress").set(worked_on as f64);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.render())
}
