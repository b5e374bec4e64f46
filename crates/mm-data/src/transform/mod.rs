//! Numbers as the field's references make them: Pillow's resizing, torchvision's crops and normalisation, librosa's, Kaldi's and
//! Whisper's log-mel. Fixtures in `tests/fixtures` hold them to it.

mod image;
mod mel;
mod pillow;

pub use image::{ImageTransform, Interpolation, Resize, center_crop, normalize, resize};
pub use mel::{LogScale, Mel, MelConfig, MelScale, PadMode, Window};
