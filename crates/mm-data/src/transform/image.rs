//! Resize, crop and normalize: an image → `[3, height, width]`.

use super::{
    Interpolation, Resize, pillow,
    resize::{resize, resize_window},
};
use crate::Result;
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
    pub fn apply(&self, image: &RgbImage) -> Result<Tensor> {
        let input_size = (image.height(), image.width());
        let size = self.resize.map_or(input_size, |resize| resize.output_size(image.height(), image.width()));
        let (height, width) = self.crop.unwrap_or(size);
        let exact = self.pillow_exact && self.interpolation != Interpolation::Nearest;
        let resized = || {
            if exact {
                return Ok(pillow::resize(image, size.0, size.1, self.interpolation));
            }
            resize(image, size.0, size.1, self.interpolation)
        };
        if height > size.0 || width > size.1 {
            let resized = if size == input_size { None } else { Some(resized()?) };
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
        if exact {
            return normalize_window(&resized()?, window, self.mean, self.std);
        }
        let (resized, window) = resize_window(image, size, window, self.interpolation)?;
        normalize_window(&resized, window, self.mean, self.std)
    }
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
