//! What every request passes through: its id and log line, the page that it is of, its key, and its place among the
//! requests that are worked on.

use super::{body::too_large, origin, tei};
use crate::{
    error::{ApiError, Fault, Kind},
    state::{BODY_UNIT, Shared},
};
use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{
        HeaderName, HeaderValue, Method,
        header::{AUTHORIZATION, CONNECTION, EXPECT},
    },
    middleware::Next,
    response::Response,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::StreamExt;

/// The header of a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Routes that need no key: probes, the page and the description of the routes.
const OPEN: [&str; 5] = ["/", "/health", "/ready", "/docs", "/openapi.json"];

/// The place of a request among those that are worked on, and that of its body; a stream keeps them until its end.
#[derive(Clone)]
pub(super) struct Permit(#[allow(dead_code, reason = "held for their drop")] Arc<[OwnedSemaphorePermit; 2]>);

/// Gives a request its id, counts and times it, and writes a line to the log: no contents.
pub(super) async fn observe(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let (method, path) = (request.method().clone(), route(&request));
    let (started, uri) = (Instant::now(), request.uri().clone());
    let unanswered = Unanswered { state, route: path.clone(), is_answered: false };
    let mut response = caught(next.run(request), uri.path()).await;
    unanswered.end();
    let (status, seconds) = (response.status().as_u16(), started.elapsed().as_secs_f64());
    let labels = [("route", path.clone()), ("status", status.to_string())];
    metrics::counter!("mm_requests_total", &labels).increment(1);
    metrics::histogram!("mm_request_seconds", "route" => path.clone()).record(seconds);
    let key = response.extensions().get::<KeyName>().map(|key| key.0.clone()).unwrap_or_default();
    tracing::info!(id, %method, path, status, milliseconds = seconds * 1000.0, key, "request");
    if let Some(Fault(text)) = response.extensions().get() {
        tracing::error!(id, %method, path, status, "{text}");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// A request without an answer: dropped so, its client has disconnected, or the server stops.
struct Unanswered {
    state: Shared,
    route: String,
    is_answered: bool,
}

impl Unanswered {
    fn end(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.is_answered && !self.state.has_stopped.load(Ordering::Relaxed) {
            metrics::counter!("mm_requests_cancelled_total", "route" => std::mem::take(&mut self.route)).increment(1);
        }
    }
}

/// The response, or an error where making it panics.
async fn caught(response: impl Future<Output = Response>, path: &str) -> Response {
    let mut response = pin!(response);
    let poll = |context: &mut Context<'_>| {
        let polled = catch_unwind(AssertUnwindSafe(|| response.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(tei::refusal(path, ApiError::internal("a request panicked"))))
    };
    std::future::poll_fn(poll).await
}

/// The name of the key that a request came with.
#[derive(Clone)]
struct KeyName(String);

/// Checks the page that it is of, the key, and the number of requests; then lets the route answer.
pub(super) async fn admit(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let (key, computes) = match check(&state, &request) {
        Ok(checked) => checked,
        Err(error) => return refuse(request, error).await,
    };
    let mut response = if computes {
        match receive(&state, request).await {
            Ok((received, permit)) => {
                request = received;
                request.extensions_mut().insert(permit.clone());
                let response = next.run(request).await;
                drop(permit);
                response
            }
            Err(error) => tei::refusal(uri.path(), error),
        }
    } else {
        next.run(request).await
    };
    response.extensions_mut().insert(KeyName(key.unwrap_or_default()));
    response
}

/// A request that computes, with its whole body, and its permit. A client that sends slowly takes no place among those
/// that are worked on before its body is there.
async fn receive(state: &Shared, request: Request) -> Result<(Request, Permit), ApiError> {
    let (parts, body) = request.into_parts();
    let seconds = state.limits.read_seconds.max(1);
    let late = |_| ApiError::new(Kind::Timeout, format!("the body did not come within {seconds} s"));
    let read = tokio::time::timeout(Duration::from_secs(seconds), read(state, body));
    let (bytes, body_permit) = read.await.map_err(late)??;
    let permit = Permit(Arc::new([state.admit()?, body_permit]));
    Ok((Request::from_parts(parts, Body::from(bytes)), permit))
}

/// A whole body, with the permit for its bytes: those that have come, not those that are announced.
async fn read(state: &Shared, body: Body) -> Result<(Vec<u8>, OwnedSemaphorePermit), ApiError> {
    let (mut stream, mut bytes, mut permit) = (body.into_data_stream(), Vec::new(), state.admit_body(0)?);
    while let Some(part) = stream.next().await {
        let part = part.map_err(|error| ApiError::new(Kind::Invalid, format!("the body cannot be read: {error}")))?;
        if bytes.len() + part.len() > state.limits.max_body_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&part);
        permit.merge(state.admit_body(bytes.len().div_ceil(BODY_UNIT) - permit.num_permits())?);
    }
    Ok((bytes, permit))
}

/// Refuses a request before its body is read. A small body is taken all the same, so that the connection can stay; after
/// another one, or one that the client would not send before it is asked to, it is closed.
async fn refuse(request: Request, error: ApiError) -> Response {
    const BYTES: usize = 64 << 10;
    const TIME: Duration = Duration::from_secs(1);
    let (parts, body) = request.into_parts();
    let is_small = body.size_hint().upper().is_some_and(|bytes| bytes <= BYTES as u64);
    let is_read = is_small
        && !parts.headers.contains_key(EXPECT)
        && tokio::time::timeout(TIME, to_bytes(body, BYTES)).await.is_ok_and(|bytes| bytes.is_ok());
    let mut response = tei::refusal(parts.uri.path(), error);
    if !is_read {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The name of the key of a request, and whether it is one that computes.
fn check(state: &Shared, request: &Request) -> Result<(Option<String>, bool), ApiError> {
    origin::check(request, state.is_local && state.keys.are_none())?;
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::to_str).transpose();
    let authorization =
        authorization.map_err(|_| ApiError::new(Kind::Unauthorized, "the key has other characters than ASCII"))?;
    let is_open = OPEN.contains(&request.uri().path());
    let key = if is_open { None } else { state.keys.check(authorization)?.map(ToOwned::to_owned) };
    if request.method() != Method::POST || is_open {
        return Ok((key, false));
    }
    state.check_room()?;
    if request.body().size_hint().lower() > state.limits.max_body_bytes as u64 {
        return Err(too_large());
    }
    Ok((key, true))
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
