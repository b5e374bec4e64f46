//! Picture encoders.

pub(crate) mod convnext;
pub(crate) mod efficientnet;
mod picture;
pub(crate) mod preprocess;
pub(crate) mod resnet;
mod vision;
pub mod vit;

pub use picture::{PictureProcessor, PictureTower, PictureTowerConfig};
pub use preprocess::preprocessing;
pub(crate) use preprocess::timm_preprocessing;
pub use vision::{VisionDefaults, VisionShape, vision_config, vision_trunk};
