//! Tables: JSON Lines, JSON, CSV, TSV, Parquet and `WebDataset` shards, as rows of cells.

mod blobs;
mod delimited;
mod json;
mod json_numbers;
mod missing;
mod parquet;
mod pattern;
mod text;
mod webdataset;

use crate::{
    Error, Result,
    fetch::{is_remote, local_copy},
};
use blobs::BlobWriter;
pub(super) use blobs::{Blobs, blob_extension, cell_key};
pub use pattern::{existing_files, expand_braces};
use serde_json::Value;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};
pub(super) use webdataset::KEY_COLUMN;

/// One row of a table: column → value.
///
/// Encoded files (images as bytes, as base64 or as data URIs) are replaced by a reference, see [`Table`].
pub type Cells = serde_json::Map<String, Value>;

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
    pub rows: Vec<Cells>,
    pub(super) blobs: Option<Arc<Blobs>>,
}

/// Rows and columns as a reader found them.
struct RawTable {
    columns: Vec<String>,
    rows: Vec<Cells>,
}

impl RawTable {
    /// The columns in the order in which they occur.
    fn from_rows(rows: Vec<Cells>) -> Self {
        let mut seen: HashSet<&String> = HashSet::new();
        let columns = rows.iter().flat_map(|r| r.keys()).filter(|k| seen.insert(*k)).cloned().collect();
        Self { columns, rows }
    }
}

impl Table {
    /// Reads all rows of a table: `.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, `.parquet` or `.tar` (a `WebDataset`
    /// shard); text files also compressed as `.gz` or `.zst`, shards as `.gz`. A pattern with braces
    /// ([`expand_braces`]) names several files, whose rows follow one another. A URL is read from a copy
    /// ([`local_copy`]).
    ///
    /// # Errors
    /// Names the file, and the row where there is one: unreadable, of another kind, not valid in the encoding, or
    /// malformed.
    pub fn read(path: &Path, options: &TableOptions<'_>) -> Result<Self> {
        let mut blobs = BlobWriter::new(path);
        let mut raw = match &existing_files(path)?[..] {
            [one] => read_file(one, options, &mut blobs)?,
            files => {
                let mut rows = Vec::new();
                for file in files {
                    rows.extend(read_file(file, options, &mut blobs)?.rows);
                }
                RawTable::from_rows(rows)
            }
        };
        missing::remove(path, &mut raw.rows, options.missing_values);
        let RawTable { columns, rows } = raw;
        Ok(Self { path: path.to_owned(), columns, rows, blobs: blobs.finish() })
    }

    /// Calls `each` with the rows of a table in order, as they are in the file: no text stands for a missing value.
    /// Of `.parquet`, `.jsonl` and `.ndjson` one row is in memory at a time, of other tables all are.
    ///
    /// # Errors
    /// As [`Self::read`], and those of `each`.
    pub fn for_each_row<E: From<Error>>(path: &Path, mut each: impl FnMut(Cells) -> Result<(), E>) -> Result<(), E> {
        let mut blobs = BlobWriter::new(path);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => parquet::for_each_row(path, &mut blobs, each),
            Some("jsonl" | "ndjson") => json::for_each_row(path, &mut blobs, each),
            _ => read_file(path, &TableOptions::default(), &mut blobs)?.rows.into_iter().try_for_each(&mut each),
        }
    }

    /// A table of rows that are in memory; `name` stands for its file in messages.
    pub fn from_rows(name: &str, rows: Vec<Cells>, missing_values: Option<&[String]>) -> Self {
        let path = PathBuf::from(name);
        let mut raw = RawTable::from_rows(rows);
        missing::remove(&path, &mut raw.rows, missing_values);
        Self { path, columns: raw.columns, rows: raw.rows, blobs: None }
    }

    /// Whether a row has this column.
    pub fn has_column(&self, name: &str) -> bool {
        self.columns.iter().any(|c| c == name)
    }

    /// The cells of a column that are not null, of about `max_rows` rows spread over the whole table; of all rows where
    /// few of those have a value.
    pub fn sample<'a>(&'a self, column: &'a str, max_rows: usize) -> Vec<&'a Value> {
        /// With fewer values in the sample, the whole column is searched.
        const MIN_VALUES: usize = 50;
        let cells = |step: usize| {
            self.rows.iter().step_by(step).filter_map(|r| r.get(column)).filter(|v| !v.is_null()).collect::<Vec<_>>()
        };
        let step = (self.rows.len() / max_rows.max(1)).max(1);
        let found = cells(step);
        if step == 1 || found.len() >= MIN_VALUES {
            return found;
        }
        let all = cells(1);
        let step = (all.len() / max_rows.max(1)).max(1);
        all.into_iter().step_by(step).collect()
    }
}

fn read_file(path: &Path, options: &TableOptions<'_>, blobs: &mut BlobWriter<'_>) -> Result<RawTable> {
    if is_remote(path) {
        // The copy has the name of the file.
        let copy = local_copy(path)?;
        return read_file(&copy, options, blobs).map_err(|e| Error::file(path, e));
    }
    match text::kind_of(path).as_str() {
        "parquet" => {
            crate::catching_panics(|| parquet::read(path, blobs)).unwrap_or_else(|e| Err(Error::file(path, e)))
        }
        "jsonl" | "ndjson" | "json" => json::read(path, &text::read(path, options.encoding)?, blobs),
        "csv" => delimited::read(path, &text::read(path, options.encoding)?, b',', blobs),
        "tsv" => delimited::read(path, &text::read(path, options.encoding)?, b'\t', blobs),
        "tar" | "tgz" => webdataset::read(path, blobs),
        other => {
            let expected = ".jsonl, .json, .csv, .tsv, .parquet or .tar (text files also as .gz or .zst)";
            Err(Error::file(path, format!("found the extension `.{other}`, expected {expected}")))
        }
    }
}

/// A cell as text: numbers and booleans as JSON writes them, lists of up to 64 texts, whole numbers or booleans joined
/// by semicolons; `None` for empty cells and other values.
pub fn cell_text(value: &Value) -> Option<String> {
    let is_label = |v: &Value| v.is_string() || v.is_boolean() || v.is_i64() || v.is_u64();
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) if !items.is_empty() && items.len() <= 64 && items.iter().all(is_label) => {
            Some(items.iter().filter_map(cell_text).collect::<Vec<_>>().join(";"))
        }
        _ => None,
    }
}
