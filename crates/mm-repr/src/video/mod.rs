//! Video encoders.

mod frames;
mod videomae;

pub use frames::{FramesEncoder, FramesProcessor};

use crate::family::Family;

/// The families of this module.
pub(crate) const FAMILIES: &[&[Family]] = &[videomae::FAMILIES];
