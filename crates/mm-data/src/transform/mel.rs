//! Log-mel spectrograms: the energy of sound in bands of pitch, as librosa, Kaldi and Whisper make them.

use crate::{Error, Result};
use mm_core::Tensor;
use realfft::{RealFftPlanner, RealToComplex};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How pitch is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MelScale {
    /// Linear below 1 kHz (Slaney 1998; librosa's and Whisper's), each band of unit area.
    Slaney,
    /// 2595 log10(1 + f/700), each band of unit height.
    Htk,
    /// Kaldi's: HTK's curve, triangles drawn over mels instead of hertz.
    Kaldi,
}

/// What a frame is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Periodic Hann.
    Hann,
    /// Symmetric Hann (Kaldi's `hanning`).
    Hanning,
    /// Kaldi's: symmetric Hann to the power 0.85.
    Povey,
}

/// Where frames begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadMode {
    /// Only whole frames are taken, the first at the first sample (Kaldi).
    None,
    /// Frames are centred on their time, the ends mirrored (Whisper).
    Reflect,
    /// Frames are centred on their time, silence beyond the ends (librosa since 0.10).
    Constant,
}

/// What is done to the energies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogScale {
    /// Natural logarithm of at least `floor`.
    Natural {
        /// The least energy.
        floor: f64,
    },
    /// librosa's `power_to_db`: 10 log10 of at least `floor`, at most `top_db` below the largest.
    Decibel {
        /// The least energy.
        floor: f64,
        /// Decibels below the largest that are kept.
        top_db: f64,
    },
    /// Whisper's: log10, at most 8 below the largest, then (x + 4) / 4.
    Whisper,
}

/// Every number of a log-mel spectrogram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelConfig {
    /// Samples a second.
    pub sample_rate: u32,
    /// Length of the Fourier transform.
    pub n_fft: usize,
    /// Samples in a frame.
    pub win_length: usize,
    /// Samples between frames.
    pub hop_length: usize,
    /// Number of bands.
    pub n_mels: usize,
    /// Lowest frequency, in hertz.
    pub f_min: f64,
    /// Highest frequency, in hertz; half the rate when absent.
    pub f_max: Option<f64>,
    /// How pitch is measured.
    pub mel_scale: MelScale,
    /// What a frame is multiplied by.
    pub window: Window,
    /// Whether frames are centred on their time, and what is then beyond the ends.
    pub pad_mode: PadMode,
    /// Kaldi's preparation of a frame: mean removed, pre-emphasis by this much.
    pub preemphasis: Option<f64>,
    /// What is done to the energies.
    pub log: LogScale,
}

impl MelConfig {
    /// librosa's defaults at a rate: 2,048-sample frames, hop 512, 128 bands, decibels.
    pub fn librosa(rate: u32) -> Self {
        Self {
            sample_rate: rate,
            n_fft: 2048,
            win_length: 2048,
            hop_length: 512,
            n_mels: 128,
            f_min: 0.0,
            f_max: None,
            mel_scale: MelScale::Slaney,
            window: Window::Hann,
            pad_mode: PadMode::Constant,
            preemphasis: None,
            log: LogScale::Decibel { floor: 1e-10, top_db: 80.0 },
        }
    }

    /// Kaldi's filter bank (25 ms frames, 10 ms hop, from 20 Hz, no dither).
    pub fn kaldi(rate: u32, bands: usize) -> Self {
        let frame = rate as usize * 25 / 1000;
        Self {
            sample_rate: rate,
            n_fft: frame.next_power_of_two(),
            win_length: frame,
            hop_length: rate as usize / 100,
            n_mels: bands,
            f_min: 20.0,
            f_max: None,
            mel_scale: MelScale::Kaldi,
            window: Window::Povey,
            pad_mode: PadMode::None,
            preemphasis: Some(0.97),
            log: LogScale::Natural { floor: f64::from(f32::EPSILON) },
        }
    }

    /// Whisper's front end (16 kHz, 80 or 128 bands).
    pub fn whisper(bands: usize) -> Self {
        Self {
            sample_rate: 16_000,
            n_fft: 400,
            win_length: 400,
            hop_length: 160,
            n_mels: bands,
            f_min: 0.0,
            f_max: Some(8000.0),
            mel_scale: MelScale::Slaney,
            window: Window::Hann,
            pad_mode: PadMode::Reflect,
            preemphasis: None,
            log: LogScale::Whisper,
        }
    }
}

