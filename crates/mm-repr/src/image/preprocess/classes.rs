//! transformers' image processor classes, and their defaults for what a file leaves out.

use super::common::{CLIP, HALF, IMAGENET, Normalization};
use mm_data::transform::Resize;
use serde_json::Value;

/// A processor class's defaults for what the file leaves out.
pub(super) struct Defaults {
    /// Whether a single number for the size is the side of a square, not the shortest edge.
    pub(super) square: bool,
    pub(super) size: Resize,
    pub(super) crop: Option<u32>,
    /// Pillow's code of the interpolation.
    pub(super) resample: u64,
    pub(super) normalization: Normalization,
}

/// The classes that mm computes as transformers does, without `ImageProcessor` and the like.
pub(super) const CLASSES: [&str; 14] = [
    "CLIP",
    "ChineseCLIP",
    "Llava",
    "Bit",
    "ConvNext",
    "ConvNeXT",
    "VideoMAE",
    "DeiT",
    "ViT",
    "Blip",
    "Vilt",
    "Qwen2VL",
    "Siglip",
    "EfficientNet",
];

/// The class of a file, without `ImageProcessor`, `ImageProcessorFast`, `FeatureExtractor` and the like; empty where
/// neither the file nor the model's type names one.
pub(super) fn class_of(file: &Value, config: &Value) -> String {
    let keys = ["image_processor_type", "feature_extractor_type", "video_processor_type"];
    let Some(class) = keys.iter().find_map(|k| file[*k].as_str()) else {
        // transformers' AutoImageProcessor chooses by the model's type.
        let model_type = |config: &Value| config["model_type"].as_str().unwrap_or_default().to_owned();
        let mut model = model_type(config);
        if model == "vision-encoder-decoder" {
            model = model_type(&config["encoder"]);
        }
        return class_of_model(&model).to_owned();
    };
    ENDS.iter().find_map(|end| class.strip_suffix(end)).unwrap_or(class).to_owned()
}

/// What the names of image processor classes end with.
const ENDS: [&str; 7] = [
    "ImageProcessorFast",
    "ImageProcessorPil",
    "ImageProcessor",
    "FeatureExtractor",
    "VideoProcessorFast",
    "VideoProcessorPil",
    "VideoProcessor",
];

fn class_of_model(model_type: &str) -> &'static str {
    match model_type {
        "clip" | "git" | "llava" => "CLIP",
        "chinese_clip" => "ChineseCLIP",
        "siglip" => "Siglip",
        "blip" => "Blip",
        "vilt" => "Vilt",
        "vit" => "ViT",
        "deit" => "DeiT",
        "dinov2" | "dinov2_with_registers" => "Bit",
        "resnet" | "convnext" | "convnextv2" => "ConvNext",
        "videomae" => "VideoMAE",
        "qwen2_vl" => "Qwen2VL",
        _ => "",
    }
}

/// The defaults of a class; an error for one that is not known.
pub(super) fn defaults(class: &str) -> Result<Defaults, String> {
    let (square, size, crop, resample, normalization) = match class {
        "CLIP" | "ChineseCLIP" | "Bit" | "Llava" => (false, Resize::ShortestEdge(224), Some(224), 3, CLIP),
        "ConvNext" | "ConvNeXT" => (false, Resize::ShortestEdge(384), None, 3, IMAGENET),
        "VideoMAE" => (false, Resize::ShortestEdge(224), Some(224), 2, IMAGENET),
        "DeiT" => (true, Resize::Exact(256, 256), Some(224), 3, IMAGENET),
        "Blip" => (true, Resize::Exact(384, 384), None, 3, CLIP),
        "Vilt" => (false, Resize::ShortestEdge(384), None, 3, HALF),
        "Qwen2VL" => (true, Resize::Exact(224, 224), None, 3, CLIP),
        "Siglip" => (true, Resize::Exact(224, 224), None, 3, HALF),
        "EfficientNet" => (true, Resize::Exact(346, 346), None, 0, IMAGENET),
        "ViT" | "" => (true, Resize::Exact(224, 224), None, 2, HALF),
        other => {
            let known = CLASSES.join(", ");
            return Err(format!("image_processor_type: found `{other}`, expected a processor of one of {known}"));
        }
    };
    Ok(Defaults { square, size, crop, resample, normalization })
}
