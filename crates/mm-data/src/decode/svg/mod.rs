//! Vector images (svg, svgz) → pixels. A drawing is a small program, so its size is bounded in every respect before it
//! is drawn: what it unpacks to, how deep it nests, what its references expand to, and how much work its layers,
//! patterns and filters are. Nothing that it points at is read.

#[cfg(feature = "svg")]
mod cost;
#[cfg(feature = "svg")]
mod fonts;
#[cfg(feature = "svg")]
mod references;
#[cfg(feature = "svg")]
mod render;
#[cfg(feature = "svg")]
mod style;
#[cfg(all(test, feature = "svg"))]
mod tests;
#[cfg(feature = "svg")]
mod text;
#[cfg(feature = "svg")]
mod xml;

#[cfg(feature = "svg")]
pub(super) use render::decode;

pub(super) fn is_svg(bytes: &[u8]) -> bool {
    // A compressed svg starts with gzip's magic number, one in UTF-16 with a byte-order mark.
    if bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return true;
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).to_ascii_lowercase();
    let start = head.trim_start_matches('\u{feff}').trim_start();
    head.contains("<svg") || start.starts_with("<?xml") || start.starts_with("<!doctype svg")
}

#[cfg(not(feature = "svg"))]
pub(super) fn decode(_: &[u8], _: &super::ImageLimits, _: &mut Vec<String>) -> Result<image::RgbImage, String> {
    Err("svg is not supported by this build; build mm-data with its `svg` feature".into())
}
