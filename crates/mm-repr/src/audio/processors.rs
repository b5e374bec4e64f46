//! What a checkpoint folder says a sound must be: transformers' feature extractors for AST, Whisper, CLAP and Wav2Vec2.

use crate::{Error, Result, family::ModelBuilder};
use mm_core::{Error as CoreError, ProcessContext, Processor, Source, Tensor};
use mm_data::{
    decode::decode_audio,
    require_path,
    transform::{LogScale, Mel, MelConfig, MelScale, PadMode, Window},
};
use serde_json::Value;
use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Longest sound that goes through a wave encoder in one piece, in seconds: its attention looks from each of the fifty positions a
/// second at all others, and its first convolution makes 6.5 MB a second.
const WAVE_LIMIT: f64 = 300.0;

/// The feature extractor's settings: `preprocessor_config.json`, or that part of `processor_config.json`.
fn settings(b: &ModelBuilder<'_>) -> Result<Value> {
    let file = b.json("preprocessor_config.json")?;
    if !file.is_null() {
        return Ok(file);
    }
    let whole = b.json("processor_config.json")?;
    let part = ["feature_extractor", "audio_processor"].iter().map(|k| &whole[*k]).find(|v| !v.is_null());
    part.cloned().ok_or_else(|| {
        Error::folder(
            b.folder,
            "no preprocessor_config.json here, so mm cannot know what the sound must be; fetch the model again with all its files",
        )
    })
}

fn count(b: &ModelBuilder<'_>, c: &Value, key: &str, otherwise: usize) -> Result<usize> {
    match &c[key] {
        Value::Null => Ok(otherwise),
        // Written by numpy as 480.0 here and there.
        v => match v.as_f64().filter(|n| *n >= 1.0 && *n <= 1e9) {
            Some(n) => Ok(n as usize),
            None => Err(Error::folder(
                b.folder.join("preprocessor_config.json"),
                format!("{key}: found {v}, wanted a positive number"),
            )),
        },
    }
}

/// What a sound is brought to before and after its spectrogram.
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// AST: so many frames, zeros added or the rest cut, then normalised; `[frames, bands]`.
    Frames { frames: i64, mean: f64, deviation: f64 },
    /// Whisper: so many samples, silence added, the rest cut or kept; `[bands, frames]`.
    Samples(usize, bool),
    /// CLAP: so many samples; `[crops, frames, bands]`.
    Crops { samples: usize, padding: String, fused: bool },
}

/// A sound file → a spectrogram of the size that a model was trained on.
pub struct SpectrogramProcessor {
    mel: Mel,
    shape: Shape,
    cut: AtomicUsize,
}

impl SpectrogramProcessor {
    fn new(b: &ModelBuilder<'_>, mel: MelConfig, shape: Shape) -> Result<Self> {
        let mel = Mel::new(mel).map_err(|e| Error::folder(b.folder.join("preprocessor_config.json"), e))?;
        Ok(Self { mel, shape, cut: AtomicUsize::new(0) })
    }

    /// `ASTFeatureExtractor`: Kaldi's filter bank with a Hann window.
    pub(crate) fn ast(b: &ModelBuilder<'_>) -> Result<Self> {
        let c = settings(b)?;
        let rate = count(b, &c, "sampling_rate", 16_000)? as u32;
        let mel = MelConfig { window: Window::Hanning, ..MelConfig::kaldi(rate, count(b, &c, "num_mel_bins", 128)?) };
        let normal = c["do_normalize"].as_bool().unwrap_or(true);
        let number = |key: &str, otherwise: f64| c[key].as_f64().unwrap_or(otherwise);
        let (mean, deviation) =
            if normal { (number("mean", -4.267_739_3), 2.0 * number("std", 4.568_997_4)) } else { (0.0, 1.0) };
        let frames = count(b, &c, "max_length", 1024)? as i64;
        Self::new(b, mel, Shape::Frames { frames, mean, deviation })
    }

    /// `WhisperFeatureExtractor`: half a minute, the rest is cut.
    pub fn whisper(b: &ModelBuilder<'_>) -> Result<Self> {
        Self::whisper_of(b, false)
    }

