//! Tensors as images: grids of samples as PNG.

use crate::{Error, Result};
use base64::Engine;
use image::{Rgb, RgbImage, imageops};
use mm_core::{DType, Tensor};
use serde::Serialize;
use std::{io::Cursor, path::Path};

/// `[samples, 3, height, width]` in [0, 1], or spectrograms `[samples, 1, frames, mels]` of any range (time to the
/// right, low frequencies below, the minimum black), `columns` in a row.
fn grid(samples: &Tensor, columns: usize) -> Result<RgbImage> {
    let shape = samples.shape();
    let [count, channels, height, width] = shape.as_slice() else {
        return Err(Error::Config(format!(
            "image grid: found shape {shape:?}, expected [samples, channels, height, width]"
        )));
    };
    let mut x = samples.to_dtype(DType::F32)?;
    let is_spectrogram = *channels == 1;
    if is_spectrogram {
        let (low, high) = (x.min()?.to_f64()?, x.max()?.to_f64()?);
        x = x.add_scalar(-low)?.mul_scalar(1.0 / (high - low).max(1e-9))?.transpose(2, 3)?.flip(&[2])?;
    }
    let (h, w) = if is_spectrogram { (*width as u32, *height as u32) } else { (*height as u32, *width as u32) };
    let values = x.clamp(0.0, 1.0)?.to_vec::<f32>()?;
    let columns = (columns as u32).clamp(1, (*count).max(1) as u32);
    let lines = (*count as u32).div_ceil(columns);
    let mut image = RgbImage::from_pixel(columns * (w + 2) - 2, lines * (h + 2) - 2, Rgb([255; 3]));
    let pixels = (h * w) as usize;
    for (number, sample) in values.chunks_exact(*channels as usize * pixels).enumerate() {
        let (left, top) = ((number as u32 % columns) * (w + 2), (number as u32 / columns) * (h + 2));
        for pixel in 0..pixels {
            let at = |c: usize| (sample[if is_spectrogram { 0 } else { c * pixels } + pixel] * 255.0).round() as u8;
            let (dx, dy) = (pixel as u32 % w, pixel as u32 / w);
            image.put_pixel(left + dx, top + dy, Rgb([at(0), at(1), at(2)]));
        }
    }
    Ok(image)
}

/// One sample of any range as an image: an image `[3, height, width]` or a spectrogram `[frames, mels]`.
pub(crate) fn to_image(sample: &Tensor) -> Result<RgbImage> {
    let (low, high) = (sample.min()?.to_f64()?, sample.max()?.to_f64()?);
    let scaled = sample.add_scalar(-low)?.mul_scalar(1.0 / (high - low).max(1e-9))?.unsqueeze(0)?;
    grid(&if scaled.rank() == 3 { scaled.unsqueeze(0)? } else { scaled }, 1)
}

/// Resizes an image so that its longer side has `long_side` pixels, with both sides within bounds.
pub(crate) fn resize(image: &RgbImage, long_side: f64, [min, max]: [u32; 2]) -> RgbImage {
    let scale = long_side / f64::from(image.width().max(image.height()).max(1));
    let side = |n: u32| ((f64::from(n) * scale).round() as u32).clamp(min, max);
    let (width, height) = (side(image.width()), side(image.height()));
    imageops::resize(image, width, height, imageops::FilterType::CatmullRom)
}

fn png(image: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image
        .write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png)
        .map_err(|e| Error::Config(format!("an image could not be encoded: {e}")))?;
    Ok(bytes)
}

/// Writes a grid of samples as a PNG file.
pub fn save_png(samples: &Tensor, columns: usize, path: &Path) -> Result<()> {
    Ok(mm_core::checkpoint::write_atomic(path, &png(&grid(samples, columns)?)?)?)
}

/// A grid of samples as a page shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GridFigure {
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// The PNG file in base64.
    data: String,
    /// The caption.
    caption: String,
}

impl GridFigure {
    /// A grid, enlarged by an integer factor to about `page_width` pixels.
    pub(crate) fn new(samples: &Tensor, columns: usize, page_width: u32, caption: String) -> Result<Self> {
        let image = grid(samples, columns)?;
        let scale = (page_width / image.width()).max(1);
        let data = base64::engine::general_purpose::STANDARD.encode(png(&image)?);
        Ok(Self { width: image.width() * scale, height: image.height() * scale, data, caption })
    }
}
