//! Image files → 8-bit RGB. The format is detected from the content, not the file name; the EXIF orientation is
//! applied, transparency is blended with a background color, and the number of pixels is checked in the header, before
//! decoding.

use crate::{Error, Result};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use std::{io::Cursor, path::Path};

/// Limits on decoded images, and how those without a size or with transparency are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageLimits {
    /// Maximum number of pixels (width × height).
    pub max_pixels: u64,
    /// RGB color behind transparent pixels.
    pub background: [u8; 3],
    /// Width in pixels that vector images (svg) are rendered at; the height follows from the aspect ratio.
    pub svg_width: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_pixels: 100_000_000, background: [255; 3], svg_width: 512 }
    }
}

/// Decodes an image file (jpeg, png, webp, gif, bmp, tiff, svg).
///
/// # Errors
/// When the file cannot be read or decoded, its format is not supported, or it has more pixels than `limits` allow.
pub fn decode_image(path: &Path, limits: &ImageLimits) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    decode_image_bytes(&bytes, limits).map_err(|e| Error::file(path, e))
}

/// Decodes an image in memory, as [`decode_image`] does; error messages name no file.
pub fn decode_image_bytes(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let Some(format) = reader.format() else {
        return if looks_like_svg(bytes) {
            decode_svg(bytes, limits)
        } else {
            Err("not an image of a supported format (jpeg, png, webp, gif, bmp, tiff, svg)".into())
        };
    };
    let mut reader = reader;
    let mut alloc_limits = image::Limits::no_limits();
    alloc_limits.max_alloc = Some(limits.max_pixels.saturating_mul(16));
    reader.limits(alloc_limits);
    let mut decoder = reader.into_decoder().map_err(|e| damaged(&e))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    let orientation = decoder.orientation().map_err(|e| damaged(&e))?;
    let mut image = match decode_jpeg(bytes, format)? {
        Some(image) => image,
        None => DynamicImage::from_decoder(decoder).map_err(|e| damaged(&e))?,
    };
    image.apply_orientation(orientation);
    Ok(if image.color().has_alpha() { blend(&image.into_rgba8(), limits.background) } else { to_rgb8(image) })
}

/// Decodes gray and YCbCr jpegs by libjpeg-turbo, which gives exactly Pillow's pixels; `None` for everything else.
#[cfg(feature = "libjpeg")]
fn decode_jpeg(bytes: &[u8], format: image::ImageFormat) -> Result<Option<DynamicImage>, String> {
    if format != image::ImageFormat::Jpeg {
        return Ok(None);
    }
    // libjpeg fills missing data with gray. Pillow rejects such files, and so does mm.
    let end = bytes.windows(2).rposition(|w| w == [0xff, 0xd9]);
    if end.is_none_or(|end| bytes[end..].windows(2).any(|w| w == [0xff, 0xda])) {
        return Err("damaged image: the jpeg is truncated".into());
    }
    // libjpeg reports errors by unwinding out of C.
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
        Ok(result) => result.map_err(|e| format!("damaged image: {e}")),
        Err(payload) => {
            let reason = payload.downcast_ref::<String>().map_or("it cannot be decoded", String::as_str);
            Err(format!("damaged image: {reason}"))
        }
    }
}

#[cfg(not(feature = "libjpeg"))]
fn decode_jpeg(_: &[u8], _: image::ImageFormat) -> Result<Option<DynamicImage>, String> {
    Ok(None)
}

fn damaged(error: &image::ImageError) -> String {
    format!("damaged image: {error}")
}

fn check_size(width: u32, height: u32, limits: &ImageLimits) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("found an image of {width}×{height} pixels, expected at least one"));
    }
    if pixels > limits.max_pixels {
        return Err(format!(
            "found an image of {width}×{height} pixels, expected at most {} in all",
            limits.max_pixels
        ));
    }
    Ok(())
}

fn to_rgb8(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageRgb8(rgb) => rgb,
        other => other.into_rgb8(),
    }
}

/// Blends an image with transparency with a background color.
fn blend(image: &image::RgbaImage, background: [u8; 3]) -> RgbImage {
    let mut out = RgbImage::new(image.width(), image.height());
    for (to, from) in out.pixels_mut().zip(image.pixels()) {
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
    // A compressed svg starts with gzip's magic number.
    head.contains("<svg") || head.trim_start().starts_with("<?xml") || bytes.starts_with(&[0x1f, 0x8b])
}

#[cfg(feature = "svg")]
fn decode_svg(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, String> {
    use resvg::{tiny_skia, usvg};
    // Text needs fonts, which differ between machines; none are loaded, so that an image is rendered the same on all.
    let tree = usvg::Tree::from_data(bytes, &usvg::Options::default()).map_err(|e| format!("damaged svg: {e}"))?;
    let size = tree.size();
    let width = limits.svg_width.max(1);
    let height = (f64::from(width) * f64::from(size.height()) / f64::from(size.width())).round().clamp(1.0, 1e9) as u32;
    check_size(width, height, limits)?;
    let mut canvas = tiny_skia::Pixmap::new(width, height).ok_or("svg without a size")?;
    let [r, g, b] = limits.background;
    canvas.fill(tiny_skia::Color::from_rgba8(r, g, b, 255));
    let scale = tiny_skia::Transform::from_scale(width as f32 / size.width(), height as f32 / size.height());
    resvg::render(&tree, scale, &mut canvas.as_mut());
    let rgb = canvas.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    RgbImage::from_raw(width, height, rgb).ok_or_else(|| "svg without a size".into())
}

#[cfg(not(feature = "svg"))]
fn decode_svg(_: &[u8], _: &ImageLimits) -> Result<RgbImage, String> {
    Err("svg is not supported by this build; build mm-data with its `svg` feature".into())
}
