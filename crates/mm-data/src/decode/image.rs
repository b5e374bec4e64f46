//! Pictures → 8-bit RGB: what the file is (not what it is called), turned as its EXIF says, transparency over a chosen colour,
//! and a limit on pixels that is checked in the header, before any are decoded.

use crate::{Error, Result};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use std::{io::Cursor, path::Path};

/// What a picture may be at most, and what shows through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageLimits {
    /// Most pixels (width × height).
    pub max_pixels: u64,
    /// Colour that shows through transparent pixels.
    pub background: [u8; 3],
    /// Width in pixels that a drawing without a size of its own (svg) gets; its height follows.
    pub svg_width: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_pixels: 100_000_000, background: [255; 3], svg_width: 512 }
    }
}

/// A picture file (jpeg, png, webp, gif, bmp, tiff, svg) as RGB.
pub fn decode_image(path: &Path, limits: &ImageLimits) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    decode_image_bytes(&bytes, limits).map_err(|e| Error::file(path, e))
}

/// A picture in memory as RGB; the error is in words, without a file name.
pub fn decode_image_bytes(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let Some(format) = reader.format() else {
        return if looks_like_svg(bytes) {
            svg(bytes, limits)
        } else {
            Err("not a picture of a kind that mm reads".into())
        };
    };
    let mut reader = reader;
    let mut bound = image::Limits::no_limits();
    bound.max_alloc = Some(limits.max_pixels.saturating_mul(16));
    reader.limits(bound);
    let mut decoder = reader.into_decoder().map_err(|e| broken(&e))?;
    let (width, height) = decoder.dimensions();
    check(width, height, limits)?;
    let orientation = decoder.orientation().map_err(|e| broken(&e))?;
    let mut picture = match jpeg(bytes, format)? {
        Some(picture) => picture,
        None => DynamicImage::from_decoder(decoder).map_err(|e| broken(&e))?,
    };
    picture.apply_orientation(orientation);
    Ok(if picture.color().has_alpha() { over(&picture.into_rgba8(), limits.background) } else { to_rgb8(picture) })
}

/// Grey and YCbCr jpegs through libjpeg-turbo, whose pixels are exactly Pillow's; `None` for all else.
#[cfg(feature = "libjpeg")]
fn jpeg(bytes: &[u8], format: image::ImageFormat) -> Result<Option<DynamicImage>, String> {
    if format != image::ImageFormat::Jpeg {
        return Ok(None);
    }
    // libjpeg fills what is missing with grey; Pillow refuses such a file, and so does mm.
    let end = bytes.windows(2).rposition(|w| w == [0xff, 0xd9]);
    if end.is_none_or(|end| bytes[end..].windows(2).any(|w| w == [0xff, 0xda])) {
        return Err("a broken picture: the jpeg is cut short".into());
    }
    // libjpeg's errors unwind out of C.
    let decode = || -> std::io::Result<Option<DynamicImage>> {
        let decoder = mozjpeg::Decompress::new_mem(bytes)?;
        let (width, height) = (decoder.width() as u32, decoder.height() as u32);
        match decoder.components().len() {
            1 => {
                let pixels = decoder.grayscale()?.read_scanlines::<u8>()?;
                Ok(image::GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8))
            }
            3 => {
                let pixels = decoder.rgb()?.read_scanlines::<u8>()?;
                Ok(RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8))
            }
            _ => Ok(None),
        }
    };
    match std::panic::catch_unwind(decode) {
        Ok(result) => result.map_err(|e| format!("a broken picture: {e}")),
        Err(payload) => {
            let said = payload.downcast_ref::<String>().map_or("it cannot be decoded", String::as_str);
            Err(format!("a broken picture: {said}"))
        }
    }
}

#[cfg(not(feature = "libjpeg"))]
fn jpeg(_: &[u8], _: image::ImageFormat) -> Result<Option<DynamicImage>, String> {
    Ok(None)
}

fn broken(error: &image::ImageError) -> String {
    format!("a broken picture: {error}")
}

fn check(width: u32, height: u32, limits: &ImageLimits) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("a picture of {width}×{height} pixels"));
    }
    if pixels > limits.max_pixels {
        return Err(format!("a picture of {width}×{height} pixels; the limit is {} in all", limits.max_pixels));
    }
    Ok(())
}

fn to_rgb8(picture: DynamicImage) -> RgbImage {
    match picture {
        DynamicImage::ImageRgb8(rgb) => rgb,
        other => other.into_rgb8(),
    }
}

/// Lays a picture with transparency over a colour.
fn over(picture: &image::RgbaImage, background: [u8; 3]) -> RgbImage {
    let mut out = RgbImage::new(picture.width(), picture.height());
    for (to, from) in out.pixels_mut().zip(picture.pixels()) {
        let alpha = u32::from(from[3]);
        for c in 0..3 {
            let mixed = u32::from(from[c]) * alpha + u32::from(background[c]) * (255 - alpha);
            to[c] = ((mixed + 127) / 255) as u8;
        }
    }
    out
}

fn looks_like_svg(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).to_ascii_lowercase();
    // A compressed drawing begins with gzip's mark.
    head.contains("<svg") || head.trim_start().starts_with("<?xml") || bytes.starts_with(&[0x1f, 0x8b])
}

#[cfg(feature = "svg")]
fn svg(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, String> {
    use resvg::{tiny_skia, usvg};
    // Text in drawings needs fonts, which differ from machine to machine; none are loaded, so a drawing looks the same on all.
    let tree = usvg::Tree::from_data(bytes, &usvg::Options::default()).map_err(|e| format!("a broken drawing: {e}"))?;
    let size = tree.size();
    let width = limits.svg_width.max(1);
    let height = (f64::from(width) * f64::from(size.height()) / f64::from(size.width())).round().clamp(1.0, 1e9) as u32;
    check(width, height, limits)?;
    let mut canvas = tiny_skia::Pixmap::new(width, height).ok_or("a drawing without a size")?;
    let [r, g, b] = limits.background;
    canvas.fill(tiny_skia::Color::from_rgba8(r, g, b, 255));
    let scale = tiny_skia::Transform::from_scale(width as f32 / size.width(), height as f32 / size.height());
    resvg::render(&tree, scale, &mut canvas.as_mut());
    let rgb = canvas.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    RgbImage::from_raw(width, height, rgb).ok_or_else(|| "a drawing without a size".into())
}

#[cfg(not(feature = "svg"))]
fn svg(_: &[u8], _: &ImageLimits) -> Result<RgbImage, String> {
    Err("this build reads no svg; build mm-data with its `svg` feature".into())
}