/// A log-mel front end with its tables made.
pub struct Mel {
    config: MelConfig,
    window: Vec<f64>,
    /// For each band: its first bin, and its weights from there.
    filters: Vec<(usize, Vec<f64>)>,
    transform: Arc<dyn RealToComplex<f64>>,
}

impl Mel {
    /// Makes the tables; sizes that make no sense are errors.
    pub fn new(config: MelConfig) -> Result<Self> {
        let high = config.f_max.unwrap_or(f64::from(config.sample_rate) / 2.0);
        let sizes = [
            ("n_fft", config.n_fft),
            ("win_length", config.win_length),
            ("hop_length", config.hop_length),
            ("n_mels", config.n_mels),
            ("sample_rate", config.sample_rate as usize),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, v)| *v == 0) {
            return Err(Error::Config(format!("mel.{name}: found 0, wanted a positive number")));
        }
        if config.win_length > config.n_fft || config.n_fft > 1 << 20 {
            return Err(Error::Config(format!(
                "mel.win_length: found {} samples, wanted at most mel.n_fft = {}",
                config.win_length, config.n_fft
            )));
        }
        if !(0.0..high).contains(&config.f_min) || high > f64::from(config.sample_rate) / 2.0 {
            return Err(Error::Config(format!(
                "mel.f_min, mel.f_max: found {} and {high} Hz, wanted a range within 0 and {}",
                config.f_min,
                config.sample_rate / 2
            )));
        }
        let n = config.win_length as f64;
        let hann = |i: usize, over: f64| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / over).cos();
        let window = (0..config.win_length)
            .map(|i| match config.window {
                Window::Hann => hann(i, n),
                Window::Hanning => hann(i, n - 1.0),
                Window::Povey => hann(i, n - 1.0).powf(0.85),
            })
            .collect();
        let transform = RealFftPlanner::<f64>::new().plan_fft_forward(config.n_fft);
        Ok(Self { filters: filters(&config, high), window, transform, config })
    }

    /// The numbers that it was made with.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// Samples → `[frames, bands]` f32.
    pub fn apply(&self, samples: &[f32]) -> Result<Tensor> {
        let rows = self.energies(samples)?;
        let frames = rows.len() / self.config.n_mels;
        let values: Vec<f32> = self.log(rows).into_iter().map(|v| v as f32).collect();
        Ok(Tensor::from_vec(&values, &[frames as i64, self.config.n_mels as i64])?)
    }

    fn energies(&self, samples: &[f32]) -> Result<Vec<f64>> {
        let c = &self.config;
        // A frame that is shorter than the transform lies in its middle when centred (librosa), at its start otherwise (Kaldi).
        let centred = c.pad_mode != PadMode::None;
        let (padded, span, inset) = if centred {
            (pad(samples, c.n_fft / 2, c.pad_mode)?, c.n_fft, (c.n_fft - c.win_length) / 2)
        } else {
            (pad(samples, 0, c.pad_mode)?, c.win_length, 0)
        };
        if padded.len() < span {
            return Err(Error::Config(format!(
                "a sound of {} samples is shorter than one frame of {span}",
                samples.len()
            )));
        }
        let mut frames = (padded.len() - span) / c.hop_length + 1;
        if matches!(c.log, LogScale::Whisper) {
            // Whisper drops the last frame.
            frames = frames.saturating_sub(1).max(1);
        }
        let (mut input, mut output) = (self.transform.make_input_vec(), self.transform.make_output_vec());
        let mut scratch = self.transform.make_scratch_vec();
        let mut power = vec![0f64; output.len()];
        let mut rows = Vec::with_capacity(frames * c.n_mels);
        for frame in 0..frames {
            let from = frame * c.hop_length + inset;
            input.fill(0.0);
            let target = &mut input[inset..inset + c.win_length];
            target.copy_from_slice(&padded[from..from + c.win_length]);
            if let Some(emphasis) = c.preemphasis {
                // Kaldi scales to 16-bit range only by its reader; torchaudio's takes samples as they are.
                let mean = target.iter().sum::<f64>() / c.win_length as f64;
                target.iter_mut().for_each(|v| *v -= mean);
                for i in (0..c.win_length).rev() {
                    target[i] -= emphasis * target[i.saturating_sub(1)];
                }
            }
            target.iter_mut().zip(&self.window).for_each(|(v, w)| *v *= w);
            self.transform
                .process_with_scratch(&mut input, &mut output, &mut scratch)
                .map_err(|e| Error::Config(format!("mel: {e}")))?;
            power.iter_mut().zip(&output).for_each(|(p, o)| *p = o.norm_sqr());
            rows.extend(
                self.filters
                    .iter()
                    .map(|(first, weights)| weights.iter().zip(&power[*first..]).map(|(w, p)| w * p).sum::<f64>()),
            );
        }
        Ok(rows)
    }

    fn log(&self, mut rows: Vec<f64>) -> Vec<f64> {
        let (floor, range, factor) = match self.config.log {
            LogScale::Natural { floor } => {
                rows.iter_mut().for_each(|v| *v = v.max(floor).ln());
                return rows;
            }
            LogScale::Decibel { floor, top_db: range } => (floor, range, 10.0),
            LogScale::Whisper => (1e-10, 8.0, 1.0),
        };
        rows.iter_mut().for_each(|v| *v = factor * v.max(floor).log10());
        let top = rows.iter().copied().fold(f64::MIN, f64::max);
        let whisper = matches!(self.config.log, LogScale::Whisper);
        rows.iter_mut().for_each(|v| {
            *v = v.max(top - range);
            if whisper {
                *v = (*v + 4.0) / 4.0;
            }
        });
        rows
    }
}

