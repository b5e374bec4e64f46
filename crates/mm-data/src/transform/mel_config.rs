//! Settings of log-mel spectrograms.

use serde::{Deserialize, Serialize};

/// The mel scale and the shape of its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MelScale {
    /// Linear below 1 kHz, each filter of unit area: Slaney's *Auditory Toolbox* (1998), as librosa and Whisper use it.
    Slaney,
    /// 2595 log10(1 + f/700), each filter of unit height.
    Htk,
    /// Kaldi's: HTK's scale, with filters that are triangular in mel rather than in hertz.
    Kaldi,
}

/// The window function of frames.
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

/// Padding of the signal, which determines where frames start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadMode {
    /// No padding: the first frame starts at the first sample, and only whole frames are used (Kaldi).
    None,
    /// Frames are centered on their time; the signal is mirrored at both ends (Whisper).
    Reflect,
    /// Frames are centered on their time; the signal is padded with zeros (librosa since 0.10).
    Constant,
}

/// The logarithmic scaling of energies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogScale {
    /// Natural logarithm of the energy, which is at least `floor`.
    Natural {
        /// Lower bound of the energies.
        floor: f64,
    },
    /// librosa's `power_to_db`: 10 log10 of the energy, which is at least `floor`.
    Decibel {
        /// Lower bound of the energies.
        floor: f64,
        /// Values are at most this many decibels below the largest.
        top_db: f64,
    },
    /// Whisper's: log10 of the energy, clipped to at most 8 below the largest, then (x + 4) / 4.
    Whisper,
}

/// Settings of a log-mel spectrogram, named as in librosa and torchaudio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelConfig {
    /// Samples per second.
    pub sample_rate: u32,
    /// Length of the Fourier transform, in samples.
    pub n_fft: usize,
    /// Length of a frame, in samples.
    pub win_length: usize,
    /// Distance between the starts of frames, in samples.
    pub hop_length: usize,
    /// Number of mel bands.
    pub n_mels: usize,
    /// Lowest frequency, in hertz.
    pub f_min: f64,
    /// Highest frequency, in hertz; half the sample rate when absent.
    pub f_max: Option<f64>,
    /// The mel scale.
    pub mel_scale: MelScale,
    /// The window function.
    pub window: Window,
    /// Padding of the signal.
    pub pad_mode: PadMode,
    /// Coefficient of Kaldi's pre-emphasis, which also subtracts the mean of each frame; none when absent.
    pub preemphasis: Option<f64>,
    /// The logarithmic scaling.
    pub log: LogScale,
}

impl MelConfig {
    /// librosa's defaults: frames of 2,048 samples, a hop of 512, 128 bands, decibels.
    pub fn librosa(sample_rate: u32) -> Self {
        Self {
            sample_rate,
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

    /// Kaldi's filter bank: frames of 25 ms, a hop of 10 ms, from 20 Hz up, no dither.
    pub fn kaldi(sample_rate: u32, n_mels: usize) -> Self {
        let win_length = sample_rate as usize * 25 / 1000;
        Self {
            sample_rate,
            n_fft: win_length.next_power_of_two(),
            win_length,
            hop_length: sample_rate as usize / 100,
            n_mels,
            f_min: 20.0,
            f_max: None,
            mel_scale: MelScale::Kaldi,
            window: Window::Povey,
            pad_mode: PadMode::None,
            preemphasis: Some(0.97),
            log: LogScale::Natural { floor: f64::from(f32::EPSILON) },
        }
    }

    /// Whisper's feature extractor at 16 kHz, with 80 or 128 bands.
    pub fn whisper(n_mels: usize) -> Self {
        Self {
            sample_rate: 16_000,
            n_fft: 400,
            win_length: 400,
            hop_length: 160,
            n_mels,
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
