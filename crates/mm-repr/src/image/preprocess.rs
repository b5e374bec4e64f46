//! What a checkpoint folder says pixels must be: transformers' `preprocessor_config.json`, timm's `pretrained_cfg`, open_clip's
//! `preprocess_cfg`.

use crate::{Error, Result, family::ModelBuilder};
use mm_data::{
    ImageProcessorConfig,
    transform::{ImageTransform, Interpolation, Resize},
};
use serde_json::Value;

/// What a processor class of transformers takes when the file is silent.
struct Defaults {
    /// Whether one number for the size is a square's side and not the shortest edge.
    square: bool,
    size: Resize,
    crop: Option<u32>,
    resample: u64,
    mean: [f32; 3],
    std: [f32; 3],
}

const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const HALF: ([f32; 3], [f32; 3]) = ([0.5; 3], [0.5; 3]);
const CLIP: ([f32; 3], [f32; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_55, 0.261_302_6, 0.275_777_1]);

fn defaults(class: &str) -> Defaults {
    let starts = |names: &[&str]| names.iter().any(|n| class.starts_with(n));
    let (square, size, crop, resample, (mean, std)) = if starts(&["CLIP", "ChineseCLIP", "Bit"]) {
        (false, Resize::ShortestEdge(224), Some(224), 3, CLIP)
    } else if starts(&["ConvNext", "ConvNeXT"]) {
        (false, Resize::ShortestEdge(384), None, 3, IMAGENET)
    } else if starts(&["VideoMAE"]) {
        (false, Resize::ShortestEdge(224), Some(224), 2, IMAGENET)
    } else if starts(&["DeiT"]) {
        (true, Resize::Exact(256, 256), Some(224), 3, IMAGENET)
    } else if starts(&["Blip"]) {
        (true, Resize::Exact(384, 384), None, 3, CLIP)
    } else if starts(&["Vilt"]) {
        (false, Resize::ShortestEdge(384), None, 3, HALF)
    } else if starts(&["Qwen2VL"]) {
        (true, Resize::Exact(224, 224), None, 3, CLIP)
    } else if starts(&["Siglip"]) {
        (true, Resize::Exact(224, 224), None, 3, HALF)
    } else if starts(&["EfficientNet"]) {
        (true, Resize::Exact(346, 346), None, 0, IMAGENET)
    } else {
        (true, Resize::Exact(224, 224), None, 2, HALF)
    };
    Defaults { square, size, crop, resample, mean, std }
}

/// `preprocessor_config.json` (or `processor_config.json`'s part of it) in transformers' words.
pub fn preprocessing(b: &ModelBuilder<'_>) -> Result<ImageProcessorConfig> {
    let mut file = b.folder.join("preprocessor_config.json");
    let mut c = b.json("preprocessor_config.json")?;
    if c.is_null() {
        for (name, part) in [("processor_config.json", "image_processor"), ("video_preprocessor_config.json", "")] {
            let whole = b.json(name)?;
            let inner = if part.is_empty() { whole } else { whole[part].clone() };
            if c.is_null() && !inner.is_null() {
                file = b.folder.join(name);
                c = inner;
            }
        }
    }
    if c.is_null() {
        return Err(Error::folder(
            b.folder,
            "no preprocessor_config.json here, so mm cannot know what the pixels must be; fetch the model again with all its files",
        ));
    }
    read(&c).map_err(|e| Error::folder(file, e))
}

