//! Kinds of errors of a request.

use axum::http::StatusCode;

/// Kinds of errors of a request, with the status of each on OpenAI's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body is not what the route takes, or a value cannot be read.
    Invalid,
    /// No key, or an unknown one.
    Unauthorized,
    /// A page of another site asks, or a name of the server that is not its own.
    Forbidden,
    /// No such model, run, row or route.
    NotFound,
    /// The method is not one of the route's.
    Method,
    /// More bytes, inputs, pixels, seconds or tokens than the server takes.
    TooLarge,
    /// The client did not send its request in time.
    Timeout,
    /// As many requests as the server, or the key, may have.
    Busy,
    /// A fault of the server.
    Internal,
    /// Still loading, about to stop, or a store that others use or that cannot be reached.
    Unavailable,
    /// The disk of the store is full.
    Full,
}

impl Kind {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// `type` of OpenAI's error body.
    pub(super) fn openai_type(self) -> &'static str {
        match self {
            Self::Invalid | Self::NotFound | Self::Method | Self::TooLarge | Self::Timeout => "invalid_request_error",
            Self::Unauthorized => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::Busy => "rate_limit_error",
            Self::Internal | Self::Unavailable | Self::Full => "server_error",
        }
    }

    /// `error_type` of text-embeddings-inference's error body.
    pub(super) fn tei_type(self) -> &'static str {
        match self {
            Self::Busy => "Overloaded",
            Self::Internal | Self::Full => "Backend",
            Self::Unavailable => "Unhealthy",
            _ => "Validation",
        }
    }
}