    /// The same, of the whole sound where it is longer.
    pub fn whisper_whole(b: &ModelBuilder<'_>) -> Result<Self> {
        Self::whisper_of(b, true)
    }

    fn whisper_of(b: &ModelBuilder<'_>, whole: bool) -> Result<Self> {
        let c = settings(b)?;
        let rate = count(b, &c, "sampling_rate", 16_000)?;
        let fft = count(b, &c, "n_fft", 400)?;
        let mel = MelConfig {
            sample_rate: rate as u32,
            n_fft: fft,
            win_length: fft,
            hop_length: count(b, &c, "hop_length", 160)?,
            ..MelConfig::whisper(count(b, &c, "feature_size", 80)?)
        };
        Self::new(b, mel, Shape::Samples(count(b, &c, "chunk_length", 30)? * rate, whole))
    }

    /// `ClapFeatureExtractor`: HTK's bands where crops are fused, else Slaney's.
    pub(crate) fn clap(b: &ModelBuilder<'_>) -> Result<Self> {
        let c = settings(b)?;
        let rate = count(b, &c, "sampling_rate", 48_000)?;
        let fft = count(b, &c, "fft_window_size", 1024)?;
        let fused = c["truncation"].as_str().unwrap_or("fusion") == "fusion";
        let number = |key: &str, otherwise: f64| c[key].as_f64().unwrap_or(otherwise);
        let mel = MelConfig {
            sample_rate: rate as u32,
            n_fft: fft,
            win_length: fft,
            hop_length: count(b, &c, "hop_length", 480)?,
            n_mels: count(b, &c, "feature_size", 64)?,
            f_min: number("frequency_min", 0.0),
            f_max: Some(number("frequency_max", 14_000.0)),
            mel_scale: if fused { MelScale::Htk } else { MelScale::Slaney },
            window: Window::Hann,
            pad_mode: PadMode::Reflect,
            preemphasis: None,
            log: LogScale::Decibel { floor: 1e-10, top_db: f64::INFINITY },
        };
        let samples = count(b, &c, "max_length_s", 10)? * rate;
        let padding = c["padding"].as_str().unwrap_or("repeatpad").to_owned();
        Self::new(b, mel, Shape::Crops { samples, padding, fused })
    }

    fn spectrogram(&self, mut samples: Vec<f32>) -> mm_data::Result<Tensor> {
        // A sound shorter than one frame still gives one.
        samples.resize(samples.len().max(self.mel.config().n_fft), 0.0);
        self.mel.apply(&samples)
    }

    fn shaped(&self, mut samples: Vec<f32>) -> mm_data::Result<Tensor> {
        match &self.shape {
            Shape::Frames { frames, mean, deviation } => {
                let x = self.spectrogram(samples)?;
                let found = x.size(0)?;
                let x = if found > *frames { self.cut(x.narrow(0, 0, *frames)?) } else { x };
                let x = x.pad(&[0, 0, 0, (frames - found).max(0)], 0.0)?;
                Ok(x.add_scalar(-mean)?.mul_scalar(1.0 / deviation)?)
            }
            Shape::Samples(wanted, whole) => {
                if samples.len() > *wanted && !whole {
                    self.cut(());
                }
                let kept = if *whole { samples.len().max(*wanted) } else { *wanted };
                samples.resize(kept, 0.0);
                Ok(self.spectrogram(samples)?.transpose(0, 1)?.contiguous()?)
            }
            Shape::Crops { samples: wanted, padding, fused } => self.crops(samples, *wanted, padding, *fused),
        }
    }