fn read(c: &Value) -> Result<ImageProcessorConfig, String> {
    let class = ["image_processor_type", "feature_extractor_type", "video_processor_type"]
        .iter()
        .find_map(|k| c[*k].as_str())
        .unwrap_or_default();
    let d = defaults(class);
    let pixels = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=65_536).contains(n));
    let size = |v: &Value, key: &str| -> Result<Option<Resize>, String> {
        if v.is_null() {
            return Ok(None);
        }
        if let Some(n) = pixels(v) {
            return Ok(Some(if d.square || key == "crop_size" {
                Resize::Exact(n, n)
            } else {
                Resize::ShortestEdge(n)
            }));
        }
        if let Some(edge) = pixels(&v["shortest_edge"]) {
            return Ok(Some(Resize::ShortestEdge(edge)));
        }
        match (pixels(&v["height"]), pixels(&v["width"])) {
            (Some(height), Some(width)) => Ok(Some(Resize::Exact(height, width))),
            _ => Err(format!("{key}: found {v}, wanted a number, `shortest_edge`, or `height` and `width`")),
        }
    };
    let flag = |key: &str, otherwise: bool| c[key].as_bool().unwrap_or(otherwise);
    let triple = |key: &str, otherwise: [f32; 3]| -> Result<[f32; 3], String> {
        match &c[key] {
            Value::Null => Ok(otherwise),
            Value::Number(n) => Ok([n.as_f64().unwrap_or(0.0) as f32; 3]),
            other => {
                let list = other.as_array().into_iter().flatten();
                let values: Vec<f32> = list.filter_map(Value::as_f64).map(|v| v as f32).collect();
                values.try_into().map_err(|_| format!("{key}: found {other}, wanted three numbers"))
            }
        }
    };
    let by_pixels = class.starts_with("Qwen2VL");
    let mut resize = if by_pixels && flag("do_resize", true) {
        Some(d.size)
    } else if flag("do_resize", true) {
        size(&c["size"], "size")?.or(Some(d.size))
    } else {
        None
    };
    let mut crop = None;
    if flag("do_center_crop", d.crop.is_some() || (class.is_empty() && !c["crop_size"].is_null())) {
        crop = match size(&c["crop_size"], "crop_size")? {
            Some(Resize::ShortestEdge(edge)) => Some((edge, edge)),
            Some(Resize::Exact(height, width)) => Some((height, width)),
            Some(_) | None => d.crop.map(|n| (n, n)),
        };
    }
    if class.starts_with("ConvNext") || class.starts_with("ConvNeXT") {
        // Below 384 the edge is enlarged by 1/crop_pct and its middle cut out; from there on pictures are warped.
        if let Some(Resize::ShortestEdge(edge)) = resize {
            let share = c["crop_pct"].as_f64().unwrap_or(224.0 / 256.0);
            if edge < 384 {
                resize = Some(Resize::ShortestEdge((f64::from(edge) / share) as u32));
                crop = Some((edge, edge));
            } else {
                resize = Some(Resize::Exact(edge, edge));
            }
        }
    }
    if let (true, Some(Resize::ShortestEdge(shortest_edge))) = (class.starts_with("Vilt"), resize) {
        // The longest edge is bounded by the shape of COCO's pictures, 1333 × 800.
        let longest_edge = (1333.0 / 800.0 * f64::from(shortest_edge)) as u32;
        let multiple_of = pixels(&c["size_divisor"]).unwrap_or(32);
        resize = Some(Resize::ShortestEdgeMultiple { shortest_edge, longest_edge, multiple_of });
    }
    if class.starts_with("Qwen2VL") && resize.is_some() {
        let count = |v: &Value, otherwise: u64| v.as_u64().unwrap_or(otherwise);
        let multiple_of = pixels(&c["patch_size"]).unwrap_or(14) * pixels(&c["merge_size"]).unwrap_or(2);
        resize = Some(Resize::PixelBudget {
            min_pixels: count(&c["min_pixels"], count(&c["size"]["shortest_edge"], 56 * 56)),
            max_pixels: count(&c["max_pixels"], count(&c["size"]["longest_edge"], 28 * 28 * 1280)),
            multiple_of,
        });
    }
    let (mean, std) = if flag("do_normalize", true) {
        (triple("image_mean", d.mean)?, triple("image_std", d.std)?)
    } else {
        ([0.0; 3], [1.0; 3])
    };
    if let Some(zero) = std.iter().find(|s| **s <= 0.0) {
        return Err(format!("image_std: found {zero}, wanted numbers above 0"));
    }
    // The transform divides by 255; another factor, an offset and a second division are folded into mean and deviation.
    let factor =
        if flag("do_rescale", true) { c["rescale_factor"].as_f64().unwrap_or(1.0 / 255.0) } else { 1.0 } * 255.0;
    let offset = if flag("rescale_offset", false) { 1.0 } else { 0.0 };
    let again = class.starts_with("EfficientNet") && flag("include_top", true);
    let plain = (factor - 1.0).abs() < 1e-9 && offset == 0.0;
    let fold = |i: usize| {
        let (m, s) = (f64::from(mean[i]), f64::from(std[i]));
        let s2 = if again { s * triple("image_std", d.std).map_or(1.0, |t| f64::from(t[i])) } else { s };
        if plain { (m as f32, s2 as f32) } else { (((m + offset) / factor) as f32, (s2 / factor) as f32) }
    };
    let folded: [(f32, f32); 3] = std::array::from_fn(fold);
    let code = c["resample"].as_u64().unwrap_or(d.resample);
    let interpolation = Interpolation::from_pillow(code)
        .ok_or_else(|| format!("resample: {code} is none of Pillow's 0 to 3 (nearest, lanczos, bilinear, bicubic)"))?;
    let (mean, std) = (folded.map(|f| f.0), folded.map(|f| f.1));
    // transformers' classes round the middle's place down; a file that names none was made by torchvision's habits.
    let floor_crop_offset = !class.is_empty();
    Ok(finish(ImageTransform { resize, interpolation, pillow_exact: true, crop, floor_crop_offset, mean, std }))
}

