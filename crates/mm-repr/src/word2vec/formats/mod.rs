//! File formats of word vectors.

mod fasttext;
mod word2vec_format;

use super::{sentences::io_error, vectors::WordVectors};
use crate::{Error, Result};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

/// Bytes at the start of a file by which its format is detected.
const MAX_HEAD: u64 = 1 << 20;

/// A file format of word vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// word2vec's text format: a header with the number of words and the dimension, then one word per line.
    Text,
    /// word2vec's binary format: the same with little-endian f32 values.
    Binary,
    /// fastText's `.bin` model, with n-grams.
    FastText,
}

impl Format {
    /// Detects the format of a file from its first bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn detect(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io_error(path))?;
        let mut head = Vec::new();
        file.take(MAX_HEAD).read_to_end(&mut head).map_err(io_error(path))?;
        Ok(Self::of_bytes(&head))
    }

    /// Detects the format from the start of a file. In the text format, the line after the header ends with as many
    /// numbers as the header says, whatever bytes its word has.
    fn of_bytes(head: &[u8]) -> Self {
        if head.starts_with(&fasttext::MAGIC.to_le_bytes()) {
            return Self::FastText;
        }
        let mut lines = head.split(|b| *b == b'\n');
        let header = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
        let first = lines.next().unwrap_or_default();
        let dim = header.split_whitespace().nth(1).and_then(|dim| dim.parse().ok()).filter(|dim| *dim < first.len());
        match dim.map(|dim| word2vec_format::split_text_line(first, dim)) {
            Some(Some(_)) => Self::Text,
            // A text without a header, or with an incomplete first line, is reported as a text.
            _ if word2vec_format::is_text(head) => Self::Text,
            _ => Self::Binary,
        }
    }
}

impl WordVectors {
    /// Reads a file in any [`Format`], which is detected.
    ///
    /// # Errors
    /// The file cannot be read, is truncated or is inconsistent with its header.
    pub fn load(path: &Path) -> Result<Self> {
        let format = Format::detect(path)?;
        let file = File::open(path).map_err(io_error(path))?;
        if format == Format::FastText {
            let read = fasttext::read(&mut BufReader::with_capacity(1 << 20, file));
            return read.map_err(|e| Error::folder(path, format!("not a complete fastText model: {e}")));
        }
        if file.metadata().map_err(io_error(path))?.len() == 0 {
            return Err(Error::folder(path, "the file is empty"));
        }
        // SAFETY: the file is only read, and mm replaces files by renaming.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io_error(path))?;
        let read = if format == Format::Text { word2vec_format::read_text } else { word2vec_format::read_binary };
        let (vectors, warnings) = read(&bytes).map_err(|reason| Error::folder(path, reason))?;
        for warning in warnings {
            tracing::warn!("{}: {warning}", path.display());
        }
        Ok(vectors)
    }

    /// Writes a file atomically.
    ///
    /// # Errors
    /// The file cannot be written, or a word has a character that the format cannot hold.
    pub fn save(&self, path: &Path, format: Format) -> Result<()> {
        let partial = PathBuf::from(format!("{}.new", path.display()));
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial).map_err(io_error(&partial))?);
        let written = match format {
            Format::FastText => fasttext::write(self, &mut out),
            Format::Text => word2vec_format::write(self, &mut out, false),
            Format::Binary => word2vec_format::write(self, &mut out, true),
        };
        if let Err(error) = written.and_then(|()| out.flush()) {
            // The first error is the one to report.
            let _ = std::fs::remove_file(&partial);
            return Err(io_error(&partial)(error));
        }
        std::fs::rename(&partial, path).map_err(io_error(path))
    }
}
