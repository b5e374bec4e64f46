//! What every request passes through: its id and log line, the page that it is of, its key, and its place among the
//! requests that are worked on.

use super::{origin, tei};
use crate::{
    error::{ApiError, Kind},
    state::Shared,
};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::OwnedSemaphorePermit;

/// The header of a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Routes that need no key: probes, the page and the description of the routes.
const OPEN: [&str; 5] = ["/", "/health", "/ready", "/docs", "/openapi.json"];

/// The place of a request among those that are worked on; a stream keeps it until its end.
#[derive(Clone)]
pub(super) struct Permit(#[allow(dead_code, reason = "held for its drop")] Arc<OwnedSemaphorePermit>);

/// Gives a request its id, counts and times it, and writes a line to the log: no contents.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), route(&request));
    let started = Instant::now();
    let mut response = next.run(request).await;
    let (status, seconds) = (response.status().as_u16(), started.elapsed().as_secs_f64());
    let labels = [("route", path.clone()), ("status", status.to_string())];
    metrics::counter!("mm_requests_total", &labels).increment(1);
    metrics::histogram!("mm_request_seconds", "route" => path.clone()).record(seconds);
    let key = response.extensions().get::<KeyName>().map(|key| key.0.clone()).unwrap_or_default();
    tracing::info!(id, %method, path, status, milliseconds = seconds * 1000.0, key, "request");
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The name of the key that a request came with.
#[derive(Clone)]
struct KeyName(String);

/// Checks the page that it is of, the key, and the number of requests; then lets the route answer.
pub(super) async fn admit(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    let admitted = check(&state, &request);
    match admitted {
        Ok((key, permit)) => {
            if let Some(permit) = &permit {
                request.extensions_mut().insert(permit.clone());
            }
            let mut response = next.run(request).await;
            response.extensions_mut().insert(KeyName(key.unwrap_or_default()));
            drop(permit);
            response
        }
        Err(error) => tei::refusal(request.uri().path(), error),
    }
}

/// The name of the key of a request, and its permit where it is one that computes.
fn check(state: &Shared, request: &Request) -> Result<(Option<String>, Option<Permit>), ApiError> {
    origin::check(request, state.is_local && state.keys.are_none())?;
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::to_str).transpose();
    let authorization =
        authorization.map_err(|_| ApiError::new(Kind::Unauthorized, "the key has other characters than ASCII"))?;
    let is_open = OPEN.contains(&request.uri().path());
    let key = if is_open { None } else { state.keys.check(authorization)?.map(ToOwned::to_owned) };
    let computes = request.method() == Method::POST;
    let permit = computes.then(|| state.admit().map(|permit| Permit(Arc::new(permit)))).transpose()?;
    Ok((key, permit))
}

/// The id that the client gave, where it is one that can be logged, or a new one.
fn request_id(request: &Request) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    given.filter(is_plain).map_or_else(
        || {
            let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
            format!("{nanoseconds:x}-{:x}", NUMBER.fetch_add(1, Ordering::Relaxed))
        },
        ToOwned::to_owned,
    )
}

/// The route that a request matched: a bounded number of labels, whatever clients ask for.
fn route(request: &Request) -> String {
    request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned())
}
