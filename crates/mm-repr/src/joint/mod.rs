//! Families that put several modalities into one space.

pub(crate) mod blip;
pub(crate) mod clap;
pub(crate) mod clip;
