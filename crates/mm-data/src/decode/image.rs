//! Image files → 8-bit RGB. The format is detected from the content, not the file name; the EXIF orientation is
//! applied, transparency is blended with a background color or ignored, and the number of pixels is checked in the
//! header, before decoding.

use super::{jpeg, svg};
use crate::{Error, Result};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use std::{io::Cursor, path::Path};

/// What the decoders of this build are, for the keys of cached samples: others give other pixels.
pub(crate) const IMAGE_DECODERS: &str = if cfg!(feature = "libjpeg") { "libjpeg" } else { "jpeg by image" };

/// How transparent pixels are converted to RGB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transparency {
    /// They are blended with the background color.
    #[default]
    Blend,
    /// The alpha channel is dropped, and each pixel keeps the color that the file stores for it, as Pillow's
    /// `convert("RGB")` does. Vector images, which store no such color, are blended.
    Ignore,
}

/// Limits on decoded images, and how those without a size or with transparency are rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageLimits {
    /// Maximum number of pixels (width × height).
    pub max_pixels: u64,
    /// How transparent pixels are converted to RGB.
    pub transparency: Transparency,
    /// RGB color behind transparent pixels, where they are blended.
    pub background: [u8; 3],
    /// Width in pixels that vector images (svg) are rendered at; the height follows from the aspect ratio.
    pub svg_width: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_pixels: 100_000_000, transparency: Transparency::Blend, background: [255; 3], svg_width: 512 }
    }
}

/// Decodes an image file (jpeg, png, webp, gif, bmp, tiff, svg).
///
/// # Errors
/// When the file cannot be read or decoded, its format is not supported, or it has more pixels than `limits` allow.
pub fn decode_image(path: &Path, limits: &ImageLimits) -> Result<RgbImage> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let mut notes = Vec::new();
    let image = decode_noting(&bytes, limits, &mut notes).map_err(|e| Error::file(path, e))?;
    notes.iter().for_each(|note| tracing::warn!("{}: {note}", path.display()));
    Ok(image)
}

/// Decodes an image in memory, as [`decode_image`] does; error messages name no file.
pub fn decode_image_bytes(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, String> {
    let mut notes = Vec::new();
    let image = decode_noting(bytes, limits, &mut notes)?;
    // Notes repeat links and texts of the drawing, which may be a client's.
    if !notes.is_empty() {
        tracing::warn!("an svg in memory: links to other files, large images or texts without a font are left out");
    }
    Ok(image)
}

/// Decodes an image and notes what is left out of it.
fn decode_noting(bytes: &[u8], limits: &ImageLimits, notes: &mut Vec<String>) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let Some(format) = reader.format() else {
        return if svg::is_svg(bytes) {
            svg::decode(bytes, limits, notes)
        } else {
            Err("not an image of a supported format (jpeg, png, webp, gif, bmp, tiff, svg)".into())
        };
    };
    if format == image::ImageFormat::Jpeg {
        let bytes = jpeg::first_image(bytes)?;
        let reader = ImageReader::with_format(Cursor::new(bytes), format);
        return decode_raster(reader, limits, || jpeg::decode(bytes));
    }
    decode_raster(reader, limits, || Ok(None))
}

/// Decodes an image of pixels, by `special` where that gives one.
fn decode_raster(
    mut reader: ImageReader<Cursor<&[u8]>>,
    limits: &ImageLimits,
    special: impl FnOnce() -> Result<Option<DynamicImage>, String>,
) -> Result<RgbImage, String> {
    let mut alloc_limits = image::Limits::no_limits();
    alloc_limits.max_alloc = Some(limits.max_pixels.saturating_mul(16));
    reader.limits(alloc_limits);
    let mut decoder = reader.into_decoder().map_err(|e| damaged(&e))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    let orientation = decoder.orientation().map_err(|e| damaged(&e))?;
    let mut image = match special()? {
        Some(image) => image,
        None => DynamicImage::from_decoder(decoder).map_err(|e| damaged(&e))?,
    };
    image.apply_orientation(orientation);
    let blends = limits.transparency == Transparency::Blend && image.color().has_alpha();
    Ok(if blends { blend(&image.into_rgba8(), limits.background) } else { to_rgb8(image) })
}

fn damaged(error: &image::ImageError) -> String {
    format!("damaged image: {error}")
}

pub(super) fn check_size(width: u32, height: u32, limits: &ImageLimits) -> Result<(), String> {
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
