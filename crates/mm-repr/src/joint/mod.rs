//! Models that embed several modalities into one space.

pub(crate) mod blip;
mod chinese_clip;
mod clap;
mod clip;
mod dual_encoder;
mod open_clip;
mod siglip;

use crate::family::Family;

/// The families of this module.
pub(crate) const FAMILIES: &[&[Family]] =
    &[clip::FAMILIES, siglip::FAMILIES, chinese_clip::FAMILIES, open_clip::FAMILIES, clap::FAMILIES, blip::FAMILIES];
