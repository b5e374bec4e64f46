//! What a server takes.

use crate::{Error, Result, state::BODY_UNIT};
use serde::Deserialize;
use tokio::sync::Semaphore;

/// What the server takes; a request beyond it is refused with its status, and nothing of it is computed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that are worked on or wait; others get 429.
    pub max_requests: usize,
    /// Open connections; others wait to be accepted.
    pub max_connections: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Bytes of the bodies of all requests that are worked on, wait or are being received.
    pub max_total_body_bytes: usize,
    /// Inputs of one request.
    pub max_inputs: usize,
    /// Width × height of an image.
    pub max_pixels: u64,
    /// Seconds of a recording.
    pub max_audio_seconds: f64,
    /// Pixels of all images and video frames of one request, as a checkpoint takes them.
    pub max_request_pixels: usize,
    /// Seconds of all recordings of one request.
    pub max_request_audio_seconds: f64,
    /// Tokens that one request may generate.
    pub max_new_tokens: usize,
    /// Results of one search.
    pub max_results: usize,
    /// Tokens (patches, frames) of all inputs that are computed as one batch, with their padding; and those of a request
    /// that asks for a vector of each.
    pub max_batch_tokens: usize,
    /// Pixels of all images and video frames that are computed as one batch, each padded to the largest.
    pub max_batch_pixels: usize,
    /// Seconds of all recordings that are computed as one batch, each padded to the longest.
    pub max_batch_audio_seconds: f64,
    /// Bytes of the weights of all models in memory: the least recently used one is unloaded when another needs its room,
    /// and is loaded again at its next request. Unlimited when absent.
    pub max_model_bytes: Option<u64>,
    /// Files that one request may have fetched by URL.
    pub max_urls: usize,
    /// Bytes of all files that one request has fetched.
    pub max_url_bytes: u64,
    /// Seconds in which all files of one request must have been fetched.
    pub url_seconds: u64,
    /// Seconds in which a client must have sent its request.
    pub read_seconds: u64,
    /// Seconds after which a client that takes nothing of its answer is cut off.
    pub write_seconds: u64,
    /// Seconds after SIGTERM for which requests that were accepted before are still answered.
    pub drain_seconds: u64,
    /// Seconds after SIGTERM for which connections are accepted at least, and `/ready` answers 503, so that a load
    /// balancer takes the server out before it refuses connections; at most `drain_seconds`.
    pub notice_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 512,
            max_connections: 2048,
            max_body_bytes: 32 << 20,
            max_total_body_bytes: 512 << 20,
            max_inputs: 2048,
            max_pixels: 50_000_000,
            max_audio_seconds: 1800.0,
            max_request_pixels: 1 << 28,
            max_request_audio_seconds: 14_400.0,
            max_new_tokens: 2048,
            max_results: 1000,
            max_batch_tokens: 16_384,
            max_batch_pixels: 1 << 24,
            max_batch_audio_seconds: 1800.0,
            max_model_bytes: None,
            max_urls: 256,
            max_url_bytes: 256 << 20,
            url_seconds: 60,
            read_seconds: 30,
            write_seconds: 30,
            drain_seconds: 30,
            notice_seconds: 2,
        }
    }
}

impl Limits {
    /// Permits for the bodies of all requests: for one of the largest at least.
    pub(crate) fn body_units(&self) -> usize {
        let bytes = self.max_total_body_bytes.max(self.max_body_bytes);
        bytes.div_ceil(BODY_UNIT).min(Semaphore::MAX_PERMITS)
    }

    /// Checks each limit.
    ///
    /// # Errors
    /// When one is 0, or more than the server can count.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |name: &str, found: String, expected: String| {
            Err(Error::setting(format!("limits.{name}"), found, expected))
        };
        let counts = [
            ("max_requests", self.max_requests),
            ("max_connections", self.max_connections),
            ("max_body_bytes", self.max_body_bytes),
            ("max_inputs", self.max_inputs),
            ("max_pixels", usize::try_from(self.max_pixels).unwrap_or(usize::MAX)),
            ("max_request_pixels", self.max_request_pixels),
            ("max_new_tokens", self.max_new_tokens),
            ("max_results", self.max_results),
            ("max_batch_tokens", self.max_batch_tokens),
            ("max_batch_pixels", self.max_batch_pixels),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return wrong(name, "0".into(), "at least 1".into());
        }
        let seconds = [
            ("max_audio_seconds", self.max_audio_seconds),
            ("max_request_audio_seconds", self.max_request_audio_seconds),
            ("max_batch_audio_seconds", self.max_batch_audio_seconds),
        ];
        if let Some((name, seconds)) = seconds.into_iter().find(|(_, seconds)| seconds.is_nan() || *seconds <= 0.0) {
            return wrong(name, seconds.to_string(), "more than 0".into());
        }
        let most = Semaphore::MAX_PERMITS;
        let permits = [("max_requests", self.max_requests), ("max_connections", self.max_connections)];
        match permits.into_iter().find(|(_, count)| *count > most) {
            Some((name, count)) => wrong(name, count.to_string(), format!("at most {most}")),
            None => Ok(()),
        }
    }
}
