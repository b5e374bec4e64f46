//! Image preprocessing as a checkpoint folder describes it: transformers' `preprocessor_config.json`, timm's
//! `pretrained_cfg`, open_clip's `preprocess_cfg`.

mod classes;
mod common;
mod open_clip;
mod timm;
mod transformers;

pub(crate) use open_clip::open_clip_preprocessing;
pub(crate) use timm::timm_preprocessing;
pub use transformers::{preprocessing, video_preprocessing};
