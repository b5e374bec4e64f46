//! Small requests, for instance to the API of a registry: an answer is read as a whole.

use super::{Retries, RetryPolicy, read_body, retry_after};
use crate::error::{Context, Error, Result, bail, describe};
use serde_json::Value;
use std::time::Duration;
use ureq::{
    Body,
    http::{HeaderMap, Response},
};

/// The most bytes of an answer; the page of a package with many releases has some megabytes.
const MAX_BYTES: usize = 64 << 20;

/// A small request, which is sent again as long as it fails for a reason that may go away.
pub(crate) struct Query<'a> {
    pub url: &'a str,
    /// Time without data after which the connection is given up.
    pub timeout: Duration,
    /// Sends the request once.
    pub send: &'a dyn Fn() -> Result<Response<Body>, ureq::Error>,
}

/// A query that failed.
pub(crate) struct FailedQuery {
    pub error: Error,
    /// Those of the last answer; empty where there was none.
    pub headers: HeaderMap,
    /// How often it was tried, to follow the reason.
    pub tried: String,
}

impl Query<'_> {
    /// The headers of the answer.
    pub fn headers(&self) -> Result<HeaderMap, Box<FailedQuery>> {
        self.run(|_| Ok(())).map(|(headers, ())| headers)
    }

    /// The headers and the JSON document of the answer.
    pub fn json(&self) -> Result<(HeaderMap, Value), Box<FailedQuery>> {
        self.run(|bytes| serde_json::from_slice(bytes).with_context(|| format!("{}: not a JSON document", self.url)))
    }

    fn run<T>(&self, read: impl Fn(&[u8]) -> Result<T>) -> Result<(HeaderMap, T), Box<FailedQuery>> {
        let mut retries = Retries::new(RetryPolicy::QUERY);
        loop {
            let mut headers = HeaderMap::new();
            let error = match self.attempt(&mut headers).and_then(|bytes| read(&bytes)) {
                Ok(found) => return Ok((headers, found)),
                Err(error) => error,
            };
            if !retries.wait_after(&error, &describe(&error)) {
                return Err(Box::new(FailedQuery { error, headers, tried: retries.summary() }));
            }
        }
    }

    /// Sends the request once; the body of the answer, and its headers even where it is an error status.
    fn attempt(&self, headers: &mut HeaderMap) -> Result<Vec<u8>> {
        let url = self.url;
        let (parts, body) = (self.send)().with_context(|| format!("{url} cannot be reached"))?.into_parts();
        *headers = parts.headers;
        let status = parts.status.as_u16();
        if status >= 400 {
            let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok()).and_then(retry_after);
            return Err(Error::Status { url: url.to_owned(), status, retry_after });
        }
        let mut bytes = Vec::new();
        read_body(url, body, self.timeout, |part| {
            if bytes.len() + part.len() > MAX_BYTES {
                bail!("{url}: found an answer of more than {MAX_BYTES} bytes, expected at most as many");
            }
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }
}
