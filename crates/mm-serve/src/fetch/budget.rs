//! What all files of one request may take together.

use super::{
    error::FetchError,
    fetcher::{FetchLimits, Fetched, Fetcher},
};
use std::time::{Duration, Instant};

/// What all files of one request may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// The most files.
    pub urls: usize,
    /// The most bytes of all files.
    pub bytes: u64,
    /// The most time that is spent on fetching.
    pub time: Duration,
}

/// The limits of one request, and what its files have taken of them.
#[derive(Debug, Clone, Copy)]
pub struct FetchBudget {
    limits: RequestLimits,
    urls: usize,
    bytes: u64,
    time: Duration,
}

impl FetchBudget {
    /// The budget of a request that has fetched nothing.
    pub fn new(limits: RequestLimits) -> Self {
        Self { limits, urls: 0, bytes: 0, time: Duration::ZERO }
    }

    /// Fetches one more file, within its own limits and what is left of those of the request.
    ///
    /// # Errors
    ///
    /// Those of the fetcher, and that of the limit of the request which is exceeded.
    pub fn fetch(&mut self, fetcher: &Fetcher, url: &str) -> Result<Fetched, FetchError> {
        let RequestLimits { urls, bytes, time } = self.limits;
        if self.urls == urls {
            return Err(FetchError::RequestUrls { limit: urls });
        }
        self.urls += 1;
        let own = fetcher.limits();
        let (bytes_left, time_left) = (bytes.saturating_sub(self.bytes), time.saturating_sub(self.time));
        let limits = FetchLimits { bytes: own.bytes.min(bytes_left), time: own.time.min(time_left), ..own };
        let started = Instant::now();
        let fetched = fetcher.fetch_within(url, limits);
        self.time += started.elapsed();
        let fetched = fetched.map_err(|error| match error.cause() {
            FetchError::TooLarge { .. } if bytes_left < own.bytes => FetchError::RequestBytes { limit: bytes },
            FetchError::Timeout { .. } if time_left < own.time => FetchError::RequestTime { limit: time },
            _ => error,
        })?;
        self.bytes += fetched.bytes.len() as u64;
        Ok(fetched)
    }
}