    /// CLAP's pieces of a sound: the whole, shrunk, and three crops where they are fused; one crop otherwise. Where the reference
    /// draws the places of crops, these are the first third's, second third's and last third's middles, or the beginning: the same
    /// file gives the same numbers.
    fn crops(&self, mut samples: Vec<f32>, wanted: usize, padding: &str, fused: bool) -> mm_data::Result<Tensor> {
        if samples.len() > wanted && fused {
            let x = self.spectrogram(samples)?; // [frames, bands]
            let (all, chunk) = (x.size(0)?, (wanted / self.mel.config().hop_length + 1) as i64);
            if all == chunk {
                return Ok(Tensor::stack(&[&x, &x, &x, &x], 0)?);
            }
            let bands = x.size(1)?;
            let whole = x
                .reshape(&[1, 1, all, bands])?
                .interpolate([chunk, bands], mm_core::Interpolation::Bilinear { align_corners: false })?
                .reshape(&[chunk, bands])?;
            let starts = all - chunk + 1;
            let crop = |third: i64| x.narrow(0, (starts * (2 * third + 1) / 6).min(starts - 1), chunk);
            return Ok(Tensor::stack(&[&whole, &crop(0)?, &crop(1)?, &crop(2)?], 0)?);
        }
        if samples.len() > wanted {
            self.cut(());
            samples.truncate(wanted);
        }
        let once = samples.len();
        let times = match padding {
            "repeat" => wanted.div_ceil(once),
            "repeatpad" => wanted / once,
            _ => 1,
        };
        let mut samples = samples.repeat(times.max(1));
        samples.resize(wanted, 0.0);
        let x = self.spectrogram(samples)?;
        let crops = if fused { 4 } else { 1 };
        Ok(x.unsqueeze(0)?.expand(&[crops, -1, -1])?)
    }

    fn cut<T>(&self, x: T) -> T {
        self.cut.fetch_add(1, Ordering::Relaxed);
        x
    }

    fn longest(&self) -> String {
        let rate = f64::from(self.mel.config().sample_rate);
        let samples = match &self.shape {
            Shape::Frames { frames, .. } => *frames as usize * self.mel.config().hop_length,
            Shape::Samples(samples, _) | Shape::Crops { samples, .. } => *samples,
        };
        format!("{} seconds", samples as f64 / rate)
    }
}

fn samples(path: &Path, rate: u32) -> mm_core::Result<Vec<f32>> {
    Ok(decode_audio(path, Some(rate))?.samples)
}

impl Processor for SpectrogramProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let path = require_path(source, "a sound")?;
        self.shaped(samples(path, self.mel.config().sample_rate)?)
            .map_err(|e| CoreError::Sample(format!("{}: {e}", path.display())))
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn truncated(&self) -> Option<(usize, String)> {
        let count = self.cut.load(Ordering::Relaxed);
        (count > 0).then(|| (count, self.longest()))
    }

    fn fingerprint(&self) -> String {
        format!("spectrogram {:?} {:?}", self.mel.config(), self.shape)
    }
}

/// `Wav2Vec2FeatureExtractor`: a sound file → its samples `[samples]`, brought to mean zero and variance one where the folder says so.
pub(crate) struct WaveProcessor {
    rate: u32,
    normalize: bool,
    /// Fewest samples that give the model one position.
    shortest: usize,
}

impl WaveProcessor {
    pub(crate) fn new(b: &ModelBuilder<'_>, shortest: i64) -> Result<Self> {
        let c = settings(b)?;
        let rate = count(b, &c, "sampling_rate", 16_000)? as u32;
        let normalize = c["do_normalize"].as_bool().unwrap_or(true);
        Ok(Self { rate, normalize, shortest: usize::try_from(shortest).unwrap_or(1) })
    }
}

impl Processor for WaveProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let path = require_path(source, "a sound")?;
        let mut samples = samples(path, self.rate)?;
        let refuse = |reason: String| Err(CoreError::Sample(format!("{}: {reason}", path.display())));
        if samples.len() < self.shortest {
            return refuse(format!(
                "a sound of {} samples, {} ms; this model needs at least {}",
                samples.len(),
                samples.len() * 1000 / self.rate as usize,
                self.shortest
            ));
        }
        let seconds = samples.len() as f64 / f64::from(self.rate);
        if seconds > WAVE_LIMIT {
            return refuse(format!(
                "a sound of {seconds:.0} seconds; this model takes at most {WAVE_LIMIT} in one piece: cut it, for instance with `ffmpeg -i FILE -f segment -segment_time 30 PIECE%03d.wav`"
            ));
        }
        if self.normalize {
            let count = samples.len() as f64;
            let mean = samples.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
            let variance = samples.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
            let scale = 1.0 / (variance + 1e-7).sqrt();
            samples.iter_mut().for_each(|v| *v = ((f64::from(*v) - mean) * scale) as f32);
        }
        Tensor::from_slice(&samples)
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("wave {} {}", self.rate, self.normalize)
    }
}
