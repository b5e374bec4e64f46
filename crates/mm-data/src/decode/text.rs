//! Text in any declared encoding → normalized text (Unicode NFC).

use crate::{Error, Result};
use encoding_rs::Encoding;
use std::path::Path;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The longest text that a sample may have, in bytes. Encoders use a few hundred tokens; a longer text is a mistake in
/// the data.
pub const TEXT_LIMIT: usize = 1 << 20;

/// Decodes bytes in a declared encoding, UTF-8 by default; a byte-order mark takes precedence.
///
/// # Errors
/// When the encoding is unknown or the bytes are not valid in it; the message names no file.
pub fn text_from_bytes(bytes: &[u8], encoding: Option<&str>) -> Result<String, String> {
    let (text, used, invalid) = encoding_of(encoding)?.decode(bytes);
    if invalid {
        let position =
            std::str::from_utf8(bytes).err().map_or(String::new(), |e| format!(" (first at byte {})", e.valid_up_to()));
        return Err(format!("not valid {}{position}", used.name()));
    }
    Ok(text.into_owned())
}

/// The encoding of a label, UTF-8 when absent.
pub(crate) fn encoding_of(label: Option<&str>) -> Result<&'static Encoding, String> {
    let label = label.unwrap_or("utf-8");
    Encoding::for_label(label.as_bytes()).ok_or_else(|| {
        format!("`{label}` is not a known encoding; expected a label such as utf-8, latin1 or shift_jis")
    })
}

/// Checks the length of a text.
pub fn check_text_size(text: &str) -> Result<(), String> {
    if text.len() > TEXT_LIMIT {
        return Err(format!("found a text of {} bytes, expected at most {TEXT_LIMIT}", text.len()));
    }
    Ok(())
}

/// Checks the length of a text and normalizes it to NFC, in which an accented letter is one character.
pub fn clean_text(text: &str) -> Result<String, String> {
    check_text_size(text)?;
    Ok(if is_nfc(text) { text.to_owned() } else { text.nfc().collect() })
}

/// Reads a text file as it is written: see [`text_from_bytes`] and [`check_text_size`].
pub fn read_text(path: &Path, encoding: Option<&str>) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| Error::file(path, e))?.len();
    if size > TEXT_LIMIT as u64 {
        return Err(Error::file(path, format!("found a text of {size} bytes, expected at most {TEXT_LIMIT}")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let text = text_from_bytes(&bytes, encoding).map_err(|e| Error::file(path, e))?;
    check_text_size(&text).map_err(|e| Error::file(path, e))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_and_normalized() {
        assert_eq!(text_from_bytes(b"caf\xe9", Some("latin1")).unwrap(), "café");
        assert_eq!(text_from_bytes(b"\xef\xbb\xbfx", None).unwrap(), "x");
        assert_eq!(text_from_bytes(b"\xff\xfea\0", None).unwrap(), "a");
        assert!(text_from_bytes(b"ab\xff", None).unwrap_err().contains("byte 2"));
        assert!(text_from_bytes(b"", Some("klingon")).is_err());
        assert_eq!(clean_text("e\u{301}").unwrap(), "é");
        assert!(clean_text(&"x".repeat(TEXT_LIMIT + 1)).is_err());
    }
}
