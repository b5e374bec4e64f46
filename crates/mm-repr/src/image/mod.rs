//! Picture encoders.

mod cnn;
pub(crate) mod convnext;
pub(crate) mod efficientnet;
pub(crate) mod preprocess;
pub(crate) mod resnet;
mod vision;
pub mod vit;

pub use cnn::{CnnEncoder, CnnEncoderConfig, CnnProcessor};
pub use preprocess::preprocessing;
pub(crate) use preprocess::timm_preprocessing;
pub use vision::{VisionDefaults, VisionVariant, clip_vision_backbone, vision_config};
