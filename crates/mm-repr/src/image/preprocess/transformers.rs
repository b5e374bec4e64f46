//! transformers' `preprocessor_config.json`.

use super::{
    classes::{Defaults, class_of, defaults},
    common::{Normalization, processor_config},
};
use crate::{Error, Result, family::ModelBuilder};
use mm_data::{
    ImageProcessorConfig,
    transform::{ImageTransform, Interpolation, Resize},
};
use serde_json::Value;

/// The image processor of a folder: `preprocessor_config.json`, or that part of `processor_config.json`, or
/// `video_preprocessor_config.json`.
///
/// # Errors
/// If the folder has none of these files, names a processor that mm does not know or a step that it does not take, or a
/// value is invalid.
pub fn preprocessing(b: &ModelBuilder<'_>) -> Result<ImageProcessorConfig> {
    let files = [IMAGE_FILES, &[("video_preprocessor_config.json", None)]].concat();
    first_of(b, &files)?.ok_or_else(|| no_preprocessing(b))
}

/// The processor of the frames of a video, where images have another: `video_preprocessor_config.json`, or that part of
/// `processor_config.json`, or that of images.
///
/// # Errors
/// Those of [`preprocessing`].
pub fn video_preprocessing(b: &ModelBuilder<'_>) -> Result<ImageProcessorConfig> {
    let files: [ProcessorFile; 2] =
        [("video_preprocessor_config.json", None), ("processor_config.json", Some("video_processor"))];
    first_of(b, &[&files, IMAGE_FILES].concat())?.ok_or_else(|| no_preprocessing(b))
}

/// A file, and the part of it that describes a processor.
type ProcessorFile = (&'static str, Option<&'static str>);

const IMAGE_FILES: &[ProcessorFile] =
    &[("preprocessor_config.json", None), ("processor_config.json", Some("image_processor"))];

/// The processor in the first of these files that exists.
fn first_of(b: &ModelBuilder<'_>, files: &[ProcessorFile]) -> Result<Option<ImageProcessorConfig>> {
    for (name, part) in files {
        let file = b.json(name)?;
        let config = part.map_or(&file, |part| &file[part]);
        if !config.is_null() {
            let transform = PreprocessorConfig::new(config, b.config).and_then(|c| c.parse());
            let transform = transform.map_err(|e| Error::folder(b.folder.join(name), e))?;
            return Ok(Some(processor_config(b, transform)));
        }
    }
    Ok(None)
}

fn no_preprocessing(b: &ModelBuilder<'_>) -> Error {
    Error::folder(
        b.folder,
        "no preprocessor_config.json here, so the preprocessing is unknown; fetch the model again with all its files",
    )
}

/// A number of pixels.
fn pixels(v: &Value) -> Option<u32> {
    v.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=65_536).contains(n))
}

struct PreprocessorConfig<'a> {
    json: &'a Value,
    class: String,
    defaults: Defaults,
}

impl<'a> PreprocessorConfig<'a> {
    fn new(json: &'a Value, config: &Value) -> Result<Self, String> {
        let class = class_of(json, config);
        let found = Self { json, defaults: defaults(&class)?, class };
        found.check_steps()?;
        Ok(found)
    }

    /// Refuses steps that change the pixels and are not taken.
    fn check_steps(&self) -> Result<(), String> {
        // ViLT's images are padded in the batch, with a mask.
        let padding = (self.class != "Vilt").then_some("do_pad");
        let other =
            ["do_flip_channel_order", "do_image_splitting", "do_split_image", "do_thumbnail", "do_align_long_axis"];
        match padding.into_iter().chain(other).find(|key| self.json[*key] == true) {
            Some(key) => Err(format!("{key}: found true, which mm does not support; expected false")),
            None => Ok(()),
        }
    }

    fn parse(&self) -> Result<ImageTransform, String> {
        let (resize, crop) = self.geometry()?;
        let (mean, std) = self.normalization()?;
        let code = self.json["resample"].as_u64().unwrap_or(self.defaults.resample);
        let interpolation = Interpolation::from_pillow(code).ok_or_else(|| {
            format!("resample: found {code}, expected Pillow's 0 to 3 (nearest, lanczos, bilinear, bicubic)")
        })?;
        // transformers' classes round the crop's offset down; a file without a class follows torchvision.
        let floor_crop_offset = !self.class.is_empty();
        Ok(ImageTransform { resize, interpolation, pillow_exact: true, crop, floor_crop_offset, mean, std })
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.json[key].as_bool().unwrap_or(default)
    }

    /// A size in any of transformers' notations; `None` if it is absent.
    fn size(&self, key: &str) -> Result<Option<Resize>, String> {
        let v = &self.json[key];
        if v.is_null() {
            return Ok(None);
        }
        if let Some(n) = pixels(v) {
            let square = self.defaults.square || key == "crop_size";
            return Ok(Some(if square { Resize::Exact(n, n) } else { Resize::ShortestEdge(n) }));
        }
        if let Some(edge) = pixels(&v["shortest_edge"]) {
            return Ok(Some(Resize::ShortestEdge(edge)));
        }
        match (pixels(&v["height"]), pixels(&v["width"])) {
            (Some(height), Some(width)) => Ok(Some(Resize::Exact(height, width))),
            _ => Err(format!("{key}: found {v}, expected a number, `shortest_edge`, or `height` and `width`")),
        }
    }

