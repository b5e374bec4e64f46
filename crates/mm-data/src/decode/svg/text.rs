//! The bytes of a drawing → its XML.

use crate::decode::text_from_bytes;
use std::io::Read;

/// The longest XML that is read, in bytes.
const MAX_LENGTH: u64 = 64 << 20;

/// Unpacks a compressed drawing and decodes its text, in the encoding that it declares.
///
/// # Errors
/// When it is too long, damaged, or not text.
pub(super) fn xml(bytes: &[u8]) -> Result<String, String> {
    let too_long = || format!("found an svg of more than {MAX_LENGTH} bytes, expected at most that");
    let mut unpacked = Vec::new();
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        let reader = flate2::read::MultiGzDecoder::new(bytes);
        reader.take(MAX_LENGTH + 1).read_to_end(&mut unpacked).map_err(|e| format!("damaged svgz: {e}"))?;
        unpacked.as_slice()
    } else {
        bytes
    };
    if bytes.len() as u64 > MAX_LENGTH {
        return Err(too_long());
    }
    let text = text_from_bytes(bytes, declared_encoding(bytes).as_deref()).map_err(|e| format!("damaged svg: {e}"))?;
    if text.contains("<svg") || text.contains(":svg") {
        return Ok(text);
    }
    Err("not an image of a supported format (jpeg, png, webp, gif, bmp, tiff, svg)".into())
}

/// The encoding in `<?xml version="1.0" encoding="…"?>`, which is written in ASCII.
fn declared_encoding(bytes: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let declaration = head.trim_start().strip_prefix("<?xml")?.split("?>").next()?;
    let value = declaration.split("encoding").nth(1)?.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
    value[1..].split(quote).next().map(ToOwned::to_owned)
}
