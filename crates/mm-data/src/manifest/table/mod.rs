//! Tables: JSON Lines, JSON, CSV, TSV, Parquet and `WebDataset` shards, as rows of cells.

mod arrow;
mod blobs;
#[cfg(any(feature = "arrow", feature = "parquet"))]
mod class_labels;
mod delimited;
mod folder;
mod json;
mod json_numbers;
mod missing;
mod parquet;
mod pattern;
mod pieces;
mod rows;
mod text;
mod webdataset;

use crate::{
    Error, Result,
    fetch::{is_remote, local_copy, unpin_copy},
};
use blobs::BlobWriter;
pub use blobs::is_stored_file;
pub(super) use blobs::{Blobs, blob_extension, cell_key};
use missing::MissingValues;
use mm_core::cells::Record;
pub use mm_core::cells::cell_text;
pub use pattern::{existing_files, expand_braces};
pub use pieces::PieceSize;
pub(super) use pieces::{PieceOptions, is_read_in_pieces};
use rows::{Receiver, Rows};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
pub(super) use webdataset::KEY_COLUMN;

/// One row of a table as it is read or sent: column → value. A [`Table`] holds them as [`Record`]s.
///
/// Encoded files (images as bytes, as base64 or as data URIs) are replaced by a reference, see [`Table`].
pub type Cells = serde_json::Map<String, Value>;

/// With fewer values in a sample of a column, the whole column is searched ([`Table::sample`]).
pub(super) const MIN_SAMPLED: usize = 50;

/// How a table is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableOptions<'a> {
    /// Encoding of text files, a WHATWG label; UTF-8 (or what the byte-order mark says) when absent.
    pub encoding: Option<&'a str>,
    /// The texts that stand for a missing value, besides the empty one;
    /// [`MISSING_VALUES`](mm_core::cells::MISSING_VALUES) when absent.
    pub missing_values: Option<&'a [String]>,
    /// Whether files that cells name by URL may be fetched, see
    /// [`ManifestConfig::fetch_urls`](crate::ManifestConfig::fetch_urls). Reading a table fetches none.
    pub fetch_urls: bool,
}

/// A table in memory.
///
/// Texts that stand for a missing value are null. The bytes of encoded files lie in an unnamed temporary file (in mm's
/// cache folder) and are read when they are needed, so that memory does not grow with them.
#[derive(Debug, Clone)]
pub struct Table {
    /// The file.
    pub path: PathBuf,
    /// The columns of all rows, in the order of the file.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Record>,
    pub(super) blobs: Option<Arc<Blobs>>,
}

/// Whether a folder holds a data set that [`Table::read`] reads.
pub fn is_dataset_folder(path: &Path) -> bool {
    path.is_dir() && folder::files(path).is_ok()
}

impl Table {
    /// Reads all rows of a table: `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, `.parquet`, `.arrow` or `.tar` (a
    /// `WebDataset` shard); text files also compressed as `.gz` or `.zst`, shards as `.gz`. A pattern with braces
    /// ([`expand_braces`]) names several files, whose rows follow one another. A folder is one that Hugging Face's
    /// `datasets` saved, or one of Parquet files as in its repositories; where it has several splits, the column `split`
    /// names them. A URL is read from a copy ([`local_copy`]).
    ///
    /// # Errors
    /// Names the file, and the row where there is one: unreadable, of another kind, not valid in the encoding, or
    /// malformed.
    pub fn read(path: &Path, options: &TableOptions<'_>) -> Result<Self> {
        let mut blobs = BlobWriter::new(path);
        let mut rows = Rows::new(Some(MissingValues::new(options.missing_values)), Receiver::Table);
        read_files(path, options, &mut blobs, &mut rows)?;
        let (columns, rows) = rows.finish(path);
        Ok(Self { path: path.to_owned(), columns, rows, blobs: blobs.finish() })
    }

    /// Calls `each` with the rows of a table in order, as they are in the file: no text stands for a missing value.
    /// Of `.parquet`, `.arrow`, `.csv`, `.tsv`, `.jsonl` and `.ndjson` one row is in memory at a time, of other tables
    /// all are.
    ///
    /// # Errors
    /// As [`Self::read`], and those of `each`.
    pub fn for_each_row<E: From<Error>>(path: &Path, mut each: impl FnMut(Cells) -> Result<(), E>) -> Result<(), E> {
        let mut blobs = BlobWriter::new(path);
        let mut refused = None;
        let mut pass_on = |row: Cells| stop_at_error(each(row), &mut refused);
        let mut rows = Rows::new(None, Receiver::Single(&mut pass_on));
        let read = read_file(path, &TableOptions::default(), &mut blobs, &mut rows);
        drop(rows);
        refused.map_or_else(|| read.map_err(E::from), Err)
    }

