//! Audio files → samples in [−1, 1]: wav by hound; flac, mp3, ogg and m4a by symphonia; the audio track of a video by
//! ffmpeg.

mod compressed;
#[cfg(feature = "compressed-audio")]
mod flac;
mod limits;
#[cfg(feature = "compressed-audio")]
mod mp3;
#[cfg(feature = "compressed-audio")]
mod mp3_frames;
#[cfg(feature = "compressed-audio")]
mod mp4;
#[cfg(feature = "compressed-audio")]
mod ogg;
mod parts;
#[cfg(feature = "compressed-audio")]
mod symphonia_reader;
#[cfg(test)]
mod tests;
mod wav;

use super::{ffmpeg, resample};
use crate::{Error, Result};
pub use limits::{AudioLimits, AudioTooLong};
use mm_core::Cause;
use std::{ffi::OsStr, path::Path};

/// Mono audio.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// The samples, in [−1, 1].
    pub samples: Vec<f32>,
    /// Samples per second.
    pub sample_rate: u32,
}

impl Audio {
    /// Duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate.max(1))
    }
}

/// Decodes an audio file, or the audio track of a video, averages its channels and resamples it to `sample_rate`;
/// `None` keeps the file's own rate (16 kHz for a video). Of joined MP3, Ogg and FLAC files all are decoded, at the
/// rate of the first.
///
/// # Errors
/// When the file cannot be read, or not all of it can be decoded (packets are damaged, or the file is cut short), has
/// no samples, is longer than an hour, or has samples that are not finite.
pub fn decode_audio(path: &Path, sample_rate: Option<u32>) -> Result<Audio> {
    decode_audio_within(path, sample_rate, &AudioLimits::default())
}

/// Decodes an audio file, or the audio track of a video, as [`decode_audio`] does, within other limits.
///
/// # Errors
/// Those of [`decode_audio`]; where there is more than the limits allow, the cause is an [`AudioTooLong`].
pub fn decode_audio_within(path: &Path, sample_rate: Option<u32>, limits: &AudioLimits) -> Result<Audio> {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    if extension.as_ref().is_some_and(|e| ["mp4", "mkv", "webm", "mov", "avi"].contains(&e.as_str())) {
        return decode_track(path, sample_rate.unwrap_or(16_000), limits);
    }
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    decode(bytes, sample_rate, limits).map_err(|e| Error::file(path, e))
}

/// Decodes an audio file in memory, as [`decode_audio`] does; error messages name no file.
pub fn decode_audio_bytes(bytes: &[u8], sample_rate: Option<u32>) -> Result<Audio, String> {
    decode_audio_bytes_within(bytes, sample_rate, &AudioLimits::default()).map_err(|e| e.to_string())
}

/// Decodes an audio file in memory, as [`decode_audio_within`] does; errors name no file.
pub fn decode_audio_bytes_within(bytes: &[u8], sample_rate: Option<u32>, limits: &AudioLimits) -> Result<Audio, Cause> {
    decode(bytes.to_vec(), sample_rate, limits)
}

fn decode(bytes: Vec<u8>, sample_rate: Option<u32>, limits: &AudioLimits) -> Result<Audio, Cause> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let audio = if wav::is_wav(&bytes) { wav::decode(bytes, limits)? } else { compressed::decode(bytes, limits)? };
    if audio.samples.is_empty() || audio.sample_rate == 0 {
        return Err("audio without samples".into());
    }
    if let Some(index) = audio.samples.iter().position(|s| !s.is_finite()) {
        return Err(format!("sample {index}: found {}, expected a finite value", audio.samples[index]).into());
    }
    match sample_rate {
        Some(sample_rate) => Ok(resample(&audio, sample_rate)?),
        None => Ok(audio),
    }
}

/// What ffmpeg logs when it goes on with less than the file has.
const LOSSES: [&str; 4] = ["partial file", "ended prematurely", "Error submitting packet", "Error while decoding"];

/// Decodes the audio track of a video, as mono at `sample_rate`.
///
/// # Errors
/// When the file has no audio track or is longer than an hour, or ffmpeg is not found or cannot decode it.
pub fn decode_audio_track(path: &Path, sample_rate: u32) -> Result<Audio> {
    decode_track(path, sample_rate, &AudioLimits::default())
}

fn decode_track(path: &Path, sample_rate: u32, limits: &AudioLimits) -> Result<Audio> {
    let bad = |e: Cause| Error::file(path, e);
    limits::check_rate(sample_rate).map_err(|e| bad(e.into()))?;
    // One second more than is accepted shows that there is more.
    let (rate, limit) = (sample_rate.to_string(), (limits.max_seconds + 1.0).to_string());
    let after = ["-vn", "-ac", "1", "-ar", &rate, "-t", &limit, "-f", "f32le", "-"].map(OsStr::new);
    let output = ffmpeg::run(path, &["-loglevel", "error"].map(OsStr::new), &after)?;
    if output.stdout.is_empty() {
        let reason = output.first_line("the video has none");
        return Err(bad(format!("no audio track: {reason}").into()));
    }
    let length = output.stdout.len() / 4;
    limits.check(length as f64 / f64::from(sample_rate), length).map_err(|e| bad(e.into()))?;
    if let Some(loss) = output.log.lines().find(|line| LOSSES.iter().any(|loss| line.contains(loss))) {
        return Err(bad(format!("damaged or cut short: {}", loss.trim()).into()));
    }
    if !output.log.is_empty() {
        tracing::warn!("{}: ffmpeg reports: {}", path.display(), output.first_line(""));
    }
    let samples = output.stdout.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Audio { samples, sample_rate })
}

/// Writes audio as a mono 16-bit wav; samples outside [−1, 1] are clipped.
pub fn write_wav(path: &Path, audio: &Audio) -> Result<()> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: audio.sample_rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let bad = |e: hound::Error| Error::file(path, e);
    let mut writer = hound::WavWriter::create(path, spec).map_err(bad)?;
    for sample in &audio.samples {
        writer.write_sample((sample.clamp(-1.0, 1.0) * 32767.0).round() as i16).map_err(bad)?;
    }
    writer.finalize().map_err(bad)
}
