//! Preprocessing that reproduces the reference libraries: Pillow's resizing, torchvision's crops and normalization, and
//! the log-mel spectrograms of librosa, Kaldi and Whisper. `tests/references.rs` compares it with fixtures made by
//! them.

mod image;
mod interpolation;
mod mel;
mod mel_config;
mod pillow;
mod resize;

pub use self::image::{ImageTransform, center_crop, normalize};
pub use interpolation::Interpolation;
pub use mel::Mel;
pub use mel_config::{LogScale, MelConfig, MelScale, PadMode, Window};
pub use resize::{Resize, resize};
