//! HTML elements for reports that do not use templates.

use super::page::render;
use crate::Result;
use base64::Engine;
use mm_core::Source;
use mm_data::{decode::ImageLimits, decode_image_source};
use serde_json::json;
use std::{fmt::Write, io::Cursor};

/// Escapes text for HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A thumbnail of an image as an `<img>` element with a JPEG inside; `alt` where it cannot be read.
pub(crate) fn thumbnail(image: &Source, alt: &str) -> String {
    let small = decode_image_source(image, &ImageLimits { svg_width: 160, ..ImageLimits::default() })
        .ok()
        .and_then(|decoded| inline(&image::DynamicImage::ImageRgb8(decoded).thumbnail(112, 112).into_rgb8(), alt));
    small.unwrap_or_else(|| format!("<span class=\"missing\">{}</span>", escape(alt)))
}

/// An image as an `<img>` element with a JPEG inside.
pub(crate) fn inline(image: &image::RgbImage, alt: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(Cursor::new(&mut bytes), 82);
    image.write_with_encoder(encoder).ok()?;
    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
    Some(format!("<img loading=\"lazy\" alt=\"{}\" src=\"data:image/jpeg;base64,{data}\">", escape(alt)))
}

/// A table of HTML cells; the first row is the header, the first column names the rows.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let mut out = String::from("<div class=\"wide\"><table>");
    for (number, row) in rows.iter().enumerate() {
        out.push_str(if number == 0 { "<thead><tr>" } else { "<tr>" });
        for (column, cell) in row.iter().enumerate() {
            let tag = if number == 0 || column == 0 { "th" } else { "td" };
            let _ = write!(out, "<{tag}>{cell}</{tag}>");
        }
        out.push_str(if number == 0 { "</tr></thead>" } else { "</tr>" });
    }
    out + "</table></div>"
}

/// A page with this HTML as its body.
pub(crate) fn page(title: &str, body: &str) -> Result<String> {
    render("page.html", json!({"title": title, "body": body}))
}
