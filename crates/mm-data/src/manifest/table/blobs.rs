//! Encoded files inside a table: bytes in Parquet, base64, data URIs. They are written into an unnamed temporary file;
//! the cell keeps a reference.

use crate::{Error, Result, file_type::sniff};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use mm_core::EncodedFile;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

/// The key of a reference.
pub(super) const KEY: &str = "$bytes";

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The temporary file that holds the encoded files of a table.
#[derive(Debug)]
pub(in super::super) struct Blobs(Arc<Mutex<File>>);

impl Blobs {
    /// The encoded file that a cell refers to; `location` is the name of a file that has none.
    pub(in super::super) fn get(&self, cell: &Value, location: impl FnOnce() -> String) -> Option<EncodedFile> {
        let reference = cell.get(KEY)?;
        let number = |key: &str| reference.get(key).and_then(Value::as_u64);
        let mut digest = [0; 32];
        let hex = reference.get("digest").and_then(Value::as_str)?;
        for (byte, at) in digest.iter_mut().zip((0..hex.len()).step_by(2)) {
            *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
        }
        let (offset, length) = (number("offset")?, number("length")?);
        let size = self.0.lock().ok()?.metadata().ok()?.len();
        offset.checked_add(length).filter(|end| *end <= size)?;
        let extension = blob_extension(cell).unwrap_or_default();
        let name = match reference.get("name").and_then(Value::as_str) {
            Some(name) => name.to_owned(),
            None if extension.is_empty() => location(),
            None => format!("{} (.{extension})", location()),
        };
        Some(EncodedFile::in_file(name, self.0.clone(), offset, length as usize, digest))
    }
}

/// The extension of the encoded file that a cell refers to, by its content, else by its name; empty where neither
/// says; `None` where the cell is no reference.
pub(in super::super) fn blob_extension(cell: &Value) -> Option<&str> {
    let reference = cell.get(KEY)?;
    let name = reference.get("name").and_then(Value::as_str).unwrap_or("");
    let of_name = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or("");
    Some(reference.get("extension").and_then(Value::as_str).unwrap_or(of_name))
}

/// A cell as text that is equal for equal values; encoded files are equal where their bytes are.
pub(in super::super) fn cell_key(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::Array(items) => format!("[{}]", items.iter().map(cell_key).collect::<Vec<_>>().join(",")),
        Value::Object(_) => match cell.get(KEY).and_then(|reference| reference.get("digest")) {
            Some(digest) => digest.to_string(),
            None => cell.to_string(),
        },
        other => other.to_string(),
    }
}

/// Collects the encoded files of a table.
pub(super) struct BlobWriter<'a> {
    table: &'a Path,
    file: Option<File>,
    length: u64,
}

impl<'a> BlobWriter<'a> {
    pub(super) fn new(table: &'a Path) -> Self {
        Self { table, file: None, length: 0 }
    }

    pub(super) fn finish(self) -> Option<Arc<Blobs>> {
        self.file.map(|file| Arc::new(Blobs(Arc::new(Mutex::new(file)))))
    }

    /// Stores bytes; returns the cell that refers to them.
    pub(super) fn add(&mut self, bytes: &[u8], name: Option<&str>) -> Result<Value> {
        let failed = |e: std::io::Error| {
            let reason = format!("the files inside it cannot be written to a temporary file in mm's cache folder: {e}");
            Error::file(self.table, reason)
        };
        let file = if let Some(file) = &mut self.file {
            file
        } else {
            let folder = mm_core::cache_dir();
            std::fs::create_dir_all(&folder).map_err(failed)?;
            self.file.insert(tempfile::tempfile_in(folder).map_err(failed)?)
        };
        file.write_all(bytes).map_err(failed)?;
        let offset = self.length;
        self.length += bytes.len() as u64;
        let digest = blake3::hash(bytes).to_hex().to_string();
        let mut reference = json!({"offset": offset, "length": bytes.len(), "digest": digest});
        if let Some(extension) = sniff(bytes) {
            reference["extension"] = extension.into();
        }
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            reference["name"] = name.into();
        }
        Ok(json!({KEY: reference}))
    }

    /// Stores the file that a text holds as a data URI or as base64; `None` where the text holds none.
    pub(super) fn add_inline(&mut self, text: &str) -> Result<Option<Value>, String> {
        let text = text.trim();
        if let Some(rest) = text.get(..5).filter(|s| s.eq_ignore_ascii_case("data:")).and_then(|_| text.get(5..)) {
            let Some((kind, data)) = rest.split_once(',') else { return Ok(None) };
            let kind = kind.to_ascii_lowercase();
            if !["image/", "audio/", "video/", "application/"].iter().any(|k| kind.starts_with(k)) {
                return Ok(None);
            }
            if kind.ends_with(";base64") {
                return self.add_base64(data, None).map(Some);
            }
            return self.add(&percent_decoded(data), None).map(Some).map_err(|e| e.to_string());
        }
        if !is_base64_file(text) {
            return Ok(None);
        }
        self.add_base64(text, None).map(Some)
    }

    /// Stores a file that is written as base64, in either alphabet, line breaks allowed.
    pub(super) fn add_base64(&mut self, text: &str, name: Option<&str>) -> Result<Value, String> {
        let standard: String = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| match c {
                '-' => '+',
                '_' => '/',
                other => other,
            })
            .collect();
        let bytes = BASE64.decode(standard).map_err(|e| format!("found damaged base64: {e}"))?;
        self.add(&bytes, name).map_err(|e| e.to_string())
    }
}

/// Whether a text is base64 of an image, audio or video file.
fn is_base64_file(text: &str) -> bool {
    /// Shorter texts are no files.
    const MIN_LENGTH: usize = 48;
    const HEAD: usize = 32;
    let Some(head) = text.get(..HEAD).filter(|_| text.len() >= MIN_LENGTH) else { return false };
    let head = head.replace('-', "+").replace('_', "/");
    let is_known = BASE64.decode(head).ok().is_some_and(|bytes| sniff(&bytes).is_some());
    let is_alphabet = |b: u8| b.is_ascii_alphanumeric() || b"+/-_=\r\n ".contains(&b);
    is_known && text.bytes().all(is_alphabet)
}

/// `%20` and the like as bytes.
fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|_| *first == b'%').and_then(|h| std::str::from_utf8(h).ok());
        if let Some(byte) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            out.push(byte);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}
