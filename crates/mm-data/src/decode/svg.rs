//! Vector images (svg, svgz) → pixels.

use super::{ImageLimits, image::check_size};
use image::RgbImage;

pub(super) fn looks_like_svg(bytes: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).to_ascii_lowercase();
    // A compressed svg starts with gzip's magic number.
    head.contains("<svg") || head.trim_start().starts_with("<?xml") || bytes.starts_with(&[0x1f, 0x8b])
}

#[cfg(feature = "svg")]
pub(super) fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, String> {
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
pub(super) fn decode(_: &[u8], _: &ImageLimits) -> Result<RgbImage, String> {
    Err("svg is not supported by this build; build mm-data with its `svg` feature".into())
}
