//! Text of any declared encoding, as NFC.

use crate::{Error, Result};
use encoding_rs::Encoding;
use std::path::Path;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The longest text that a sample may have, in bytes. Encoders see a few hundred tokens; more is a mistake in the data.
pub const TEXT_LIMIT: usize = 1 << 20;

/// Bytes in a declared encoding (UTF-8 when none is; a byte-order mark wins) as text.
pub fn text_from_bytes(bytes: &[u8], encoding: Option<&str>) -> Result<String, String> {
    let label = encoding.unwrap_or("utf-8");
    let encoding = Encoding::for_label(label.as_bytes()).ok_or_else(|| format!("`{label}` is not an encoding"))?;
    let (text, used, broken) = encoding.decode(bytes);
    if broken {
        let place =
            std::str::from_utf8(bytes).err().map_or(String::new(), |e| format!(" (first at byte {})", e.valid_up_to()));
        return Err(format!("not valid {}{place}", used.name()));
    }
    Ok(text.into_owned())
}

/// Checks the length and puts text into NFC, so that an accent is one character whoever typed it.
pub fn clean_text(text: &str) -> Result<String, String> {
    if text.len() > TEXT_LIMIT {
        return Err(format!("a text of {} bytes; the limit is {TEXT_LIMIT}", text.len()));
    }
    Ok(if is_nfc(text) { text.to_owned() } else { text.nfc().collect() })
}

/// A text file.
pub fn read_text(path: &Path, encoding: Option<&str>) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| Error::file(path, e))?.len();
    if size > TEXT_LIMIT as u64 {
        return Err(Error::file(path, format!("a text of {size} bytes; the limit is {TEXT_LIMIT}")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let text = text_from_bytes(&bytes, encoding).map_err(|e| Error::file(path, e))?;
    clean_text(&text).map_err(|e| Error::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_marks_and_accents() {
        assert_eq!(text_from_bytes(b"caf\xe9", Some("latin1")).unwrap(), "café");
        assert_eq!(text_from_bytes(b"\xef\xbb\xbfx", None).unwrap(), "x");
        assert_eq!(text_from_bytes(b"\xff\xfea\0", None).unwrap(), "a");
        assert!(text_from_bytes(b"ab\xff", None).unwrap_err().contains("byte 2"));
        assert!(text_from_bytes(b"", Some("klingon")).is_err());
        assert_eq!(clean_text("e\u{301}").unwrap(), "é");
        assert!(clean_text(&"x".repeat(TEXT_LIMIT + 1)).is_err());
    }
}
