//! Spectrograms as transformers' feature extractors for AST, Whisper and CLAP compute them.

use super::feature_extractor::FeatureExtractorConfig;
use crate::{Result, family::ModelBuilder};
use mm_core::{Error, Interpolation, ProcessContext, Processor, Source, Tensor};
use mm_data::{
    decode_audio_source, source_name,
    transform::{LogScale, Mel, MelConfig, MelScale, PadMode, Window},
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How audio is padded or truncated to the length that a model expects.
#[derive(Debug, Clone, PartialEq)]
enum Framing {
    /// AST: a number of frames, padded with zeros or truncated, then standardized; `[frames, bands]`.
    Frames { frames: i64, mean: f64, std: f64 },
    /// Whisper: a number of samples, padded with silence and, if `truncate`, truncated; `[bands, frames]`.
    Samples { samples: usize, truncate: bool },
    /// CLAP: a number of samples; `[crops, frames, bands]`.
    Crops { samples: usize, padding: String, fusion: bool },
}

/// An audio file → a spectrogram of the size that a model was trained on.
pub struct SpectrogramProcessor {
    mel: Mel,
    framing: Framing,
    num_truncated: AtomicUsize,
}

impl SpectrogramProcessor {
    fn new(c: &FeatureExtractorConfig, mel: MelConfig, framing: Framing) -> Result<Self> {
        let samples = match &framing {
            Framing::Frames { frames, .. } => (*frames as usize).saturating_mul(mel.hop_length),
            Framing::Samples { samples, .. } | Framing::Crops { samples, .. } => *samples,
        };
        let max_samples = 3600 * mel.sample_rate as usize;
        if samples > max_samples {
            return Err(
                c.error(format!("found a length of {samples} samples, expected at most an hour ({max_samples})"))
            );
        }
        let mel = Mel::new(mel).map_err(|e| c.error(e))?;
        Ok(Self { mel, framing, num_truncated: AtomicUsize::new(0) })
    }

    /// transformers' `ASTFeatureExtractor`: Kaldi's filter bank with a Hann window.
    pub(crate) fn ast(b: &ModelBuilder<'_>) -> Result<Self> {
        let c = FeatureExtractorConfig::read(b)?;
        let sample_rate = c.count("sampling_rate", 16_000)? as u32;
        let mel = MelConfig::kaldi(sample_rate, c.count("num_mel_bins", 128)?);
        let mel = MelConfig { window: Window::Hanning, ..mel };
        let (mean, std) = if c.flag("do_normalize", true) {
            (c.number("mean", -4.267_739_3), 2.0 * c.number("std", 4.568_997_4))
        } else {
            (0.0, 1.0)
        };
        let frames = c.count("max_length", 1024)? as i64;
        Self::new(&c, mel, Framing::Frames { frames, mean, std })
    }

    /// transformers' `WhisperFeatureExtractor`: 30 seconds, longer audio is truncated.
    pub fn whisper(b: &ModelBuilder<'_>) -> Result<Self> {
        Self::whisper_with(b, true)
    }

    /// Like [`Self::whisper`], but longer audio is not truncated.
    pub fn whisper_untruncated(b: &ModelBuilder<'_>) -> Result<Self> {
        Self::whisper_with(b, false)
    }

    fn whisper_with(b: &ModelBuilder<'_>, truncate: bool) -> Result<Self> {
        let c = FeatureExtractorConfig::read(b)?;
        let sample_rate = c.count("sampling_rate", 16_000)?;
        let n_fft = c.count("n_fft", 400)?;
        let mel = MelConfig {
            sample_rate: sample_rate as u32,
            n_fft,
            win_length: n_fft,
            hop_length: c.count("hop_length", 160)?,
            ..MelConfig::whisper(c.count("feature_size", 80)?)
        };
        let samples = c.count("chunk_length", 30)? * sample_rate;
        Self::new(&c, mel, Framing::Samples { samples, truncate })
    }

    /// transformers' `ClapFeatureExtractor`: HTK's mel scale for checkpoints with feature fusion, Slaney's for others.
    pub(crate) fn clap(b: &ModelBuilder<'_>) -> Result<Self> {
        let c = FeatureExtractorConfig::read(b)?;
        let sample_rate = c.count("sampling_rate", 48_000)?;
        let n_fft = c.count("fft_window_size", 1024)?;
        let fusion = c.string("truncation", "fusion") == "fusion";
        let mel = MelConfig {
            sample_rate: sample_rate as u32,
            n_fft,
            win_length: n_fft,
            hop_length: c.count("hop_length", 480)?,
            n_mels: c.count("feature_size", 64)?,
            f_min: c.number("frequency_min", 0.0),
            f_max: Some(c.number("frequency_max", 14_000.0)),
            mel_scale: if fusion { MelScale::Htk } else { MelScale::Slaney },
            window: Window::Hann,
            pad_mode: PadMode::Reflect,
            preemphasis: None,
            log: LogScale::Decibel { floor: 1e-10, top_db: f64::INFINITY },
        };
        let samples = c.count("max_length_s", 10)? * sample_rate;
        let padding = c.string("padding", "repeatpad").to_owned();
        Self::new(&c, mel, Framing::Crops { samples, padding, fusion })
    }

    /// `[frames, bands]`; audio shorter than one frame is padded to one.
    fn spectrogram(&self, mut samples: Vec<f32>) -> mm_data::Result<Tensor> {
        samples.resize(samples.len().max(self.mel.config().n_fft), 0.0);
        self.mel.apply(&samples)
    }

    fn frame(&self, mut samples: Vec<f32>) -> mm_data::Result<Tensor> {
        match &self.framing {
            Framing::Frames { frames, mean, std } => {
                let mut x = self.spectrogram(samples)?;
                let found = x.size(0)?;
                if found > *frames {
                    self.count_truncated();
                    x = x.narrow(0, 0, *frames)?;
                }
                let x = x.pad(&[0, 0, 0, (frames - found).max(0)], 0.0)?;
                Ok(x.add_scalar(-mean)?.mul_scalar(1.0 / std)?)
            }
            Framing::Samples { samples: expected, truncate } => {
                if samples.len() > *expected && *truncate {
                    self.count_truncated();
                }
                let length = if *truncate { *expected } else { samples.len().max(*expected) };
                samples.resize(length, 0.0);
                Ok(self.spectrogram(samples)?.transpose(0, 1)?.contiguous()?)
            }
            Framing::Crops { samples: expected, padding, fusion } => {
                if *fusion && samples.len() > *expected {
                    self.fusion_crops(samples, *expected)
                } else {
                    self.single_crop(samples, *expected, padding, *fusion)
                }
            }
        }
    }

    /// CLAP with fusion, audio longer than `expected` samples: all of it, resized to the length of a crop, and three
    /// crops. transformers samples the crops' positions; here they are the middles of three thirds, so that features
    /// are deterministic.
    fn fusion_crops(&self, samples: Vec<f32>, expected: usize) -> mm_data::Result<Tensor> {
        let x = self.spectrogram(samples)?; // [frames, bands]
        let (frames, bands) = (x.size(0)?, x.size(1)?);
        let length = (expected / self.mel.config().hop_length + 1) as i64;
        if frames == length {
            return Ok(Tensor::stack(&[&x, &x, &x, &x], 0)?);
        }
        let whole = x
            .reshape(&[1, 1, frames, bands])?
            .interpolate([length, bands], Interpolation::Bilinear { align_corners: false })?
            .reshape(&[length, bands])?;
        let starts = frames - length + 1;
        let crop = |third: i64| x.narrow(0, (starts * (2 * third + 1) / 6).min(starts - 1), length);
        Ok(Tensor::stack(&[&whole, &crop(0)?, &crop(1)?, &crop(2)?], 0)?)
    }

    /// CLAP: the first `expected` samples, shorter audio repeated or padded; four times the same with fusion.
    fn single_crop(
        &self,
        mut samples: Vec<f32>,
        expected: usize,
        padding: &str,
        fusion: bool,
    ) -> mm_data::Result<Tensor> {
        if samples.len() > expected {
            self.count_truncated();
            samples.truncate(expected);
        }
        let length = samples.len();
        let repeats = match padding {
            "repeat" => expected.div_ceil(length),
            "repeatpad" => expected / length,
            _ => 1,
        };
        let mut samples = samples.repeat(repeats.max(1));
        samples.resize(expected, 0.0);
        let x = self.spectrogram(samples)?;
        let crops = if fusion { 4 } else { 1 };
        Ok(x.unsqueeze(0)?.expand(&[crops, -1, -1])?)
    }

    fn count_truncated(&self) {
        mm_data::note_truncated(self.limit());
        self.num_truncated.fetch_add(1, Ordering::Relaxed);
    }

    fn limit(&self) -> String {
        format!("{} seconds", self.max_seconds())
    }

    /// The limit in seconds.
    fn max_seconds(&self) -> f64 {
        let samples = match &self.framing {
            Framing::Frames { frames, .. } => *frames as usize * self.mel.config().hop_length,
            Framing::Samples { samples, .. } | Framing::Crops { samples, .. } => *samples,
        };
        samples as f64 / f64::from(self.mel.config().sample_rate)
    }
}

impl Processor for SpectrogramProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let audio = decode_audio_source(source, Some(self.mel.config().sample_rate))?;
        self.frame(audio.samples).map_err(|e| Error::Sample(format!("{}: {e}", source_name(source))))
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn truncated(&self) -> Option<(usize, String)> {
        let count = self.num_truncated.load(Ordering::Relaxed);
        (count > 0).then(|| (count, self.limit()))
    }

    fn fingerprint(&self) -> String {
        format!("spectrogram whole {:?} {:?}", self.mel.config(), self.framing)
    }
}
