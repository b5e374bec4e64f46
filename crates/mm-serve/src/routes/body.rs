//! Bodies of requests: JSON, whose errors name the field.

use crate::{
    error::{ApiError, Kind},
    state::Shared,
};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::StatusCode,
    response::IntoResponse,
};
use serde::de::DeserializeOwned;
use std::{future::Future, time::Duration};

/// Number of scored answers or classes where a request does not say.
pub(super) fn default_k() -> usize {
    5
}

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        let bytes = in_time(state, Bytes::from_request(request, state)).await?.map_err(rejected)?;
        parse(&bytes).map(Self)
    }
}

/// What reads a body, within the time that a client has for it.
pub(super) async fn in_time<T>(state: &Shared, read: impl Future<Output = T>) -> Result<T, ApiError> {
    let seconds = state.limits.read_seconds.max(1);
    let late = |_| ApiError::new(Kind::Timeout, format!("the body did not come within {seconds} s"));
    tokio::time::timeout(Duration::from_secs(seconds), read).await.map_err(late)
}

/// A body that is too large, or ends early.
pub(super) fn rejected(rejection: BytesRejection) -> ApiError {
    let text = rejection.body_text();
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = "the body is larger than this server takes (limits.max_body_bytes)";
            ApiError::new(Kind::TooLarge, message).with_code("body_too_large")
        }
        _ => ApiError::new(Kind::Invalid, format!("the body cannot be read: {text}")),
    }
}

/// Reads JSON.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(at_field)?;
    json.end().map_err(|error| ApiError::new(Kind::Invalid, format!("the body: {error}")))?;
    Ok(value)
}

/// Reads JSON that was parsed already.
pub(super) fn from_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(at_field)
}

/// An error that names its field.
fn at_field(error: serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = error.path().to_string();
    let field = if path == "." { "the body" } else { &path };
    let invalid = ApiError::new(Kind::Invalid, format!("{field}: {}", error.inner()));
    if path == "." { invalid } else { invalid.with_param(&path) }
}
