//! open_clip's evaluation transform.

use super::common::{CLIP, channel_values, interpolation, processor_config};
use crate::{Result, family::ModelBuilder};
use mm_data::{
    ImageProcessorConfig,
    transform::{ImageTransform, Resize},
};

/// The transform of `preprocess_cfg` for images of this height and width.
pub(crate) fn open_clip_preprocessing(b: &ModelBuilder<'_>, [height, width]: [i64; 2]) -> Result<ImageProcessorConfig> {
    let c = &b.config["preprocess_cfg"];
    let (height, width) = (u32::try_from(height).unwrap_or(224), u32::try_from(width).unwrap_or(224));
    let (resize, crop) = match c["resize_mode"].as_str().unwrap_or("shortest") {
        "squash" => (Resize::Exact(height, width), None),
        "shortest" if height == width => (Resize::ShortestEdge(height), Some((height, width))),
        other => {
            let expected = "expected `squash`, or `shortest` with a square";
            let reason = format!("preprocess_cfg.resize_mode: found `{other}` at {height}×{width}, {expected}");
            return Err(b.config_error(reason));
        }
    };
    let transform = ImageTransform {
        resize: Some(resize),
        interpolation: interpolation(&c["interpolation"]).map_err(|e| b.config_error(e))?,
        pillow_exact: true,
        crop,
        floor_crop_offset: false,
        mean: channel_values(&c["mean"], CLIP.0),
        std: channel_values(&c["std"], CLIP.1),
    };
    Ok(processor_config(b, transform))
}