    /// Resize and center crop.
    fn geometry(&self) -> Result<(Option<Resize>, Option<(u32, u32)>), String> {
        let (c, class) = (self.json, self.class.as_str());
        let is_qwen = class == "Qwen2VL";
        let resize = match self.flag("do_resize", true) {
            false => None,
            true if is_qwen => Some(self.qwen2_vl_resize()),
            true => self.size("size")?.or(Some(self.defaults.size)),
        };
        let crop_by_default = self.defaults.crop.is_some() || (class.is_empty() && !c["crop_size"].is_null());
        let crop = if self.flag("do_center_crop", crop_by_default) {
            match self.size("crop_size")? {
                Some(Resize::ShortestEdge(edge)) => Some((edge, edge)),
                Some(Resize::Exact(height, width)) => Some((height, width)),
                Some(_) | None => self.defaults.crop.map(|n| (n, n)),
            }
        } else {
            None
        };
        let Some(Resize::ShortestEdge(edge)) = resize else { return Ok((resize, crop)) };
        if class == "ConvNext" || class == "ConvNeXT" {
            // Below 384 the shortest edge is resized to edge / crop_pct and the center is cropped; above, images are
            // warped.
            if edge >= 384 {
                return Ok((Some(Resize::Exact(edge, edge)), crop));
            }
            let crop_pct = c["crop_pct"].as_f64().unwrap_or(224.0 / 256.0);
            return Ok((Some(Resize::ShortestEdge((f64::from(edge) / crop_pct) as u32)), Some((edge, edge))));
        }
        if class == "Vilt" {
            // The longest edge is bounded by the aspect ratio of COCO's images, 1333 × 800.
            let longest_edge = (1333.0 / 800.0 * f64::from(edge)) as u32;
            let multiple_of = pixels(&c["size_divisor"]).unwrap_or(32);
            let resize = Resize::ShortestEdgeMultiple { shortest_edge: edge, longest_edge, multiple_of };
            return Ok((Some(resize), crop));
        }
        Ok((resize, crop))
    }

    /// Qwen2-VL's bounds on the number of pixels.
    fn qwen2_vl_resize(&self) -> Resize {
        let c = self.json;
        let number = |v: &Value, default: u64| v.as_u64().unwrap_or(default);
        let is_video = !c["video_processor_type"].is_null();
        let [min, max] = if is_video { [128 * 28 * 28, 768 * 28 * 28] } else { [56 * 56, 1280 * 28 * 28] };
        Resize::PixelBudget {
            min_pixels: number(&c["min_pixels"], number(&c["size"]["shortest_edge"], min)),
            max_pixels: number(&c["max_pixels"], number(&c["size"]["longest_edge"], max)),
            multiple_of: pixels(&c["patch_size"]).unwrap_or(14).saturating_mul(pixels(&c["merge_size"]).unwrap_or(2)),
        }
    }

    /// Three numbers, one for each channel, or one number for all.
    fn channel_values(&self, key: &str, default: [f32; 3]) -> Result<[f32; 3], String> {
        match &self.json[key] {
            Value::Null => Ok(default),
            Value::Number(n) => Ok([n.as_f64().unwrap_or(0.0) as f32; 3]),
            other => {
                let list = other.as_array().into_iter().flatten();
                let values: Vec<f32> = list.filter_map(Value::as_f64).map(|v| v as f32).collect();
                values.try_into().map_err(|_| format!("{key}: found {other}, expected three numbers"))
            }
        }
    }

    /// Mean and standard deviation of values in [0, 1]. The transform divides by 255; another rescale factor, an offset
    /// and EfficientNet's second division are folded into them.
    fn normalization(&self) -> Result<Normalization, String> {
        let default_std = self.defaults.normalization.1;
        let (mean, std) = if self.flag("do_normalize", true) {
            let default_mean = self.defaults.normalization.0;
            (self.channel_values("image_mean", default_mean)?, self.channel_values("image_std", default_std)?)
        } else {
            ([0.0; 3], [1.0; 3])
        };
        if let Some(found) = std.iter().find(|s| **s <= 0.0) {
            return Err(format!("image_std: found {found}, expected numbers above 0"));
        }
        let rescale = self.json["rescale_factor"].as_f64().unwrap_or(1.0 / 255.0);
        let factor = if self.flag("do_rescale", true) { rescale } else { 1.0 } * 255.0;
        let offset = if self.flag("rescale_offset", false) { 1.0 } else { 0.0 };
        let divide_twice = self.class == "EfficientNet" && self.flag("include_top", true);
        let second = self.channel_values("image_std", default_std).ok();
        let unchanged = (factor - 1.0).abs() < 1e-9 && offset == 0.0;
        let fold = |i: usize| {
            let (m, s) = (f64::from(mean[i]), f64::from(std[i]));
            let s = if divide_twice { s * second.map_or(1.0, |v| f64::from(v[i])) } else { s };
            if unchanged { (m as f32, s as f32) } else { (((m + offset) / factor) as f32, (s / factor) as f32) }
        };
        let folded: [(f32, f32); 3] = std::array::from_fn(fold);
        Ok((folded.map(|f| f.0), folded.map(|f| f.1)))
    }
}
