//! Decoded audio as it grows, packet by packet.
// A wav file is one part.
#![cfg_attr(not(feature = "compressed-audio"), allow(dead_code))]

use super::{Audio, MAX_SAMPLE_RATE, MAX_SECONDS};
use crate::decode::resample;
#[cfg(feature = "compressed-audio")]
use symphonia::core::audio::{AudioBufferRef, SampleBuffer};

/// An hour at 192 kHz.
const MAX_JOINED_SAMPLES: f64 = MAX_SECONDS * 192_000.0;

/// Mono audio in parts of one sample rate each: joined files may change theirs.
#[derive(Default)]
pub(super) struct Parts {
    parts: Vec<Audio>,
}

impl Parts {
    /// Adds interleaved samples, averaged over their channels.
    ///
    /// # Errors
    /// When the sample rate is impossible, or the joined audio becomes longer than [`MAX_SECONDS`].
    pub fn push(&mut self, interleaved: &[f32], channels: usize, sample_rate: u32) -> Result<(), String> {
        if self.parts.last().is_none_or(|part| part.sample_rate != sample_rate) {
            check_rate(sample_rate)?;
            self.parts.push(Audio { samples: Vec::new(), sample_rate });
        }
        if let Some(part) = self.parts.last_mut() {
            mono_into(interleaved, channels, &mut part.samples)?;
        }
        check_seconds(self.parts.iter().map(Audio::seconds).sum())
    }

    /// Adds a decoded packet, as [`Self::push`] does.
    #[cfg(feature = "compressed-audio")]
    pub fn push_decoded(&mut self, decoded: AudioBufferRef<'_>) -> Result<(), String> {
        let spec = *decoded.spec();
        let mut buffer = SampleBuffer::<f32>::new(decoded.capacity() as u64, spec);
        buffer.copy_interleaved_ref(decoded);
        self.push(buffer.samples(), spec.channels.count(), spec.rate)
    }

    /// Starts a new part, whatever its sample rate; returns its index.
    pub fn split(&mut self, sample_rate: u32) -> Result<usize, String> {
        check_rate(sample_rate)?;
        self.parts.push(Audio { samples: Vec::new(), sample_rate });
        Ok(self.parts.len() - 1)
    }

    /// Removes samples at the start and at the end of the parts from index `first` on.
    pub fn trim(&mut self, first: usize, start: usize, end: usize) {
        if let Some(part) = self.parts.last_mut() {
            part.samples.truncate(part.samples.len().saturating_sub(end));
        }
        if let Some(part) = self.parts.get_mut(first) {
            part.samples.drain(..start.min(part.samples.len()));
        }
    }

    /// Number of samples of the parts from index `first` on.
    pub fn num_samples(&self, first: usize) -> usize {
        self.parts.iter().skip(first).map(|part| part.samples.len()).sum()
    }

    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.parts.iter().map(Audio::seconds).sum()
    }

    /// All parts in one, at the sample rate of the first one with samples.
    pub fn join(self) -> Result<Audio, String> {
        let mut parts = self.parts.into_iter().filter(|part| !part.samples.is_empty());
        let Some(mut joined) = parts.next() else { return Err("audio without samples".into()) };
        for part in parts {
            // A part at a very low rate grows with the rate of the first.
            if joined.seconds() + part.seconds() > MAX_JOINED_SAMPLES / f64::from(joined.sample_rate) {
                return Err(format!(
                    "joined audio: found parts of {} and {} Hz with more than {MAX_JOINED_SAMPLES:.0} samples in all; split the file",
                    joined.sample_rate, part.sample_rate
                ));
            }
            joined.samples.extend(resample(&part, joined.sample_rate)?.samples);
        }
        Ok(joined)
    }
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

/// Checks the length of the joined audio.
pub(super) fn check_seconds(seconds: f64) -> Result<(), String> {
    if seconds <= MAX_SECONDS {
        return Ok(());
    }
    Err(format!("found more than {MAX_SECONDS} seconds of audio, expected at most that; split the file"))
}

/// Appends the mean over the channels of interleaved samples.
fn mono_into(interleaved: &[f32], channels: usize, samples: &mut Vec<f32>) -> Result<(), String> {
    match channels {
        0 => return Err("audio without channels".into()),
        1 => samples.extend_from_slice(interleaved),
        n => samples.extend(interleaved.chunks_exact(n).map(|frame| frame.iter().sum::<f32>() / n as f32)),
    }
    Ok(())
}
