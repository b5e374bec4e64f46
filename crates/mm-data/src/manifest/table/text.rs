//! Text files: compression and encoding.

use crate::{Error, Result, notice};
use std::{io::Read, path::Path};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The extension of a table in lower case, without that of a compression.
pub(super) fn kind_of(path: &Path) -> String {
    let extension = |p: &Path| p.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension(path).as_str() {
        "gz" | "zst" => extension(Path::new(path.file_stem().unwrap_or_default())),
        other => other.to_owned(),
    }
}

/// The text of a file, decompressed and decoded.
pub(super) fn read(path: &Path, encoding: Option<&str>) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let bytes = if bytes.starts_with(GZIP) {
        let mut out = Vec::new();
        let mut decoder = flate2::read::MultiGzDecoder::new(bytes.as_slice());
        decoder.read_to_end(&mut out).map_err(|e| Error::file(path, format!("damaged gzip file: {e}")))?;
        out
    } else if bytes.starts_with(ZSTD) {
        unpack_zstd(path, &bytes)?
    } else {
        bytes
    };
    let text = crate::decode::text_from_bytes(&bytes, encoding).map_err(|e| {
        let hint = "name the file's encoding, for instance windows-1252 (data.encoding in a config, --encoding)";
        Error::file(path, format!("{e}; {hint}"))
    })?;
    if let Some(at) = text.find('\0') {
        let line = text[..at].matches('\n').count() + 1;
        let hint = "a file in UTF-16 without a byte-order mark needs --encoding utf-16le (data.encoding in a config)";
        return Err(Error::file(path, format!("line {line}: found a NUL character, expected text; {hint}")));
    }
    if let Some(encoding) = encoding
        && !text.is_ascii()
        && std::str::from_utf8(&bytes).is_ok()
        && text.as_bytes() != bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)
    {
        notice::once(format!("{}: is valid UTF-8 but read as {encoding}, as asked", path.display()));
    }
    Ok(text)
}

#[cfg(feature = "zstd")]
fn unpack_zstd(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    zstd::decode_all(bytes).map_err(|e| Error::file(path, format!("damaged zstd file: {e}")))
}

#[cfg(not(feature = "zstd"))]
fn unpack_zstd(path: &Path, _: &[u8]) -> Result<Vec<u8>> {
    Err(Error::file(path, "this build does not read zstd; build mm-data with its `zstd` feature"))
}