fn finish(transform: ImageTransform) -> ImageProcessorConfig {
    // Read only while training: the views of a picture that are encoded beside the plain one.
    let random_resized_crop = transform.crop.map(|_| 0.4);
    ImageProcessorConfig { transform, random_resized_crop, ..ImageProcessorConfig::default() }
}

fn numbers(v: &Value, otherwise: [f32; 3]) -> [f32; 3] {
    let list: Vec<f32> = v.as_array().into_iter().flatten().filter_map(Value::as_f64).map(|v| v as f32).collect();
    list.try_into().unwrap_or(otherwise)
}

fn interpolation(word: &str) -> Result<Interpolation, String> {
    Ok(match word {
        "bicubic" => Interpolation::Bicubic,
        "bilinear" => Interpolation::Bilinear,
        "nearest" => Interpolation::Nearest,
        "lanczos" => Interpolation::Lanczos,
        other => return Err(format!("interpolation `{other}` is none of bicubic, bilinear, nearest, lanczos")),
    })
}

/// timm's evaluation transform: the shortest edge at size / crop_pct, the middle cut out.
pub(crate) fn timm_preprocessing(b: &ModelBuilder<'_>) -> Result<ImageProcessorConfig> {
    let c = &b.config["pretrained_cfg"];
    let side = |i: usize| c["input_size"][i].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(224);
    let (height, width) = (side(1), side(2));
    let share = c["crop_pct"].as_f64().unwrap_or(0.875);
    let large = |n: u32| (f64::from(n) / share).floor() as u32;
    let resize = match c["crop_mode"].as_str() {
        Some("squash") => Resize::Exact(large(height), large(width)),
        None | Some("center") if height == width => Resize::ShortestEdge(large(height)),
        other => {
            let mode = other.unwrap_or("center");
            return Err(b.config_error(format!("pretrained_cfg.crop_mode: `{mode}` at {height}×{width} is not read; wanted a square with `center`, or `squash`")));
        }
    };
    Ok(finish(ImageTransform {
        resize: Some(resize),
        interpolation: interpolation(c["interpolation"].as_str().unwrap_or("bicubic"))
            .map_err(|e| b.config_error(e))?,
        pillow_exact: true,
        crop: Some((height, width)),
        floor_crop_offset: false,
        mean: numbers(&c["mean"], IMAGENET.0),
        std: numbers(&c["std"], IMAGENET.1),
    }))
}

/// open_clip's evaluation transform for pictures of that size.
pub(crate) fn open_clip_preprocessing(b: &ModelBuilder<'_>, [height, width]: [i64; 2]) -> Result<ImageProcessorConfig> {
    let c = &b.config["preprocess_cfg"];
    let (height, width) = (u32::try_from(height).unwrap_or(224), u32::try_from(width).unwrap_or(224));
    let (resize, crop) = match c["resize_mode"].as_str().unwrap_or("shortest") {
        "squash" => (Resize::Exact(height, width), None),
        "shortest" if height == width => (Resize::ShortestEdge(height), Some((height, width))),
        other => {
            return Err(b.config_error(format!(
                "preprocess_cfg.resize_mode: `{other}` is not read; wanted shortest or squash"
            )));
        }
    };
    Ok(finish(ImageTransform {
        resize: Some(resize),
        interpolation: interpolation(c["interpolation"].as_str().unwrap_or("bicubic"))
            .map_err(|e| b.config_error(e))?,
        pillow_exact: true,
        crop,
        floor_crop_offset: false,
        mean: numbers(&c["mean"], CLIP.0),
        std: numbers(&c["std"], CLIP.1),
    }))
}
