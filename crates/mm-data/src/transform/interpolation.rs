//! Interpolation modes of image resizing.

use serde::{Deserialize, Serialize};

/// Interpolation of pixels. All modes but nearest widen their filter when they reduce (antialiasing), as Pillow
/// does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Interpolation {
    Nearest,
    #[default]
    Bilinear,
    Bicubic,
    Lanczos,
}

impl Interpolation {
    /// The mode that a number of Pillow's stands for (`resample` in `preprocessor_config.json`).
    pub fn from_pillow(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            _ => return None,
        })
    }
}
