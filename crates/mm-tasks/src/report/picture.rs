//! Tensors as pictures: grids of samples as PNG.

use crate::{Error, Result};
use base64::Engine;
use image::{Rgb, RgbImage, imageops};
use mm_core::{DType, Tensor};
use std::{io::Cursor, path::Path};

/// `[samples, 3, height, width]` in [0, 1], or `[samples, 1, frames, bands]` of any numbers (drawn with time to the right and low bands
/// below, the least black), so many to a line.
pub(super) fn grid(samples: &Tensor, columns: usize) -> Result<RgbImage> {
    let shape = samples.shape();
    let [count, channels, height, width] = shape.as_slice() else {
        return Err(Error::Config(format!("a picture: found {shape:?}, wanted [samples, channels, height, width]")));
    };
    let mut x = samples.to_dtype(DType::F32)?;
    let sound = *channels == 1;
    if sound {
        let (low, high) = (x.min()?.to_f64()?, x.max()?.to_f64()?);
        x = x.add_scalar(-low)?.mul_scalar(1.0 / (high - low).max(1e-9))?.transpose(2, 3)?.flip(&[2])?;
    }
    let (h, w) = if sound { (*width as u32, *height as u32) } else { (*height as u32, *width as u32) };
    let values = x.clamp(0.0, 1.0)?.to_vec::<f32>()?;
    let columns = (columns as u32).clamp(1, (*count).max(1) as u32);
    let lines = (*count as u32).div_ceil(columns);
    let mut picture = RgbImage::from_pixel(columns * (w + 2) - 2, lines * (h + 2) - 2, Rgb([255; 3]));
    let plane = (h * w) as usize;
    for (number, sample) in values.chunks_exact(*channels as usize * plane).enumerate() {
        let (left, top) = ((number as u32 % columns) * (w + 2), (number as u32 / columns) * (h + 2));
        for place in 0..plane {
            let at = |c: usize| (sample[if sound { 0 } else { c * plane } + place] * 255.0).round() as u8;
            let (dx, dy) = (place as u32 % w, place as u32 / w);
            picture.put_pixel(left + dx, top + dy, Rgb([at(0), at(1), at(2)]));
        }
    }
    Ok(picture)
}

/// One sample as it is drawn, whatever its numbers are: a picture `[3, height, width]`, or a sound `[frames, bands]`.
pub(super) fn drawn(sample: &Tensor) -> Result<RgbImage> {
    let (low, high) = (sample.min()?.to_f64()?, sample.max()?.to_f64()?);
    let level = sample.add_scalar(-low)?.mul_scalar(1.0 / (high - low).max(1e-9))?.unsqueeze(0)?;
    grid(&if level.rank() == 3 { level.unsqueeze(0)? } else { level }, 1)
}

/// A picture whose longer side has `longest` pixels, each side within bounds.
pub(super) fn resized(picture: &RgbImage, longest: f64, [least, most]: [u32; 2]) -> RgbImage {
    let scale = longest / f64::from(picture.width().max(picture.height()).max(1));
    let side = |n: u32| ((f64::from(n) * scale).round() as u32).clamp(least, most);
    let (width, height) = (side(picture.width()), side(picture.height()));
    imageops::resize(picture, width, height, imageops::FilterType::CatmullRom)
}

fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    picture
        .write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png)
        .map_err(|e| Error::Config(format!("a picture could not be written: {e}")))?;
    Ok(bytes)
}

/// Writes a grid of samples as a PNG file.
pub fn save_png(samples: &Tensor, columns: usize, path: &Path) -> Result<()> {
    Ok(mm_core::checkpoint::write_atomic(path, &png(&grid(samples, columns)?)?)?)
}

/// A grid of samples inside a page, each pixel as large as makes the line about this wide.
pub(super) fn figure(samples: &Tensor, columns: usize, wide: u32, caption: &str) -> Result<String> {
    let picture = grid(samples, columns)?;
    let scale = (wide / picture.width()).max(1);
    let size = (picture.width() * scale, picture.height() * scale);
    let data = base64::engine::general_purpose::STANDARD.encode(png(&picture)?);
    Ok(format!(
        "<figure><img class=\"grid\" width=\"{}\" height=\"{}\" alt=\"{caption}\" src=\"data:image/png;base64,{data}\"><figcaption>{caption}</figcaption></figure>",
        size.0, size.1
    ))
}
