//! The page around a report's parts.

use base64::Engine;
use mm_data::decode::{ImageLimits, decode_image};
use std::{fmt::Write, io::Cursor, path::Path};

/// Text as it may stand in HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A picture as a small jpeg inside the page; its name where it cannot be read.
pub(crate) fn thumbnail(path: &Path, alt: &str) -> String {
    let small = decode_image(path, &ImageLimits { svg_width: 160, ..ImageLimits::default() })
        .ok()
        .and_then(|picture| inline(&image::DynamicImage::ImageRgb8(picture).thumbnail(112, 112).into_rgb8(), alt));
    small.unwrap_or_else(|| format!("<span class=\"missing\">{}</span>", escape(alt)))
}

/// A picture inside the page, as a jpeg.
pub(crate) fn inline(picture: &image::RgbImage, alt: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(Cursor::new(&mut bytes), 82);
    picture.write_with_encoder(encoder).ok()?;
    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
    Some(format!("<img loading=\"lazy\" alt=\"{}\" src=\"data:image/jpeg;base64,{data}\">", escape(alt)))
}

/// A table; the first row is its head, the first column names the rows.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let mut out = String::from("<div class=\"wide\"><table>");
    for (number, row) in rows.iter().enumerate() {
        out.push_str(if number == 0 { "<thead><tr>" } else { "<tr>" });
        for (place, cell) in row.iter().enumerate() {
            let tag = if number == 0 || place == 0 { "th" } else { "td" };
            let _ = write!(out, "<{tag}>{cell}</{tag}>");
        }
        out.push_str(if number == 0 { "</tr></thead>" } else { "</tr>" });
    }
    out + "</table></div>"
}

/// The whole page.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>\n",
        title = escape(title)
    )
}

const STYLE: &str = "
:root{--ink:#1c2128;--soft:#5b6572;--line:#dde3ea;--page:#f6f8fa;--card:#fff;--good:#1a7f37;--accent:#0072b2}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}h1{font-size:1.7rem;margin:.2em 0}h2{font-size:1.2rem;margin:2em 0 .4em}
p{max-width:70ch}.soft{color:var(--soft);font-size:.92rem}.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.92rem}th,td{padding:6px 12px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{color:var(--soft);font-weight:600}tr:last-child>*{border-bottom:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:16px 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 16px}.card b{display:block;font-size:1.5rem}.card span{color:var(--soft);font-size:.85rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px}figure svg{width:100%;height:auto;display:block}figcaption{color:var(--soft);font-size:.88rem;padding:4px 8px}
.query{display:grid;grid-template-columns:minmax(120px,180px) 1fr;gap:12px;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px;margin:10px 0}
.query>div:first-child{border-right:1px solid var(--line);padding-right:10px}.hits{display:flex;gap:8px;overflow-x:auto}
.hit{flex:0 0 118px;font-size:.78rem;line-height:1.25;border:2px solid transparent;border-radius:6px;padding:3px;overflow-wrap:anywhere}.hit.right{border-color:var(--good);background:#1a7f3714}
.hit.right::before{content:'✓ ';color:var(--good);font-weight:700}img{max-width:112px;max-height:112px;display:block;border-radius:4px;background:#fff}.text{font-size:.88rem}
.bar{position:relative;background:var(--line);border-radius:3px;height:6px;min-width:60px;margin-top:3px}.bar i{position:absolute;inset:0 auto 0 0;background:var(--accent);border-radius:3px}
.made{display:grid;gap:12px}.grid{max-width:100%;max-height:none;height:auto;image-rendering:pixelated}
@media(max-width:560px){.query{grid-template-columns:1fr}.query>div:first-child{border-right:0;border-bottom:1px solid var(--line);padding:0 0 8px}th,td{padding:6px 8px}}
";
