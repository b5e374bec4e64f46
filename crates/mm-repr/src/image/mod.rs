//! Picture encoders.

pub(crate) mod convnext;
pub(crate) mod efficientnet;
pub(crate) mod preprocess;
pub(crate) mod resnet;
pub(crate) mod vit;

pub(crate) use preprocess::{preprocessing, timm_preprocessing};
