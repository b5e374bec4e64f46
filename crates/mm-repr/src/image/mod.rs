//! Image encoders.

mod clip_vision;
mod cnn;
mod convnext;
mod dinov2;
mod efficientnet;
pub(crate) mod preprocess;
mod resnet;
mod timm;
mod timm_vit;
pub mod vit;

pub use clip_vision::{VisionDefaults, VisionVariant, clip_vision_backbone, vision_config};
pub use cnn::{CnnEncoder, CnnEncoderConfig, CnnProcessor};
pub use preprocess::{preprocessing, video_preprocessing};
pub(crate) use timm::{TIMM_ARCHITECTURES, timm_model_type};

use crate::family::Family;

/// The families of this module.
pub(crate) const FAMILIES: &[&[Family]] = &[
    vit::FAMILIES,
    dinov2::FAMILIES,
    timm_vit::FAMILIES,
    resnet::FAMILIES,
    convnext::FAMILIES,
    efficientnet::FAMILIES,
];
