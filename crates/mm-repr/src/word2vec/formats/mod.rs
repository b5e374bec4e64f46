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
        let mut head = vec![0u8; 1 << 16];
        let mut file = File::open(path).map_err(io_error(path))?;
        let read = file.read(&mut head).map_err(io_error(path))?;
        head.truncate(read);
        if head.starts_with(&fasttext::MAGIC.to_le_bytes()) {
            return Ok(Self::FastText);
        }
        // In the text format, only text follows the header.
        let body = head.iter().position(|b| *b == b'\n').map_or(0, |i| i + 1);
        let text = match std::str::from_utf8(&head[body..]) {
            Ok(text) => text,
            // A character may be truncated at the end of the buffer.
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&head[body..body + error.valid_up_to()]).unwrap_or("")
            }
            Err(_) => return Ok(Self::Binary),
        };
        let first = text.lines().next().unwrap_or("");
        let is_numeric = first.split(' ').skip(1).filter(|w| !w.is_empty()).all(|w| w.parse::<f32>().is_ok());
        Ok(if is_numeric { Self::Text } else { Self::Binary })
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
        let num_bytes = file.metadata().map_err(io_error(path))?.len() as usize;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let loaded = match format {
            Format::FastText => fasttext::read(&mut reader).map_err(|e| format!("not a complete fastText model: {e}")),
            Format::Text => word2vec_format::read(&mut reader, num_bytes, false),
            Format::Binary => word2vec_format::read(&mut reader, num_bytes, true),
        };
        loaded.map_err(|reason| Error::folder(path, reason))
    }

    /// Writes a file atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path, format: Format) -> Result<()> {
        let partial = PathBuf::from(format!("{}.new", path.display()));
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial).map_err(io_error(&partial))?);
        match format {
            Format::FastText => fasttext::write(self, &mut out),
            Format::Text => word2vec_format::write(self, &mut out, false),
            Format::Binary => word2vec_format::write(self, &mut out, true),
        }
        .and_then(|()| out.flush())
        .map_err(io_error(&partial))?;
        std::fs::rename(&partial, path).map_err(io_error(path))
    }
}
