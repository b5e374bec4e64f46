//! Decoded audio as it grows, packet by packet.
// A wav file is one part.
#![cfg_attr(not(feature = "compressed-audio"), allow(dead_code))]

use super::{
    Audio,
    limits::{AudioLimits, MAX_SECONDS, check_rate},
};
use crate::decode::resample;
use mm_core::Cause;
#[cfg(feature = "compressed-audio")]
use symphonia::core::audio::{AudioBufferRef, SampleBuffer};

/// An hour at 192 kHz.
const MAX_JOINED_SAMPLES: f64 = MAX_SECONDS * 192_000.0;

/// Mono audio in parts of one sample rate each: joined files may change theirs.
pub(super) struct Parts {
    parts: Vec<Audio>,
    limits: AudioLimits,
}

impl Parts {
    /// No audio yet.
    pub fn new(limits: &AudioLimits) -> Self {
        Self { parts: Vec::new(), limits: *limits }
    }

    /// Adds interleaved samples, averaged over their channels.
    ///
    /// # Errors
    /// When the sample rate is impossible, or there is more audio than the limits allow.
    pub fn push(&mut self, interleaved: &[f32], channels: usize, sample_rate: u32) -> Result<(), Cause> {
        if self.parts.last().is_none_or(|part| part.sample_rate != sample_rate) {
            check_rate(sample_rate)?;
            self.parts.push(Audio { samples: Vec::new(), sample_rate });
        }
        if let Some(part) = self.parts.last_mut() {
            mono_into(interleaved, channels, &mut part.samples)?;
        }
        Ok(self.limits.check(self.seconds(), self.num_samples(0))?)
    }

    /// Adds a decoded packet, as [`Self::push`] does.
    #[cfg(feature = "compressed-audio")]
    pub fn push_decoded(&mut self, decoded: AudioBufferRef<'_>) -> Result<(), Cause> {
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
    pub fn join(self) -> Result<Audio, Cause> {
        let Self { parts, limits } = self;
        let mut parts = parts.into_iter().filter(|part| !part.samples.is_empty());
        let Some(mut joined) = parts.next() else { return Err("audio without samples".into()) };
        for part in parts {
            // A part at a very low rate grows with the rate of the first.
            let seconds = joined.seconds() + part.seconds();
            limits.check(0.0, (seconds * f64::from(joined.sample_rate)) as usize)?;
            if seconds > MAX_JOINED_SAMPLES / f64::from(joined.sample_rate) {
                return Err(format!(
                    "joined audio: found parts of {} and {} Hz with more than {MAX_JOINED_SAMPLES:.0} samples in all; split the file",
                    joined.sample_rate, part.sample_rate
                )
                .into());
            }
            joined.samples.extend(resample(&part, joined.sample_rate)?.samples);
        }
        Ok(joined)
    }
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
