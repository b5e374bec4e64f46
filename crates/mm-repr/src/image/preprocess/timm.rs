//! timm's evaluation transform.

use super::common::{IMAGENET, channel_values, interpolation, processor_config};
use crate::{Result, family::ModelBuilder};
use mm_data::{
    ImageProcessorConfig,
    transform::{ImageTransform, Resize},
};

/// Resizes the shortest edge to size / `crop_pct` and crops the center, as `pretrained_cfg` says.
pub(crate) fn timm_preprocessing(b: &ModelBuilder<'_>) -> Result<ImageProcessorConfig> {
    let c = &b.config["pretrained_cfg"];
    let side = |i: usize| c["input_size"][i].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(224);
    let (height, width) = (side(1), side(2));
    let crop_pct = c["crop_pct"].as_f64().unwrap_or(0.875);
    let before_crop = |n: u32| (f64::from(n) / crop_pct).floor() as u32;
    let resize = match c["crop_mode"].as_str() {
        Some("squash") => Resize::Exact(before_crop(height), before_crop(width)),
        None | Some("center") if height == width => Resize::ShortestEdge(before_crop(height)),
        other => {
            let found = format!("`{}` at {height}×{width}", other.unwrap_or("center"));
            let expected = "expected `squash`, or `center` with a square";
            return Err(b.config_error(format!("pretrained_cfg.crop_mode: found {found}, {expected}")));
        }
    };
    let transform = ImageTransform {
        resize: Some(resize),
        interpolation: interpolation(&c["interpolation"]).map_err(|e| b.config_error(e))?,
        pillow_exact: true,
        crop: Some((height, width)),
        floor_crop_offset: false,
        mean: channel_values(&c["mean"], IMAGENET.0),
        std: channel_values(&c["std"], IMAGENET.1),
    };
    Ok(processor_config(b, transform))
}
