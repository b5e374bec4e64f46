//! What the values of one request have together.

use crate::{config::Limits, error::ApiError};
use std::sync::{Mutex, PoisonError};

/// Pixels and seconds of the values of one request, which are decoded in parallel: a small body may hold files of much
/// larger contents.
pub(crate) struct MediaTotals {
    max_pixels: usize,
    max_seconds: f64,
    /// Pixels and seconds of the values so far.
    found: Mutex<(usize, f64)>,
}

impl MediaTotals {
    /// Those of a request without values.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            max_pixels: limits.max_request_pixels,
            max_seconds: limits.max_request_audio_seconds,
            found: Mutex::default(),
        }
    }

    /// Counts a value; errors name `param`.
    ///
    /// # Errors
    /// When the request has more than it may.
    pub(crate) fn add(&self, pixels: usize, seconds: f64, param: &str) -> Result<(), ApiError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        *found = (found.0.saturating_add(pixels), found.1 + seconds);
        let (pixels, seconds) = *found;
        if pixels > self.max_pixels {
            let expected = format!("at most {} in one request (limits.max_request_pixels)", self.max_pixels);
            return Err(ApiError::too_large(param, format!("{pixels} pixels with other values"), expected));
        }
        if seconds > self.max_seconds {
            let expected = format!("at most {} s in one request (limits.max_request_audio_seconds)", self.max_seconds);
            return Err(ApiError::too_large(param, format!("{seconds:.1} s of audio with other values"), expected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_values_of_a_request_are_limited_together() {
        let limits = Limits { max_request_pixels: 100, max_request_audio_seconds: 10.0, ..Limits::default() };
        let totals = MediaTotals::new(&limits);
        assert!(totals.add(60, 0.0, "input[0]").is_ok() && totals.add(40, 6.0, "input[1]").is_ok());
        let error = totals.add(0, 4.5, "input[2]").unwrap_err();
        assert_eq!(error.kind, Kind::TooLarge);
        assert!(error.message().starts_with("input[2]: found 10.5 s of audio"), "{error:?}");
        assert!(error.message().contains("limits.max_request_audio_seconds"), "{error:?}");
        let error = MediaTotals::new(&limits).add(101, 0.0, "image").unwrap_err();
        assert!(error.kind == Kind::TooLarge && error.message().contains("limits.max_request_pixels"), "{error:?}");
    }
}
