//! Bodies of requests: JSON, whose errors name the field.

use crate::{
    error::{ApiError, Kind, shortened},
    state::Shared,
};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::StatusCode,
    response::IntoResponse,
};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// Number of scored answers or classes by default.
pub(super) fn default_k() -> usize {
    5
}

/// A body of JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(rejected)?;
        parse(&bytes).map(Self)
    }
}

/// A body of JSON that holds the fields of `P` in addition to its own: errors name these fields, which those of flattened fields
/// do not.
pub(super) struct BodyWith<P, T>(pub(super) T, pub(super) PhantomData<P>);

impl<P: DeserializeOwned, T: DeserializeOwned> FromRequest<Shared> for BodyWith<P, T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        let Body(value) = Body::<serde_json::Value>::from_request(request, state).await?;
        serde_path_to_error::deserialize::<_, P>(&value).map_err(at_field)?;
        Ok(Self(from_value(value)?, PhantomData))
    }
}

/// A body that is too large, or ends early.
fn rejected(rejection: BytesRejection) -> ApiError {
    let text = rejection.body_text();
    match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiError::new(Kind::Invalid, format!("the body cannot be read: {text}")),
    }
}

/// A body that is larger than the server takes.
pub(super) fn too_large() -> ApiError {
    let message = "the body is larger than this server takes (limits.max_body_bytes)";
    ApiError::new(Kind::TooLarge, message).with_code("body_too_large")
}

/// Reads JSON.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let value = serde_json::from_slice(bytes);
    from_value(value.map_err(|error| ApiError::new(Kind::Invalid, format!("the body: {error}")))?)
}

/// Reads JSON that was parsed already. A field that is null counts as absent.
pub(super) fn from_value<T: DeserializeOwned>(mut value: serde_json::Value) -> Result<T, ApiError> {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    serde_path_to_error::deserialize(value).map_err(at_field)
}

/// An error that names its field.
fn at_field(error: serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = error.path().to_string();
    let field = if path == "." { "the body" } else { &path };
    let invalid = ApiError::new(Kind::Invalid, format!("{field}: {}", plain_words(&error.inner().to_string())));
    if path == "." { invalid } else { invalid.with_param(&path) }
}

/// Names of types that deserializers give, in the words of JSON.
const TYPES: [(&str, &str); 9] = [
    ("usize", "a whole number of at least 0"),
    ("u32", "a whole number of at least 0"),
    ("u64", "a whole number of at least 0"),
    ("i64", "a whole number"),
    ("f32", "a number"),
    ("f64", "a number"),
    ("a sequence", "a list"),
    ("a map", "an object"),
    ("struct ", "an object"),
];

/// A deserializer's message without names of Rust types, and with the beginning of the value that it repeats.
fn plain_words(message: &str) -> String {
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return shortened(message) };
    let named = TYPES.iter().find(|(name, _)| expected == *name || (name.ends_with(' ') && expected.starts_with(name)));
    let found = found.replace(": sequence", ": list").replace(": map", ": object");
    format!("{}, expected {}", shortened(&found), named.map_or(expected, |(_, words)| words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[serde(default)]
        k: usize,
        #[serde(default)]
        #[expect(dead_code, reason = "only read")]
        names: Vec<String>,
    }

    #[test]
    fn messages_name_the_field_in_the_words_of_json_and_repeat_no_long_value() {
        let long = format!("{{\"k\": \"{}\"}}", "a".repeat(10_000));
        for (body, expected) in [
            (r#"{"k": "a"}"#, "k: invalid type: string \"a\", expected a whole number of at least 0"),
            (r#"{"names": {}}"#, "names: invalid type: object, expected a list"),
            (r#"{"kk": 1}"#, "kk: unknown field `kk`, expected `k` or `names`"),
        ] {
            assert_eq!(parse::<Example>(body.as_bytes()).unwrap_err().message(), expected);
        }
        let message = parse::<Example>(long.as_bytes()).unwrap_err().message().to_owned();
        assert!(message.len() < 200 && message.ends_with("at least 0"), "{message}");
        assert_eq!(parse::<Example>(br#"{"k": null, "names": null}"#).unwrap().k, 0);
    }
}
