//! Audio encoders.

mod ast;
mod cnn;
mod feature_extractor;
mod sequence_classifier;
mod spectrogram;
mod wav2vec2;
mod waveform;
pub mod whisper;

pub use cnn::{AudioCnn, AudioCnnConfig};
pub use spectrogram::SpectrogramProcessor;

use crate::family::Family;

/// The families of this module.
pub(crate) const FAMILIES: &[&[Family]] = &[ast::FAMILIES, wav2vec2::FAMILIES, whisper::FAMILIES];
