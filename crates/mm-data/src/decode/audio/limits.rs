//! How much audio is decoded.

/// The longest audio that is decoded by default, in seconds.
pub(super) const MAX_SECONDS: f64 = 3600.0;
/// The highest sample rate that a file may have: recordings of ultrasound have up to half of it.
pub(super) const MAX_SAMPLE_RATE: u32 = 1_000_000;

/// Limits on decoded audio: a small file may hold hours of silence. Decoding ends where one is exceeded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AudioLimits {
    /// Maximum number of seconds.
    pub max_seconds: f64,
    /// Maximum number of samples of one channel, at the file's own rate.
    pub max_samples: usize,
}

impl Default for AudioLimits {
    /// An hour at any rate.
    fn default() -> Self {
        Self { max_seconds: MAX_SECONDS, max_samples: MAX_SECONDS as usize * MAX_SAMPLE_RATE as usize }
    }
}

impl AudioLimits {
    /// Checks an amount of audio.
    pub(super) fn check(&self, seconds: f64, samples: usize) -> Result<(), AudioTooLong> {
        let Self { max_seconds, max_samples } = *self;
        if seconds > max_seconds {
            return Err(AudioTooLong { limit: format!("{max_seconds} seconds") });
        }
        if samples > max_samples {
            return Err(AudioTooLong { limit: format!("{max_samples} samples") });
        }
        Ok(())
    }
}

/// More audio than the limits allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found more than {limit} of audio, expected at most that; split the file")]
pub struct AudioTooLong {
    /// The limit that is exceeded, with its unit.
    pub limit: String,
}

/// Checks a sample rate before anything is allocated for it.
pub(super) fn check_rate(sample_rate: u32) -> Result<(), String> {
    if (1..=MAX_SAMPLE_RATE).contains(&sample_rate) {
        return Ok(());
    }
    Err(format!(
        "sample rate: found {sample_rate} Hz in the header, expected 1 to {MAX_SAMPLE_RATE}; the file is damaged"
    ))
}
