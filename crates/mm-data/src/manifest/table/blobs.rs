//! Encoded files inside a table: bytes in Parquet, base64, data URIs, files of an archive. They are written into an
//! unnamed temporary file, or stay in the archive; the cell keeps a reference.

use crate::{Error, Result, fetch::remote_part, file_type::sniff};
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

/// Whether a cell stands for an encoded file inside its table ([`Table`](crate::Table)).
pub fn is_stored_file(cell: &Value) -> bool {
    match cell {
        Value::Object(object) => object.contains_key(KEY),
        Value::Array(items) => items.iter().any(is_stored_file),
        _ => false,
    }
}

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The files that hold the encoded files of a table: a temporary one, and archives.
#[derive(Debug)]
pub(in super::super) struct Blobs(Vec<BlobFile>);

/// A file of which cells hold parts.
#[derive(Debug, Clone)]
enum BlobFile {
    /// Without a name, for writing and reading.
    Temporary(Arc<Mutex<File>>),
    Archive(Arc<Path>),
    /// An archive at a URL, and its size.
    Remote(Arc<str>, u64),
}

impl BlobFile {
    fn len(&self) -> Option<u64> {
        match self {
            Self::Temporary(file) => file.lock().ok()?.metadata().ok().map(|m| m.len()),
            Self::Archive(path) => path.metadata().ok().map(|m| m.len()),
            Self::Remote(_, size) => Some(*size),
        }
    }
}

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
        let file = self.0.get(number("file")? as usize)?;
        let size = file.len()?;
        offset.checked_add(length).filter(|end| *end <= size)?;
        let extension = blob_extension(cell).unwrap_or_default();
        let name = match reference.get("name").and_then(Value::as_str) {
            Some(name) => name.to_owned(),
            None if extension.is_empty() => location(),
            None => format!("{} (.{extension})", location()),
        };
        let length = length as usize;
        Some(match file {
            BlobFile::Temporary(file) => EncodedFile::in_file(name, file.clone(), offset, length, digest),
            BlobFile::Archive(path) => EncodedFile::in_path(name, path.clone(), offset, length, digest),
            BlobFile::Remote(url, _) => remote_part(url, name, offset, length, digest),
        })
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
    files: Vec<BlobFile>,
    /// The temporary file, its index, and its length.
    temporary: Option<(File, usize, u64)>,
    /// Whether bytes are stored, so that they can be read later.
    is_stored: bool,
}

impl<'a> BlobWriter<'a> {
    pub(super) fn new(table: &'a Path) -> Self {
        Self { table, files: Vec::new(), temporary: None, is_stored: true }
    }

    /// One that keeps no bytes: the cells say what they are, and cannot be read.
    pub(super) fn without_contents(table: &'a Path) -> Self {
        Self { is_stored: false, ..Self::new(table) }
    }

    /// The files so far; those that follow are others.
    pub(super) fn finish(&mut self) -> Option<Arc<Blobs>> {
        self.temporary = None;
        let files = std::mem::take(&mut self.files);
        (self.is_stored && !files.is_empty()).then(|| Arc::new(Blobs(files)))
    }

    /// Bytes in the temporary file.
    pub(super) fn size(&self) -> u64 {
        self.temporary.as_ref().map_or(0, |(_, _, length)| *length)
    }

    /// Stores bytes; returns the cell that refers to them.
    pub(super) fn add(&mut self, bytes: &[u8], name: Option<&str>) -> Result<Value> {
        if !self.is_stored {
            return Ok(Self::cell(json!({"length": bytes.len()}), bytes, name));
        }
        let failed = |e: std::io::Error| {
            let reason = format!("the files inside it cannot be written to a temporary file in mm's cache folder: {e}");
            Error::file(self.table, reason)
        };
        if self.temporary.is_none() {
            let folder = mm_core::cache_dir();
            std::fs::create_dir_all(&folder).map_err(failed)?;
            let file = tempfile::tempfile_in(folder).map_err(failed)?;
            let copy = file.try_clone().map_err(failed)?;
            self.files.push(BlobFile::Temporary(Arc::new(Mutex::new(copy))));
            self.temporary = Some((file, self.files.len() - 1, 0));
        }
        let Some((file, index, length)) = &mut self.temporary else { unreachable!("it is made above") };
        file.write_all(bytes).map_err(failed)?;
        let offset = *length;
        *length += bytes.len() as u64;
        Ok(Self::reference(*index, offset, bytes, name))
    }

    /// Adds an archive of which cells will hold parts; returns its index. One that is the copy of a URL is read from
    /// there where the copy is gone.
    pub(super) fn add_archive(&mut self, path: &Path, url: Option<&Path>) -> usize {
        let size = || path.metadata().map_or(0, |metadata| metadata.len());
        self.files.push(match url.and_then(Path::to_str) {
            Some(url) => BlobFile::Remote(url.into(), size()),
            None => BlobFile::Archive(path.into()),
        });
        self.files.len() - 1
    }

    /// The cell that refers to bytes in a file.
    pub(super) fn reference(file: usize, offset: u64, bytes: &[u8], name: Option<&str>) -> Value {
        let digest = blake3::hash(bytes).to_hex().to_string();
        Self::cell(json!({"file": file, "offset": offset, "length": bytes.len(), "digest": digest}), bytes, name)
    }

    /// The cell of a reference to bytes.
    fn cell(mut reference: Value, bytes: &[u8], name: Option<&str>) -> Value {
        if let Some(extension) = sniff(bytes) {
            reference["extension"] = extension.into();
        }
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            reference["name"] = name.into();
        }
        json!({KEY: reference})
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
