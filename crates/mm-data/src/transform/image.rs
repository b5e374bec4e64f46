//! Resize, crop and normalize: an image → `[3, height, width]`.

use super::{
    Interpolation, Resize, pillow,
    resize::{resize, resize_window},
};
use crate::{Error, Result};
use image::RgbImage;
use mm_core::Tensor;
use serde::{Deserialize, Serialize};

/// The preprocessing of decoded images: resize, center crop, normalize.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageTransform {
    /// The size that images are resized to; not resized when absent.
    pub resize: Option<Resize>,
    /// The interpolation mode of resizing.
    pub interpolation: Interpolation,
    /// Whether resizing gives exactly Pillow's pixels; otherwise it is within 1/255 of them, and faster.
    pub pillow_exact: bool,
    /// (height, width) of a center crop; not cropped when absent.
    pub crop: Option<(u32, u32)>,
    /// Whether the crop's offset is rounded down (transformers) rather than to the nearest pixel (torchvision).
    pub floor_crop_offset: bool,
    /// Mean of each channel, of values in [0, 1].
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of values in [0, 1].
    pub std: [f32; 3],
}

impl Default for ImageTransform {
    fn default() -> Self {
        Self {
            resize: Some(Resize::ShortestEdge(224)),
            interpolation: Interpolation::Bilinear,
            pillow_exact: false,
            crop: Some((224, 224)),
            floor_crop_offset: false,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }
}

impl ImageTransform {
    /// An image → `[3, height, width]` float32.
    ///
    /// # Errors
    /// When the resized image, or the part of it that is used, would be larger than any that is decoded; and where
    /// Qwen2-VL refuses the aspect ratio.
    pub fn apply(&self, image: &RgbImage) -> Result<Tensor> {
        self.check_aspect_ratio(image)?;
        let input_size = (image.height(), image.width());
        let size = self.resize.map_or(input_size, |resize| resize.output_size(image.height(), image.width()));
        let (height, width) = self.crop.unwrap_or(size);
        // The faster resizing computes every row or column of one axis, which are many where an image is long.
        let is_long = image.width().max(image.height()) / image.width().min(image.height()).max(1) > 16;
        let exact = (self.pillow_exact || is_long) && self.interpolation != Interpolation::Nearest;
        if height > size.0 || width > size.1 {
            check_pixels(input_size, size)?;
            let resized = if size == input_size {
                None
            } else if exact {
                Some(pillow::resize_window(image, size, [0, 0, size.0, size.1], self.interpolation))
            } else {
                Some(resize(image, size.0, size.1, self.interpolation)?)
            };
            let cropped = crop(resized.as_ref().unwrap_or(image), height, width, self.floor_crop_offset);
            return normalize(&cropped, self.mean, self.std);
        }
        let start = |size: u32, crop: u32| {
            if self.floor_crop_offset { (size - crop) / 2 } else { crop_offset(size, crop) as u32 }
        };
        let window = [start(size.0, height), start(size.1, width), height, width];
        if size == input_size {
            return normalize_window(image, window, self.mean, self.std);
        }
        check_pixels(input_size, (height, width))?;
        if exact {
            return normalize(&pillow::resize_window(image, size, window, self.interpolation), self.mean, self.std);
        }
        let (resized, window) = resize_window(image, size, window, self.interpolation)?;
        normalize_window(&resized, window, self.mean, self.std)
    }

