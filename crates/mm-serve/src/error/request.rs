//! An error of one request, and its body.

use super::kind::Kind;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use mm_core::describe_error;
use serde_json::json;
use std::{fmt::Display, sync::Arc};

/// Characters of a client's value that a message repeats.
const MAX_FOUND: usize = 80;
/// Characters of a message, which may be that of a library.
const MAX_MESSAGE: usize = 1000;

/// The beginning of a client's value, for messages.
pub(crate) fn shortened(text: &str) -> String {
    cut(text, MAX_FOUND)
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// An error of one request. As a response it has OpenAI's body: `{"error": {"message", "type", "param", "code"}}`.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) kind: Kind,
    message: String,
    /// The field of the request, where it is one.
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which to try again.
    retry_after: Option<u64>,
    fault: Option<Fault>,
}

/// What failed in the server: for its log alone.
#[derive(Debug, Clone)]
pub(crate) struct Fault(pub(crate) Arc<str>);

impl ApiError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        let retry_after = matches!(kind, Kind::Busy | Kind::Unavailable).then_some(1);
        Self { kind, message: cut(&message.into(), MAX_MESSAGE), param: None, code: None, retry_after, fault: None }
    }

    /// A field of the request is wrong.
    pub(crate) fn invalid(param: &str, found: impl Display, expected: impl Display) -> Self {
        let message = format!("{param}: found {found}, expected {expected}");
        Self::new(Kind::Invalid, message).with_param(param)
    }

    /// More than the server takes.
    pub(crate) fn too_large(param: &str, found: impl Display, expected: impl Display) -> Self {
        Self { kind: Kind::TooLarge, ..Self::invalid(param, found, expected) }
    }

    /// A name that the server does not have, with the nearest one.
    pub(crate) fn unknown<'a>(what: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Kind::NotFound, mm_core::Error::unknown(what, &shortened(name), known).to_string())
    }

    /// A fault of the server. Its text goes to the log, with the request's id, not to the client.
    pub(crate) fn internal(error: impl Display) -> Self {
        let message = "the server failed; its log says why, under this request's x-request-id";
        Self::new(Kind::Internal, message).with_fault(error)
    }

    /// With what failed in the server, which is logged with the request's id.
    pub(crate) fn with_fault(mut self, error: impl Display) -> Self {
        self.fault = Some(Fault(error.to_string().into()));
        self
    }

    /// Logs what failed in the server, where the error is not the response of a request.
    pub(crate) fn log(&self) {
        if let Some(Fault(text)) = &self.fault {
            tracing::error!("{text}");
        }
    }

    /// What went wrong, for people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn with_param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    pub(crate) fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(crate) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// OpenAI's error object.
    pub(crate) fn body(&self) -> serde_json::Value {
        json!({"error": {
            "message": self.message, "type": self.kind.openai_type(), "param": self.param, "code": self.code,
        }})
    }

    fn respond(self, status: StatusCode, body: serde_json::Value) -> Response {
        let mut response = (status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(fault) = self.fault {
            response.extensions_mut().insert(fault);
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, body) = (self.kind.status(), self.body());
        self.respond(status, body)
    }
}

/// An error in the form of text-embeddings-inference: `{"error", "error_type"}`; what is invalid has the status 422.
pub(crate) struct TeiError(ApiError);

impl From<ApiError> for TeiError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for TeiError {
    fn into_response(self) -> Response {
        let error = self.0;
        let status = if error.kind == Kind::Invalid { StatusCode::UNPROCESSABLE_ENTITY } else { error.kind.status() };
        let body = json!({"error": error.message, "error_type": error.kind.tei_type()});
        error.respond(status, body)
    }
}

/// A message in which files of the server have their last name alone.
fn without_folders(message: &str) -> String {
    let plain = |word: &str| {
        let path = word.trim_start_matches(['`', '"', '\'', '(']);
        let is_path = !path.contains("://") && (path.starts_with('/') || path.matches('/').count() > 1);
        let name = path.rsplit('/').next().filter(|name| is_path && !name.trim().is_empty());
        name.map_or_else(|| word.to_owned(), |name| format!("{}{name}", &word[..word.len() - path.len()]))
    };
    message.split_inclusive(char::is_whitespace).map(plain).collect()
}

/// An error of a library while it reads or computes what a request holds: most are of the values, and say so.
macro_rules! from_value_errors {
    ($($error:ty),+) => {$(
        impl From<$error> for ApiError {
            fn from(error: $error) -> Self {
                Self::new(Kind::Invalid, without_folders(&describe_error(&error))).with_code("invalid_value")
            }
        }
    )+};
}
from_value_errors!(mm_core::Error, mm_data::Error, mm_repr::Error, mm_reason::Error, mm_tasks::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_folders_of_the_server_and_no_long_values() {
        for (message, expected) in [
            ("/srv/models/clip: has no classifier", "clip: has no classifier"),
            ("../models/clip: or \"models/a/clip\"", "clip: or \"clip\""),
            ("file `/srv/a/b.png` of 3 / 4", "file `b.png` of 3 / 4"),
            ("found image/png at https://example.org/a/b", "found image/png at https://example.org/a/b"),
        ] {
            assert_eq!(without_folders(message), expected);
        }
        assert_eq!((shortened("é"), shortened(&"é".repeat(100)).chars().count()), ("é".to_owned(), MAX_FOUND + 1));
    }
}
