//! The raw values of a row, from its cells.

use super::{
    binding::ColumnBinding,
    table::{Blobs, cell_text},
};
use crate::{
    fetch::{is_fetchable, is_remote, remote_data_file, remote_file},
    file_type::FILE_EXTENSIONS,
};
use mm_core::{
    Modality, Source,
    cells::{Record, RecordPacker, is_missing},
};
use serde_json::Value;
use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

/// A raw value and its language, where the cell states one.
pub(super) type TaggedSource = (Source, Option<String>);

/// The source of a text that names a file, by its modality.
pub(super) type FileSource<'a> = &'a dyn Fn(&Modality, &str) -> Source;

/// What the texts of cells may name.
#[derive(Clone, Copy)]
pub(super) enum Files<'a> {
    /// The files of a table.
    OfTable {
        /// Relative paths are resolved against it.
        folder: &'a Path,
        /// The encoded files of the table.
        blobs: Option<&'a Blobs>,
        /// Whether files that are named by URL are fetched.
        fetch_urls: bool,
    },
    /// No file of this machine, for rows that somebody sent.
    Given(FileSource<'a>),
}

/// Reads the values of one row.
pub(super) struct ValueReader<'a> {
    pub(super) cells: &'a Record,
    pub(super) files: Files<'a>,
    /// The row in messages.
    pub(super) row: usize,
    pub(super) packer: &'a RefCell<RecordPacker>,
}

impl ValueReader<'_> {
    /// The values of a modality.
    pub(super) fn read(&self, binding: &ColumnBinding, modality: &str) -> Vec<TaggedSource> {
        match binding {
            ColumnBinding::Single(column) => self.read_column(column, modality),
            ColumnBinding::Multiple(columns) => self.read_joined(columns, modality),
        }
    }

    /// The value that several columns form together.
    fn read_joined(&self, columns: &[String], modality: &str) -> Vec<TaggedSource> {
        let is_filled = |column: &&str| self.cells.has_value(column) && !self.cells.get(column).is_some_and(is_missing);
        let mut filled = columns.iter().map(String::as_str).filter(is_filled);
        match modality {
            "text" => {
                let texts: Vec<&str> = filled.filter_map(|column| self.cells.get(column)).collect();
                if texts.is_empty() { Vec::new() } else { vec![(Source::Text(texts.join("\n")), None)] }
            }
            "image" | "audio" | "video" => columns.iter().flat_map(|c| self.read_column(c, modality)).collect(),
            _ => {
                let record = self.packer.borrow_mut().select(self.cells, &mut filled);
                if record.is_empty() { Vec::new() } else { vec![(Source::Record(record), None)] }
            }
        }
    }

    /// The values of a cell: a list holds several.
    fn read_column(&self, column: &str, modality: &str) -> Vec<TaggedSource> {
        let is_file = FILE_EXTENSIONS.iter().any(|(m, _)| *m == modality);
        match &self.cells.value(column) {
            None => Vec::new(),
            Some(Value::Array(items)) if is_file || modality == "text" => {
                items.iter().filter_map(|item| self.read_one(item, column, modality, is_file)).collect()
            }
            Some(value) => self.read_one(value, column, modality, is_file).into_iter().collect(),
        }
    }

    /// One value; `{"file" or "path" or "text" or "url": …, "language": …}` states its language. A text is the text
    /// itself, but with the key `url` the file there. What is no value of the modality is kept, so that reading it
    /// fails and is reported.
    fn read_one(&self, value: &Value, column: &str, modality: &str, is_file: bool) -> Option<TaggedSource> {
        let location = || format!("row {}, {column}", self.row);
        if let Files::OfTable { blobs: Some(blobs), .. } = self.files
            && let Some(file) = blobs.get(value, location)
        {
            return Some((Source::Bytes(file), None));
        }
        let key = ["file", "path", "text", "url"].into_iter().find(|key| value.get(key).is_some());
        let inner = key.and_then(|key| value.get(key));
        let is_file = is_file || (modality == "text" && key == Some("url"));
        let language = inner.and_then(|_| value.get("language")).and_then(Value::as_str).map(ToOwned::to_owned);
        let source = match inner.unwrap_or(value) {
            Value::Null => return None,
            Value::String(text) if text.trim().is_empty() => return None,
            Value::String(text) if is_file || (modality != "text" && self.names_file(text)) => {
                self.files.source(modality, text)
            }
            inner if modality == "text" => cell_text(inner).map_or_else(|| Source::Value(inner.clone()), Source::Text),
            inner => Source::Value(inner.clone()),
        };
        Some((source, language))
    }

    /// Whether the cell of a modality of another crate names a file that exists.
    fn names_file(&self, text: &str) -> bool {
        matches!(self.files, Files::OfTable { folder, .. } if names_file(text, folder))
    }
}

impl Files<'_> {
    /// The file that a text names. A URL that is not to be fetched is kept as a path; reading it fails with the reason.
    fn source(&self, modality: &str, text: &str) -> Source {
        let (folder, fetch_urls) = match self {
            Self::OfTable { folder, fetch_urls, .. } => (folder, *fetch_urls),
            Self::Given(source) => return source(&Modality::from(modality), text),
        };
        let url = text.trim();
        match url.split_once("://") {
            Some(("file", path)) => Source::Path(PathBuf::from(path.strip_prefix("localhost").unwrap_or(path))),
            Some(_) if fetch_urls && is_fetchable(url) => Source::Bytes(remote_file(url)),
            Some(_) if fetch_urls && is_remote(Path::new(url)) => Source::Bytes(remote_data_file(url)),
            Some(_) => Source::Path(PathBuf::from(url)),
            None if is_remote(folder) => Source::Bytes(remote_data_file(&join_url(folder, text))),
            None => Source::Path(folder.join(text)),
        }
    }
}

/// A path relative to the folder of a table that is named by URL.
fn join_url(folder: &Path, text: &str) -> String {
    format!("{}/{}", folder.display(), text.trim().trim_start_matches("./"))
}

/// Whether a text names a file that exists.
fn names_file(text: &str, folder: &Path) -> bool {
    /// Longer than any path.
    const MAX_PATH: usize = 4096;
    let path = text.trim().strip_prefix("file://").unwrap_or(text);
    text.len() <= MAX_PATH && !text.contains(['\n', '\0']) && folder.join(path).is_file()
}
