//! Requests to object stores and web servers that fail for a while. The client of the stores tries them again without a
//! word; here each further attempt is reported, and `Retry-After` is respected.

use super::root_cause;
use crate::fetch::{Retries, RetryPolicy, is_temporary, retry_after};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    },
};
use std::{fmt, pin::Pin};

/// Connects with the usual client, whose requests are tried again.
#[derive(Debug)]
pub(super) struct Connector(pub RetryPolicy);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Retrying { client, policy: self.0 }))
    }
}

#[derive(Debug)]
struct Retrying {
    client: HttpClient,
    policy: RetryPolicy,
}

/// A request that failed as often as it is tried. Not one of the errors that the client of the stores tries again.
#[derive(Debug)]
struct Exhausted {
    reason: String,
    tried: String,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.reason, self.tried)
    }
}

impl std::error::Error for Exhausted {}

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
        let mut retries = Retries::new(self.policy);
        loop {
            let (reason, asked, is_final) = match self.client.execute(request.clone()).await {
                Ok(response) => {
                    let (status, header) = (response.status(), response.headers().get(http::header::RETRY_AFTER));
                    let is_final = !is_temporary(status.as_u16());
                    if is_final && !status.is_server_error() {
                        return Ok(response);
                    }
                    let asked = header.and_then(|value| value.to_str().ok()).and_then(retry_after);
                    (format!("the server answered {status}"), asked, is_final)
                }
                Err(error) if is_retried(error.kind(), request.method().is_safe()) => (root_cause(&error), None, false),
                Err(error) => return Err(error),
            };
            let message = format!("{}: {reason}", without_query(&request.uri().to_string()));
            let Some(pause) = (!is_final).then(|| retries.pause(&message, asked)).flatten() else {
                let exhausted = Exhausted { reason, tried: retries.summary() };
                return Err(HttpError::new(HttpErrorKind::Unknown, exhausted));
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Whether a request that got no answer is sent again: one that was not sent, or one that changes nothing. The client of
/// the stores knows of the others whether they may be.
fn is_retried(kind: HttpErrorKind, is_safe: bool) -> bool {
    match kind {
        HttpErrorKind::Connect | HttpErrorKind::Request => true,
        HttpErrorKind::Timeout | HttpErrorKind::Interrupted => is_safe,
        _ => false,
    }
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
