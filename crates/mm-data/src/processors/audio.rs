//! Audio files → log-mel spectrograms.

use crate::{
    augment::SpecAugment,
    decode_audio_source, source_name,
    transform::{Mel, MelConfig},
    truncation::note_truncated,
};
use mm_core::{Error, ProcessContext, Processor, Result, Source, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Batches are padded to a multiple of this number of frames, so that few shapes occur.
const LENGTH_MULTIPLE: i64 = 32;

/// Settings of an [`AudioProcessor`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioProcessorConfig {
    /// The spectrogram.
    pub mel: MelConfig,
    /// Longer recordings are truncated to this length, in seconds; [`Processor::truncated`] counts them.
    pub max_seconds: f64,
    /// Whether each mel band is normalized to mean 0 and variance 1 over the recording.
    #[serde(default)]
    pub normalize: bool,
    /// `SpecAugment` in training.
    #[serde(default)]
    pub spec_augment: Option<SpecAugment>,
}

/// Audio file → log-mel spectrogram `[frames, n_mels]` float32.
pub struct AudioProcessor {
    config: AudioProcessorConfig,
    mel: Mel,
    num_truncated: AtomicUsize,
}

impl AudioProcessor {
    /// A processor with these settings.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn new(config: AudioProcessorConfig) -> crate::Result<Self> {
        if !(config.max_seconds > 0.0 && config.max_seconds <= 3600.0) {
            return Err(crate::Error::Config(format!(
                "audio.max_seconds: found {}, expected more than 0 and at most 3600",
                config.max_seconds
            )));
        }
        Ok(Self { mel: Mel::new(config.mel.clone())?, config, num_truncated: AtomicUsize::new(0) })
    }

    /// The spectrogram of a file, without augmentation.
    pub fn decode(&self, source: &Source) -> Result<Tensor> {
        let sample_rate = self.config.mel.sample_rate;
        let mut audio = decode_audio_source(source, Some(sample_rate))?;
        let max_samples = ((self.config.max_seconds * f64::from(sample_rate)) as usize).max(1);
        if audio.samples.len() > max_samples {
            audio.samples.truncate(max_samples);
            self.num_truncated.fetch_add(1, Ordering::Relaxed);
            note_truncated(self.limit());
        }
        // A recording shorter than one frame is padded to one.
        if audio.samples.len() < self.config.mel.n_fft {
            audio.samples.resize(self.config.mel.n_fft, 0.0);
        }
        let spectrogram =
            self.mel.apply(&audio.samples).map_err(|e| Error::Sample(format!("{}: {e}", source_name(source))))?;
        if !self.config.normalize {
            return Ok(spectrogram);
        }
        let mean = spectrogram.mean_dim(&[0], true)?;
        let std = spectrogram.std_dim(&[0], false, true)?.add_scalar(1e-5)?;
        spectrogram.sub(&mean)?.div(&std)
    }
}

impl AudioProcessor {
    fn limit(&self) -> String {
        format!("{} seconds", self.config.max_seconds)
    }
}

impl Processor for AudioProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        self.augment(self.decode(source)?, context)
    }

    fn pad_to_multiple_of(&self) -> i64 {
        LENGTH_MULTIPLE
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn truncated(&self) -> Option<(usize, String)> {
        let count = self.num_truncated.load(Ordering::Relaxed);
        (count > 0).then(|| (count, self.limit()))
    }

    fn fingerprint(&self) -> String {
        // "whole": entries of versions that lost parts of some files are not used.
        format!("audio whole {:?} {} {}", self.config.mel, self.config.max_seconds, self.config.normalize)
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> Result<Tensor> {
        let (true, Some(spec_augment)) = (context.train, &self.config.spec_augment) else { return Ok(sample) };
        let n_mels = self.config.mel.n_mels;
        let mut values = sample.to_vec::<f32>()?;
        spec_augment.apply(&mut values, n_mels, &mut context.rng);
        Tensor::from_vec(&values, &[(values.len() / n_mels) as i64, n_mels as i64])
    }
}
