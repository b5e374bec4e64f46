//! Picture encoders.

pub(crate) mod convnext;
pub(crate) mod efficientnet;
mod picture;
pub(crate) mod preprocess;
pub(crate) mod resnet;
pub(crate) mod vit;

pub use picture::{PictureProcessor, PictureTower, PictureTowerConfig};
pub(crate) use preprocess::{preprocessing, timm_preprocessing};
