//! Log-mel spectrograms, as librosa, Kaldi and Whisper compute them.

use super::{LogScale, MelConfig, MelScale, PadMode, Window};
use crate::{Error, Result};
use mm_core::Tensor;
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Maximum number of bands times samples of a transform, which bounds the time to compute the filters.
const MAX_FILTER_VALUES: usize = 1 << 24;

/// Computes log-mel spectrograms, with the window, the filters and the FFT precomputed.
pub struct Mel {
    config: MelConfig,
    window: Vec<f64>,
    /// For each band: its first frequency bin, and its weights from there on.
    filters: Vec<(usize, Vec<f64>)>,
    transform: Arc<dyn RealToComplex<f64>>,
}

impl Mel {
    /// Precomputes the tables.
    ///
    /// # Errors
    /// When a size is 0 or too large, the window is longer than the transform, or the frequencies exceed half the
    /// sample rate.
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
            return Err(Error::Config(format!("mel.{name}: found 0, expected a positive number")));
        }
        if config.win_length > config.n_fft || config.n_fft > 1 << 20 {
            return Err(Error::Config(format!(
                "mel.win_length: found {} samples, expected at most mel.n_fft = {}",
                config.win_length, config.n_fft
            )));
        }
        if config.n_mels > MAX_FILTER_VALUES / config.n_fft {
            return Err(Error::Config(format!(
                "mel.n_mels: found {} bands of a transform of {} samples, expected a product of at most {MAX_FILTER_VALUES}",
                config.n_mels, config.n_fft
            )));
        }
        if !(0.0..high).contains(&config.f_min) || high > f64::from(config.sample_rate) / 2.0 {
            return Err(Error::Config(format!(
                "mel.f_min, mel.f_max: found {} and {high} Hz, expected a range within 0 and {}",
                config.f_min,
                config.sample_rate / 2
            )));
        }
        let n = config.win_length as f64;
        let hann = |i: usize, period: f64| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / period).cos();
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

    /// The settings.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// Samples → `[frames, n_mels]` float32.
    ///
    /// # Errors
    /// When the audio is empty or, without padding, shorter than one frame.
    pub fn apply(&self, samples: &[f32]) -> Result<Tensor> {
        let rows = self.energies(samples)?;
        let frames = rows.len() / self.config.n_mels;
        let values: Vec<f32> = self.to_log(rows).into_iter().map(|v| v as f32).collect();
        Ok(Tensor::from_vec(&values, &[frames as i64, self.config.n_mels as i64])?)
    }

    /// The energies `frames × n_mels`, row by row.
    fn energies(&self, samples: &[f32]) -> Result<Vec<f64>> {
        let c = &self.config;
        // A frame that is shorter than the transform is placed in its middle when centered (librosa), else at its start
        // (Kaldi).
        let is_centered = c.pad_mode != PadMode::None;
        let (padded, span, inset) = if is_centered {
            (pad(samples, c.n_fft / 2, c.pad_mode)?, c.n_fft, (c.n_fft - c.win_length) / 2)
        } else {
            (pad(samples, 0, c.pad_mode)?, c.win_length, 0)
        };
        if padded.len() < span {
            return Err(Error::Config(format!(
                "found audio of {} samples, expected at least one frame of {span}",
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
            if let Some(preemphasis) = c.preemphasis {
                // Samples are not scaled to the 16-bit range: that is Kaldi's file reader's doing, and torchaudio does
                // not either.
                let mean = target.iter().sum::<f64>() / c.win_length as f64;
                target.iter_mut().for_each(|v| *v -= mean);
                for i in (0..c.win_length).rev() {
                    target[i] -= preemphasis * target[i.saturating_sub(1)];
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

    fn to_log(&self, mut rows: Vec<f64>) -> Vec<f64> {
        let (floor, max_range, factor) = match self.config.log {
            LogScale::Natural { floor } => {
                rows.iter_mut().for_each(|v| *v = v.max(floor).ln());
                return rows;
            }
            LogScale::Decibel { floor, top_db } => (floor, top_db, 10.0),
            LogScale::Whisper => (1e-10, 8.0, 1.0),
        };
        rows.iter_mut().for_each(|v| *v = factor * v.max(floor).log10());
        let top = rows.iter().copied().fold(f64::MIN, f64::max);
        let whisper = matches!(self.config.log, LogScale::Whisper);
        rows.iter_mut().for_each(|v| {
            *v = v.max(top - max_range);
            if whisper {
                *v = (*v + 4.0) / 4.0;
            }
        });
        rows
    }
}

/// Pads both ends by `pad` samples: with zeros, or by mirroring as often as the length requires.
fn pad(samples: &[f32], pad: usize, mode: PadMode) -> Result<Vec<f64>> {
    let length = samples.len();
    if length == 0 {
        return Err(Error::Config("audio without samples".into()));
    }
    let period = (2 * length).saturating_sub(2).max(1) as i64;
    let at = |i: i64| {
        if mode == PadMode::Constant {
            return usize::try_from(i).ok().and_then(|i| samples.get(i)).map_or(0.0, |s| f64::from(*s));
        }
        let index = i.rem_euclid(period) as usize;
        f64::from(samples[if index < length { index } else { period as usize - index }])
    };
    let pad = pad as i64;
    Ok((-pad..length as i64 + pad).map(at).collect())
}

/// The triangular mel filters up to the frequency `high`: for each, its first bin and its weights from there on.
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
                    // Kaldi omits the last bin (half the sample rate).
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