    /// Qwen2-VL takes images whose longer edge is at most 200 times the shorter one.
    fn check_aspect_ratio(&self, image: &RgbImage) -> Result<()> {
        let (width, height) = image.dimensions();
        let is_extreme = u64::from(width.max(height)) > 200 * u64::from(width.min(height));
        if is_extreme && matches!(self.resize, Some(Resize::PixelBudget { .. })) {
            let found = format!("found an image of {width}×{height} pixels");
            return Err(Error::Config(format!("{found}, expected an aspect ratio of at most 200, as in Qwen2-VL")));
        }
        Ok(())
    }
}

/// The most pixels of a resized image.
const MAX_PIXELS: u64 = 100_000_000;

/// Checks the (height, width) that is computed from an image.
fn check_pixels(image: (u32, u32), (height, width): (u32, u32)) -> Result<()> {
    if u64::from(height) * u64::from(width) <= MAX_PIXELS {
        return Ok(());
    }
    Err(Error::Config(format!(
        "an image of {}×{} pixels would be resized to {width}×{height}, expected at most {MAX_PIXELS} in all; crop it",
        image.1, image.0
    )))
}

/// The offset of a center crop of `crop` of `size` pixels, rounded half to even as Python does.
fn crop_offset(size: u32, crop: u32) -> i64 {
    ((f64::from(size) - f64::from(crop)) / 2.0).round_ties_even() as i64
}

/// A center crop of `height` × `width` with torchvision's rounding; black where the image is smaller.
pub fn center_crop(image: &RgbImage, height: u32, width: u32) -> RgbImage {
    crop(image, height, width, false)
}

fn crop(image: &RgbImage, height: u32, width: u32, floor_offset: bool) -> RgbImage {
    let offset =
        |size: u32, crop: u32| if floor_offset { i64::from((size - crop) / 2) } else { crop_offset(size, crop) };
    let is_smaller = image.height() < height || image.width() < width;
    let (pad_y, pad_x) = if is_smaller {
        (i64::from(height.saturating_sub(image.height()) / 2), i64::from(width.saturating_sub(image.width()) / 2))
    } else {
        (0, 0)
    };
    let top = if image.height() < height { -pad_y } else { offset(image.height(), height) };
    let left = if image.width() < width { -pad_x } else { offset(image.width(), width) };
    RgbImage::from_fn(width, height, |x, y| {
        let (from_x, from_y) = (i64::from(x) + left, i64::from(y) + top);
        match (u32::try_from(from_x), u32::try_from(from_y)) {
            (Ok(fx), Ok(fy)) if fx < image.width() && fy < image.height() => *image.get_pixel(fx, fy),
            _ => image::Rgb([0; 3]),
        }
    })
}

/// `(value / 255 − mean) / std` of each channel: `[3, height, width]` float32.
pub fn normalize(image: &RgbImage, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
    normalize_window(image, [0, 0, image.height(), image.width()], mean, std)
}

/// [`normalize`] of the window [top, left, height, width], which must lie within the image.
fn normalize_window(
    image: &RgbImage,
    [top, left, height, width]: [u32; 4],
    mean: [f32; 3],
    std: [f32; 3],
) -> Result<Tensor> {
    let stride = 3 * image.width() as usize;
    let (start, length) = (3 * left as usize, 3 * width as usize);
    let rows = || {
        image
            .as_raw()
            .chunks_exact(stride)
            .skip(top as usize)
            .take(height as usize)
            .map(move |row| &row[start..start + length])
    };
    let mut out = Vec::with_capacity(3 * height as usize * width as usize);
    for channel in 0..3 {
        // A table lookup instead of a division for each value.
        let table: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - mean[channel]) / std[channel]);
        for row in rows() {
            out.extend(row.chunks_exact(3).map(|pixel| table[usize::from(pixel[channel])]));
        }
    }
    Ok(Tensor::from_vec(&out, &[3, i64::from(height), i64::from(width)])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripes(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x + y) as u8, ((x + y) / 7) as u8, (x * 31 + y * 17) as u8])
        })
    }

    #[test]
    fn a_window_has_the_pixels_of_the_full_image() {
        for (from, size) in [
            ((37, 53), (16, 23)),
            ((20, 31), (47, 40)),
            ((90, 9), (10, 30)),
            ((30, 40), (30, 20)),
            ((30, 40), (15, 40)),
        ] {
            let image = stripes(from.1, from.0);
            for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos] {
                let whole = pillow::resize_window(&image, size, [0, 0, size.0, size.1], interpolation);
                let window = [size.0 / 4, size.1 / 3, size.0 / 2, size.1 / 2];
                let found = pillow::resize_window(&image, size, window, interpolation);
                let expected = image::imageops::crop_imm(&whole, window[1], window[0], window[3], window[2]).to_image();
                assert!(found == expected, "{from:?} {size:?}");
            }
        }
    }

    #[test]
    fn long_images_take_little_time_and_memory() {
        let started = std::time::Instant::now();
        for (width, height) in [(1, 65_500), (65_500, 1), (1, 2_000_000), (2_000_000, 1)] {
            let image = stripes(width, height);
            for (pillow_exact, interpolation) in
                [(true, Interpolation::Bilinear), (false, Interpolation::Bilinear), (false, Interpolation::Nearest)]
            {
                let transform = ImageTransform { interpolation, pillow_exact, ..ImageTransform::default() };
                assert_eq!(transform.apply(&image).unwrap().shape(), [3, 224, 224]);
                // Without a crop, the resized image would be 14 million pixels long.
                let whole = ImageTransform { crop: None, pillow_exact, ..ImageTransform::default() };
                assert!(whole.apply(&image).unwrap_err().to_string().contains("would be resized to"));
                let larger = ImageTransform { crop: Some((300, 300)), pillow_exact, ..ImageTransform::default() };
                assert!(larger.apply(&image).unwrap_err().to_string().contains("would be resized to"));
            }
            let budget = Resize::PixelBudget { min_pixels: 3136, max_pixels: 1_003_520, multiple_of: 28 };
            let qwen = ImageTransform { resize: Some(budget), crop: None, ..ImageTransform::default() };
            assert!(qwen.apply(&image).unwrap_err().to_string().contains("aspect ratio of at most 200"));
        }
        assert!(started.elapsed().as_secs() < 60);
    }
}
