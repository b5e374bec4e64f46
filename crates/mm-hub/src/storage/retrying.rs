//! Requests to object stores and web servers that fail for a while. The client of the stores would try them again without
//! a word, and is configured not to ([`client_retries`]); here each further attempt is reported, and `Retry-After` is respected.
//!
//! A request whose answer is lost may have been carried out, and is sent again all the same: a file that is written only
//! where there is none has a content of its own, which tells who wrote it ([`super::Objects::create`]), and the other
//! requests of mm leave the same behind when they are carried out twice.

use super::root_cause;
use crate::fetch::{Retries, RetryPolicy, is_temporary, retry_after};
use object_store::{
    ClientOptions, RetryConfig,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    },
};
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What the client of the stores tries again on its own: nothing, neither requests nor bodies of answers.
pub(super) fn client_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Connects with the usual client, whose requests are tried again.
#[derive(Debug)]
pub(super) struct Connector(pub RetryPolicy);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Retrying { client, policy: self.0 }))
    }
}

/// The attempts to read a file: those of its requests, and those after a body that broke. Whoever gives them to a request,
/// as an extension, gets the body as it comes and has to look after it; other bodies are complete.
#[derive(Clone)]
pub(super) struct Attempts(Arc<Mutex<Retries>>);

impl Attempts {
    pub fn new(policy: RetryPolicy) -> Self {
        Self(Arc::new(Mutex::new(Retries::new(policy))))
    }

    /// The pause after an attempt that failed, which is reported; an error when there is no further one.
    pub fn pause(&self, address: &str, failure: Failure) -> Result<Duration, Exhausted> {
        let Failure { reason, retry_after, is_final } = failure;
        let message = format!("{}: {reason}", without_query(address));
        let mut retries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = (!is_final).then(|| retries.pause(&message, retry_after)).flatten();
        pause.ok_or_else(|| Exhausted { reason, tried: retries.summary() })
    }
}

/// An attempt that failed.
pub(super) struct Failure {
    reason: String,
    /// The pause that the server asks for, in seconds.
    retry_after: Option<u64>,
    /// Whether a further attempt would fail as well.
    is_final: bool,
}

impl Failure {
    /// One that may go away.
    pub fn temporary(reason: String) -> Self {
        Self { reason, retry_after: None, is_final: false }
    }

    /// What an error status says; `None` for those that the client of the stores explains.
    fn of_status(response: &HttpResponse) -> Option<Self> {
        let status = response.status();
        let is_final = !is_temporary(status.as_u16());
        if is_final && !status.is_server_error() {
            return None;
        }
        let header = response.headers().get(http::header::RETRY_AFTER);
        let retry_after = header.and_then(|value| value.to_str().ok()).and_then(retry_after);
        Some(Self { reason: format!("the server answered {status}"), retry_after, is_final })
    }

    /// S3 begins some answers before it knows how they end: 200, and an error in the body.
    fn of_body(response: &HttpResponse, body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body);
        let code =
            ["InternalError", "SlowDown"].into_iter().find(|code| text.contains(&format!("<Code>{code}</Code>")))?;
        Some(Self::temporary(format!("the server answered {} with the error {code}", response.status())))
    }
}

/// A request, or a body, that failed as often as it is tried.
#[derive(Debug)]
pub(super) struct Exhausted {
    reason: String,
    tried: String,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.reason, self.tried)
    }
}

impl std::error::Error for Exhausted {}

#[derive(Debug)]
struct Retrying {
    client: HttpClient,
    policy: RetryPolicy,
}

impl HttpService for Retrying {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}

impl Retrying {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let of_read = request.extensions().get::<Attempts>().cloned();
        let is_streamed = of_read.is_some();
        let attempts = of_read.unwrap_or_else(|| Attempts::new(self.policy));
        loop {
            let failure = match self.attempt(request.clone(), is_streamed).await? {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let pause = attempts.pause(&request.uri().to_string(), failure);
            tokio::time::sleep(pause.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?).await;
        }
    }

    /// Sends a request once; an error where that is of no use.
    async fn attempt(
        &self,
        request: HttpRequest,
        is_streamed: bool,
    ) -> Result<Result<HttpResponse, Failure>, HttpError> {
        let changes_something = !request.method().is_safe();
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) if is_retried(error.kind()) => return Ok(Err(Failure::temporary(root_cause(&error)))),
            Err(error) => return Err(error),
        };
        if let Some(failure) = Failure::of_status(&response) {
            return Ok(Err(failure));
        }
        if is_streamed && response.status().is_success() {
            return Ok(Ok(response));
        }
        let (parts, body) = response.into_parts();
        let body = match body.bytes().await {
            Ok(body) => body,
            Err(error) => {
                let reason = format!("the connection broke within the answer ({})", root_cause(&error));
                return Ok(Err(Failure::temporary(reason)));
            }
        };
        let response = HttpResponse::from_parts(parts, body.clone().into());
        let failure = changes_something.then(|| Failure::of_body(&response, &body)).flatten();
        Ok(failure.map_or(Ok(response), Err))
    }
}

/// Whether a request that got no answer is sent again: not after errors of what it asks for, as too many redirects.
fn is_retried(kind: HttpErrorKind) -> bool {
    use HttpErrorKind::{Connect, Interrupted, Request, Timeout};
    matches!(kind, Connect | Request | Timeout | Interrupted)
}

/// The address without its query, which may hold a signature, and without a user's name and password.
pub(super) fn without_query(address: &str) -> String {
    let plain = address.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else { return plain.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reported_addresses_hold_no_secrets() {
        for (address, expected) in [
            ("https://me:secret@host:8080/a@b.csv?sig=secret#x", "https://host:8080/a@b.csv"),
            ("https://host?sig=secret", "https://host"),
            ("s3://bucket/a.csv", "s3://bucket/a.csv"),
            ("/bucket/a.csv?sig=secret", "/bucket/a.csv"),
        ] {
            assert_eq!(without_query(address), expected);
        }
    }
}