/// The samples with `pad` more on each side: silence, or the ends mirrored as often as the length needs.
fn pad(samples: &[f32], pad: usize, how: PadMode) -> Result<Vec<f64>> {
    let length = samples.len();
    if length == 0 {
        return Err(Error::Config("a sound without samples".into()));
    }
    let period = (2 * length).saturating_sub(2).max(1) as i64;
    let at = |i: i64| {
        if how == PadMode::Constant {
            return usize::try_from(i).ok().and_then(|i| samples.get(i)).map_or(0.0, |s| f64::from(*s));
        }
        let place = i.rem_euclid(period) as usize;
        f64::from(samples[if place < length { place } else { period as usize - place }])
    };
    let pad = pad as i64;
    Ok((-pad..length as i64 + pad).map(at).collect())
}

fn filters(config: &MelConfig, high: f64) -> Vec<(usize, Vec<f64>)> {
    let bins = config.n_fft / 2 + 1;
    let to_mel = |hz: f64| match config.mel_scale {
        MelScale::Slaney if hz < 1000.0 => hz * 3.0 / 200.0,
        MelScale::Slaney => 15.0 + (hz / 1000.0).ln() * 27.0 / 6.4f64.ln(),
        MelScale::Htk | MelScale::Kaldi => 1127.0 * (1.0 + hz / 700.0).ln(),
    };
    let to_hz = |mel: f64| match config.mel_scale {
        MelScale::Slaney if mel < 15.0 => mel * 200.0 / 3.0,
        MelScale::Slaney => 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp(),
        MelScale::Htk | MelScale::Kaldi => 700.0 * ((mel / 1127.0).exp() - 1.0),
    };
    let (low, high) = (to_mel(config.f_min), to_mel(high));
    let corners: Vec<f64> =
        (0..config.n_mels + 2).map(|i| low + (high - low) * i as f64 / (config.n_mels + 1) as f64).collect();
    let bin_hz = |bin: usize| bin as f64 * f64::from(config.sample_rate) / config.n_fft as f64;
    (0..config.n_mels)
        .map(|band| {
            let [left, middle, right] = [corners[band], corners[band + 1], corners[band + 2]];
            let weight = |bin: usize| -> f64 {
                if config.mel_scale == MelScale::Kaldi {
                    // Kaldi leaves the last bin (half the rate) out.
                    let mel = to_mel(bin_hz(bin));
                    if bin + 1 == bins {
                        0.0
                    } else {
                        ((mel - left) / (middle - left)).min((right - mel) / (right - middle)).max(0.0)
                    }
                } else {
                    let (l, m, r, hz) = (to_hz(left), to_hz(middle), to_hz(right), bin_hz(bin));
                    let height = ((hz - l) / (m - l)).min((r - hz) / (r - m)).max(0.0);
                    if config.mel_scale == MelScale::Slaney { height * 2.0 / (r - l) } else { height }
                }
            };
            let all: Vec<f64> = (0..bins).map(weight).collect();
            let first = all.iter().position(|w| *w > 0.0).unwrap_or(0);
            let end = all.iter().rposition(|w| *w > 0.0).map_or(first, |i| i + 1);
            (first, all[first..end].to_vec())
        })
        .collect()
}
