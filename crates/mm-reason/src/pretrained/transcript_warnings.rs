//! Signs that a transcript does not match the speech: silence, for which Whisper invents text, and text that repeats
//! itself.

use super::timestamps::TIME_STEP;
use crate::Result;
use flate2::{Compression, write::ZlibEncoder};
use mm_core::Tensor;
use std::{fmt, io::Write};

/// Why a transcript should not be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TranscriptWarningKind {
    /// The audio is silent, so any text is a hallucination.
    Silence,
    /// The text repeats itself, as it does when generation runs into a loop.
    Repetition,
}

impl TranscriptWarningKind {
    /// Stable snake_case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Repetition => "repetition",
        }
    }
}

/// An interval of a recording whose transcript should not be trusted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TranscriptWarning {
    /// Why.
    pub kind: TranscriptWarningKind,
    /// Start, in seconds from the beginning of the recording.
    pub start: f64,
    /// End, in seconds from the beginning of the recording.
    pub end: f64,
}

impl fmt::Display for TranscriptWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            TranscriptWarningKind::Silence => "is silent; text there is invented",
            TranscriptWarningKind::Repetition => "has text that repeats itself, which may be a loop of the model",
        };
        write!(f, "{:.1} s to {:.1} s {what}", self.start, self.end)
    }
}

/// Seconds of a frame of the spectrogram.
const FRAME_SECONDS: f64 = TIME_STEP / 2.0;
/// Silence of at least this many seconds is reported, and a recording that is silent as a whole.
const MIN_SILENCE_SECONDS: f64 = 10.0;
/// A frame is silent when the log10 of the energy in its loudest band is at most this: noise of about −60 dB of full
/// scale.
const SILENT_LOG_ENERGY: f64 = -5.0;
/// The quotient of text and compressed text above which it repeats itself (Whisper's `compression_ratio_threshold`).
const MAX_COMPRESSION_RATIO: f64 = 2.4;
/// A loop is a sequence of tokens that occurs this many times in a row, with this many tokens in all.
const MIN_LOOP_REPEATS: usize = 5;
const MIN_LOOP_TOKENS: usize = 10;

/// The silent intervals of a spectrogram `[mels, frames]` on Whisper's scale, (log10 of the energy + 4) / 4.
pub(super) fn find_silence(spectrogram: &Tensor) -> Result<Vec<TranscriptWarning>> {
    let loudest = spectrogram.amax(0, false)?.to_vec::<f64>()?;
    let silent: Vec<bool> = loudest.iter().map(|v| 4.0 * v - 4.0 <= SILENT_LOG_ENERGY).collect();
    let (mut found, mut start) = (Vec::new(), 0);
    for run in silent.chunk_by(|a, b| a == b) {
        let seconds = run.len() as f64 * FRAME_SECONDS;
        if run[0] && (seconds >= MIN_SILENCE_SECONDS || run.len() == silent.len()) {
            let start = start as f64 * FRAME_SECONDS;
            found.push(TranscriptWarning { kind: TranscriptWarningKind::Silence, start, end: start + seconds });
        }
        start += run.len();
    }
    Ok(found)
}

/// Whether the text of a window, of these tokens, repeats itself.
pub(super) fn repeats_itself(text: &str, token_ids: &[i64]) -> bool {
    compression_ratio(text) > MAX_COMPRESSION_RATIO || has_loop(token_ids)
}

/// Bytes of a text by bytes of its zlib stream, as Whisper computes it.
fn compression_ratio(text: &str) -> f64 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    // Writing to memory does not fail.
    compressed.map_or(0.0, |bytes| text.len() as f64 / bytes.len().max(1) as f64)
}

fn has_loop(ids: &[i64]) -> bool {
    (1..=ids.len() / MIN_LOOP_REPEATS).any(|period| {
        let wanted = (period * MIN_LOOP_REPEATS).max(MIN_LOOP_TOKENS);
        // Tokens in a row that equal the one `period` before.
        let mut equal = 0;
        (period..ids.len()).any(|n| {
            equal = if ids[n] == ids[n - period] { equal + 1 } else { 0 };
            equal + period >= wanted
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device};

    fn spectrogram(frames: &[(usize, f32)]) -> Tensor {
        let row: Vec<f32> = frames.iter().flat_map(|(count, value)| vec![*value; *count]).collect();
        let all = [row.clone(), vec![-1.5; row.len()]].concat();
        Tensor::from_vec(&all, &[2, row.len() as i64])
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap()
            .to_device(Device::Cpu)
            .unwrap()
    }

    #[test]
    fn long_silence_and_silent_recordings_are_found() {
        let seconds = |frames: &[(usize, f32)]| -> Vec<(f64, f64)> {
            find_silence(&spectrogram(frames)).unwrap().iter().map(|w| (w.start, w.end)).collect()
        };
        // −1.5 is digital silence, 0.4 is speech.
        assert_eq!(seconds(&[(500, -1.5)]), [(0.0, 5.0)]);
        assert_eq!(seconds(&[(300, 0.4), (1200, -1.5), (100, 0.4)]), [(3.0, 15.0)]);
        assert_eq!(seconds(&[(300, 0.4), (500, -1.5), (100, 0.4)]), []);
        assert_eq!(seconds(&[(3000, 0.4)]), []);
    }

    #[test]
    fn text_that_repeats_itself_is_found() {
        let speech = "The quick brown fox jumps over the lazy dog while five wizards box in the light of the moon.";
        assert!(!repeats_itself(speech, &(0..20).collect::<Vec<_>>()));
        assert!(repeats_itself(&"Thanks for watching! ".repeat(12), &[]));
        // len(text) / len(zlib.compress(text)) of Python is 252 / 32; another compressor needs some bytes more or less.
        let ratio = compression_ratio(&"Thanks for watching! ".repeat(12));
        assert!((252.0 / 48.0..252.0 / 28.0).contains(&ratio), "{ratio}");
        assert!(repeats_itself("", &[3, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 9]));
        assert!(!repeats_itself("no no no no no no", &[4; 6]), "a few repeated words are no loop");
        assert!(repeats_itself("", &[4; 10]));
    }
}