    /// A table of rows that are in memory; `name` stands for its file in messages.
    pub fn from_rows(name: &str, rows: Vec<Cells>, missing_values: Option<&[String]>) -> Self {
        let path = PathBuf::from(name);
        let mut all = Rows::new(Some(MissingValues::new(missing_values)), Receiver::Table);
        rows.into_iter().for_each(|row| all.add(row));
        let (columns, rows) = all.finish(&path);
        Self { path, columns, rows, blobs: None }
    }

    /// Whether a row has this column.
    pub fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|c| c == name)
    }

    /// The cells of a column that are not null, of about `max_rows` rows spread over the whole table; of all rows where
    /// few of those have a value.
    pub fn sample(&self, column: &str, max_rows: usize) -> Vec<Value> {
        let value = |row: &Record| row.value(column);
        let filled = || self.rows.iter().filter(|row| row.has_value(column));
        let step = (self.rows.len() / max_rows.max(1)).max(1);
        let found = self.rows.iter().step_by(step).filter(|row| row.has_value(column));
        let found: Vec<Value> = found.filter_map(value).collect();
        if step == 1 || found.len() >= MIN_SAMPLED {
            return found;
        }
        let step = (filled().count() / max_rows.max(1)).max(1);
        filled().step_by(step).filter_map(value).collect()
    }
}

/// Keeps the error of a function that takes rows, so that reading ends.
fn stop_at_error<E>(result: Result<(), E>, refused: &mut Option<E>) -> Result<()> {
    result.map_err(|error| {
        *refused = Some(error);
        Error::Config("what reads the table has stopped".to_owned())
    })
}

/// Reads the files of a table in order.
fn read_files(path: &Path, options: &TableOptions<'_>, blobs: &mut BlobWriter<'_>, rows: &mut Rows<'_>) -> Result<()> {
    if path.is_dir() {
        for file in folder::files(path)? {
            rows.set_split(file.split);
            read_file(&file.path, options, blobs, rows)?;
        }
        return Ok(());
    }
    existing_files(path)?.iter().try_for_each(|file| read_file(file, options, blobs, rows))
}

fn read_file(path: &Path, options: &TableOptions<'_>, blobs: &mut BlobWriter<'_>, rows: &mut Rows<'_>) -> Result<()> {
    if is_remote(path) {
        // The copy has the name of the file.
        let copy = local_copy(path)?;
        let read = read_local(&copy, Some(path), options, blobs, rows).map_err(|e| of_url(e, &copy, path));
        // What is needed of it later is read from there again where its space is needed.
        unpin_copy(path);
        return read;
    }
    read_local(path, None, options, blobs, rows)
}

/// An error of the copy of a URL, as one of the URL.
fn of_url(error: Error, copy: &Path, url: &Path) -> Error {
    match error {
        Error::File { path, source } if path == copy => Error::File { path: url.to_owned(), source },
        Error::Row { path, row, reason } if path == copy => Error::Row { path: url.to_owned(), row, reason },
        other => Error::file(url, other),
    }
}

/// Reads a file of this machine, which may be the copy of a URL.
fn read_local(
    path: &Path,
    url: Option<&Path>,
    options: &TableOptions<'_>,
    blobs: &mut BlobWriter<'_>,
    rows: &mut Rows<'_>,
) -> Result<()> {
    match text::kind_of(path).as_str() {
        "parquet" => parquet::read(path, blobs, rows),
        "arrow" => arrow::read(path, blobs, rows),
        "jsonl" | "ndjson" | "json" => json::read(path, options.encoding, blobs, rows),
        "csv" => delimited::read(path, options.encoding, b',', blobs, rows),
        "tsv" => delimited::read(path, options.encoding, b'\t', blobs, rows),
        "tar" | "tgz" => webdataset::read(path, url, blobs, rows),
        other => {
            let expected = ".jsonl, .json, .csv, .tsv, .parquet, .arrow or .tar (text files also as .gz or .zst)";
            Err(Error::file(path, format!("found the extension `.{other}`, expected {expected}")))
        }
    }
}
