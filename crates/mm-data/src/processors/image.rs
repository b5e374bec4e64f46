//! Image files → pixels.

use super::require_path;
use crate::{
    augment::{random_flip, random_resized_crop},
    decode::{ImageLimits, decode_image},
    transform::{ImageTransform, normalize},
};
use image::RgbImage;
use mm_core::{ProcessContext, Processor, Result, Source, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of an [`ImageProcessor`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageProcessorConfig {
    /// Limits of decoding.
    pub limits: ImageLimits,
    /// Resizing, cropping, normalization.
    pub transform: ImageTransform,
    /// In training, a random crop of at least this fraction of the image's area, flipped half of the time, instead of
    /// the center crop.
    pub random_resized_crop: Option<f64>,
}

/// Image file → `[3, height, width]` float32.
pub struct ImageProcessor {
    config: ImageProcessorConfig,
}

impl ImageProcessor {
    /// A processor with these settings.
    pub fn new(config: ImageProcessorConfig) -> Self {
        Self { config }
    }

    /// The decoded image, before any transform.
    pub fn decode(&self, source: &Source) -> Result<RgbImage> {
        Ok(decode_image(require_path(source, "an image")?, &self.config.limits)?)
    }

    /// The transform of a decoded image, `[3, height, width]`: random in training where the settings say so, else the
    /// center crop.
    pub fn transform(&self, image: &RgbImage, context: &mut ProcessContext) -> Result<Tensor> {
        let transform = &self.config.transform;
        if let (true, Some(min_area), Some(size)) = (context.train, self.config.random_resized_crop, transform.crop) {
            let rng = &mut context.rng;
            let cropped = random_resized_crop(image, size, (min_area, 1.0), transform.interpolation, rng)?;
            return Ok(normalize(&random_flip(cropped, rng), transform.mean, transform.std)?);
        }
        Ok(transform.apply(image)?)
    }
}

impl Processor for ImageProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        self.transform(&self.decode(source)?, context)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn augments_while_decoding(&self) -> bool {
        self.config.random_resized_crop.is_some() && self.config.transform.crop.is_some()
    }

    fn fingerprint(&self) -> String {
        format!("image {:?} {}", self.config, crate::decode::IMAGE_DECODERS)
    }
}
