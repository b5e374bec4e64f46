//! Values that a program has in memory already: pixels and samples.

use crate::{Error, Result};
use std::{fmt, sync::Arc};

/// A decoded image: rows of pixels of red, green and blue. Copies share the pixels.
///
/// ```
/// use mm_core::{DecodedImage, Source};
/// let two_red_pixels = DecodedImage::new(2, 1, vec![255, 0, 0, 255, 0, 0])?;
/// assert_eq!((two_red_pixels.width(), two_red_pixels.height()), (2, 1));
/// let source = Source::from(two_red_pixels);
/// # Ok::<(), mm_core::Error>(())
/// ```
#[derive(Clone)]
pub struct DecodedImage {
    width: u32,
    height: u32,
    rgb: Arc<[u8]>,
    digest: [u8; 32],
}

impl DecodedImage {
    /// An image of `width · height` pixels, three bytes each.
    ///
    /// # Errors
    /// If there is no pixel, or another number of bytes.
    pub fn new(width: u32, height: u32, rgb: impl Into<Arc<[u8]>>) -> Result<Self> {
        let rgb = rgb.into();
        let bytes = u64::from(width) * u64::from(height) * 3;
        if bytes == 0 || rgb.len() as u64 != bytes {
            let found = format!("{} bytes for {width} × {height} pixels", rgb.len());
            return Err(Error::config("image", found, "three bytes a pixel, and at least one pixel"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&width.to_le_bytes()).update(&rgb);
        Ok(Self { width, height, digest: *hasher.finalize().as_bytes(), rgb })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels, row by row.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// A hash of size and pixels.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Decoded mono audio. Copies share the samples.
///
/// ```
/// use mm_core::{DecodedAudio, Source};
/// let silence = DecodedAudio::new(vec![0.0; 16_000], 16_000)?;
/// assert_eq!((silence.samples().len(), silence.sample_rate()), (16_000, 16_000));
/// let source = Source::from(silence);
/// # Ok::<(), mm_core::Error>(())
/// ```
#[derive(Clone)]
pub struct DecodedAudio {
    samples: Arc<[f32]>,
    sample_rate: u32,
    digest: [u8; 32],
}

/// Samples that are hashed at a time, 64 KiB.
const HASHED_SAMPLES: usize = 1 << 14;

impl DecodedAudio {
    /// Samples in [−1, 1], and how many of them make a second.
    ///
    /// # Errors
    /// If there is no sample, one is not finite, or the rate is 0.
    pub fn new(samples: impl Into<Arc<[f32]>>, sample_rate: u32) -> Result<Self> {
        let samples = samples.into();
        if samples.is_empty() || sample_rate == 0 {
            let found = format!("{} samples at {sample_rate} Hz", samples.len());
            return Err(Error::config("audio", found, "at least one sample and a rate of at least 1"));
        }
        if let Some(index) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(Error::config("audio", format!("{} at sample {index}", samples[index]), "finite samples"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&sample_rate.to_le_bytes());
        // In large pieces: hashing each sample by itself is many times slower.
        let mut bytes = Vec::with_capacity(HASHED_SAMPLES.min(samples.len()) * size_of::<f32>());
        for piece in samples.chunks(HASHED_SAMPLES) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|sample| sample.to_le_bytes()));
            hasher.update(&bytes);
        }
        Ok(Self { sample_rate, digest: *hasher.finalize().as_bytes(), samples })
    }

    /// The samples.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Samples per second.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// A hash of rate and samples.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

fn hex(digest: &[u8; 32]) -> String {
    digest[..16].iter().map(|b| format!("{b:02x}")).collect()
}

impl PartialEq for DecodedImage {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl PartialEq for DecodedAudio {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for DecodedImage {
    /// Size and hash: different images are written differently.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodedImage({} × {}, {})", self.width, self.height, hex(&self.digest))
    }
}

impl fmt::Debug for DecodedAudio {
    /// Length, rate and hash: different recordings are written differently.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodedAudio({} samples at {} Hz, {})", self.samples.len(), self.sample_rate, hex(&self.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_compared_by_content() {
        assert!(DecodedImage::new(2, 2, vec![0; 11]).is_err() && DecodedImage::new(0, 2, vec![]).is_err());
        // The same bytes in another shape are another image.
        let (wide, high) = (DecodedImage::new(2, 1, vec![7; 6]).unwrap(), DecodedImage::new(1, 2, vec![7; 6]).unwrap());
        assert!(wide != high && wide == DecodedImage::new(2, 1, vec![7; 6]).unwrap());
        assert!(format!("{wide:?}").starts_with("DecodedImage(2 × 1, ") && format!("{wide:?}") != format!("{high:?}"));
        assert!(DecodedAudio::new(vec![], 8000).is_err() && DecodedAudio::new(vec![0.0], 0).is_err());
        let error = DecodedAudio::new(vec![0.0, f32::NAN], 8000).unwrap_err().to_string();
        assert!(error.contains("NaN at sample 1"), "{error}");
        assert!(DecodedAudio::new(vec![0.5], 8000).unwrap() != DecodedAudio::new(vec![0.5], 16_000).unwrap());
    }

    #[test]
    fn the_digest_of_a_recording_is_that_of_its_rate_and_all_its_samples() {
        let samples: Vec<f32> = (0..HASHED_SAMPLES + 3).map(|i| i as f32 * 1e-5).collect();
        let bytes: Vec<u8> =
            8000_u32.to_le_bytes().into_iter().chain(samples.iter().flat_map(|sample| sample.to_le_bytes())).collect();
        assert_eq!(DecodedAudio::new(samples, 8000).unwrap().digest(), blake3::hash(&bytes).as_bytes());
    }
}
