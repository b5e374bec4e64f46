//! Values and parsers that the formats share.

use crate::family::ModelBuilder;
use mm_data::{
    ImageProcessorConfig,
    decode::ImageLimits,
    transform::{ImageTransform, Interpolation},
};
use serde_json::Value;

/// Mean and standard deviation of each channel.
pub(super) type Normalization = ([f32; 3], [f32; 3]);

/// ImageNet's statistics.
pub(super) const IMAGENET: Normalization = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// Maps [0, 1] to [−1, 1].
pub(super) const HALF: Normalization = ([0.5; 3], [0.5; 3]);
/// OpenAI CLIP's statistics.
pub(super) const CLIP: Normalization =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_55, 0.261_302_6, 0.275_777_1]);

/// A processor with this transform, and the treatment of transparency that the model is loaded with. Where there is a
/// crop, training uses random resized crops of at least 0.4 of the area.
pub(super) fn processor_config(b: &ModelBuilder<'_>, transform: ImageTransform) -> ImageProcessorConfig {
    let random_resized_crop = transform.crop.map(|_| 0.4);
    let limits = ImageLimits { transparency: b.transparency, ..ImageLimits::default() };
    ImageProcessorConfig { limits, transform, random_resized_crop }
}

/// A list of three numbers, or the default.
pub(super) fn channel_values(v: &Value, default: [f32; 3]) -> [f32; 3] {
    let list: Vec<f32> = v.as_array().into_iter().flatten().filter_map(Value::as_f64).map(|v| v as f32).collect();
    list.try_into().unwrap_or(default)
}

/// An interpolation by its name; bicubic if the config has none.
pub(super) fn interpolation(v: &Value) -> Result<Interpolation, String> {
    Ok(match v.as_str().unwrap_or("bicubic") {
        "bicubic" => Interpolation::Bicubic,
        "bilinear" => Interpolation::Bilinear,
        "nearest" => Interpolation::Nearest,
        "lanczos" => Interpolation::Lanczos,
        other => {
            return Err(format!("interpolation: found `{other}`, expected bicubic, bilinear, nearest or lanczos"));
        }
    })
}
