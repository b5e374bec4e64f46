//! Waveforms as transformers' `Wav2Vec2FeatureExtractor` prepares them.

use super::feature_extractor::FeatureExtractorConfig;
use crate::{Result, family::ModelBuilder};
use mm_core::{Error, ProcessContext, Processor, Source, Tensor};
use mm_data::{decode_audio_source, source_name};

/// Longest audio that is encoded in one piece, in seconds: attention is quadratic in fifty positions a second, and the
/// first convolution takes 6.5 MB a second.
const MAX_SECONDS: f64 = 300.0;

/// An audio file → samples `[samples]`, standardized if the checkpoint's preprocessing does.
pub(crate) struct WaveformProcessor {
    sample_rate: u32,
    normalize: bool,
    /// Fewest samples that give one position.
    min_samples: usize,
}

impl WaveformProcessor {
    pub(crate) fn new(b: &ModelBuilder<'_>, min_samples: i64) -> Result<Self> {
        let c = FeatureExtractorConfig::read(b)?;
        Ok(Self {
            sample_rate: c.count("sampling_rate", 16_000)? as u32,
            normalize: c.flag("do_normalize", true),
            min_samples: usize::try_from(min_samples).unwrap_or(1),
        })
    }

    /// Checks the length; returns the reason why it is not supported.
    fn check_length(&self, samples: usize) -> Result<(), String> {
        if samples < self.min_samples {
            let milliseconds = samples * 1000 / self.sample_rate as usize;
            let expected = self.min_samples;
            return Err(format!(
                "audio of {samples} samples ({milliseconds} ms); this model needs at least {expected} samples"
            ));
        }
        let seconds = samples as f64 / f64::from(self.sample_rate);
        if seconds > MAX_SECONDS {
            return Err(format!(
                "audio of {seconds:.0} seconds; this model takes at most {MAX_SECONDS}: split it, for instance with \
                 `ffmpeg -i FILE -f segment -segment_time 30 PART%03d.wav`"
            ));
        }
        Ok(())
    }
}

/// Brings samples to mean zero and variance one.
fn standardize(samples: &mut [f32]) {
    let count = samples.len() as f64;
    let mean = samples.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = samples.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + 1e-7).sqrt();
    samples.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
}

impl Processor for WaveformProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let mut samples = decode_audio_source(source, Some(self.sample_rate))?.samples;
        self.check_length(samples.len()).map_err(|e| Error::Sample(format!("{}: {e}", source_name(source))))?;
        if self.normalize {
            standardize(&mut samples);
        }
        Tensor::from_slice(&samples)
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("waveform whole {} {}", self.sample_rate, self.normalize)
    }
}
