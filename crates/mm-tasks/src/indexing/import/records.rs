//! The rows of files of vectors, one at a time.

use super::super::columns::{field_of, is_own};
#[cfg(feature = "parquet")]
use super::super::parquet::json_columns;
use super::{ImportOptions, source::Part};
use crate::{Error, Result};
use mm_data::{Cells, Table, cell_text};
use mm_index::Payload;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A row of the files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Record {
    pub(super) id: String,
    /// By name, in the order in which they come.
    pub(super) vectors: Vec<(String, Vec<f32>)>,
    /// Vectors that the files say are missing.
    pub(super) missing: usize,
    pub(super) payload: Payload,
    pub(super) text: Option<String>,
    /// Whether it is one of the values of its row, which `mm embed` writes one after the other.
    is_value: bool,
}

/// Columns that may hold the id of a row, where none is named.
const ID_COLUMNS: [&str; 4] = ["id", "key", "image_path", "path"];

/// Columns that may hold the vector of a row.
const VECTOR_COLUMNS: [&str; 3] = ["embedding", "vector", "embeddings"];

/// Columns that may hold the text of a row.
const TEXT_COLUMNS: [&str; 2] = ["text", "caption"];

/// Columns with which `mm embed` says which value a vector is of: the first four always, the others where there are any.
const EMBED_COLUMNS: [&str; 6] = ["id", "row", "modality", "value", "shard", "error"];

/// Calls `each` with the rows of a part. Values of the same row that follow one another are one row.
pub(super) fn for_each_record(
    part: &Part,
    options: &ImportOptions,
    each: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<()> {
    let mut pending: Option<Record> = None;
    let mut add = |record: Record| -> Result<()> {
        match &mut pending {
            Some(before) if before.id == record.id && record.is_value => before.append(record),
            _ => {
                if let Some(complete) = pending.replace(record) {
                    each(complete)?;
                }
            }
        }
        Ok(())
    };
    match part {
        Part::Table(path) => read_table(path, options, &mut add)?,
        Part::Arrays { arrays, rows, prefix, .. } => {
            let mut readers = arrays.iter().map(|(name, path)| ArrayReader::open(name.clone(), path));
            let mut readers = readers.by_ref().collect::<Result<Vec<_>>>()?;
            read_arrays(&mut readers, rows.as_deref(), prefix, options, &mut add)?;
        }
    }
    pending.map_or(Ok(()), each)
}

impl Record {
    /// Joins a further record of the same row.
    fn append(&mut self, further: Self) {
        self.vectors.extend(further.vectors);
        self.missing += further.missing;
        self.payload.extend(further.payload);
        self.text = further.text.or(self.text.take());
    }

    /// What a row of a table says about a row: all but its vectors, and the name of these where the table is one that
    /// `mm embed` writes next to vectors. `number` names it where no column does.
    fn of_cells(mut cells: Cells, number: String, options: &ImportOptions) -> Result<(Self, Option<String>)> {
        let id = match &options.id_column {
            Some(column) => {
                let found = cells.get(column).and_then(cell_text);
                let missing = || Error::invalid(format!("row {number}"), format!("no `{column}`"), "an id in each row");
                Some(found.ok_or_else(missing)?)
            }
            None => match ID_COLUMNS.iter().find(|column| cells.contains_key(**column)) {
                Some(column) => {
                    let found = || format!("no value in its column `{column}`");
                    let expected = "an id in each row; another column may hold them (--id)";
                    let missing = || Error::invalid(format!("row {number}"), found(), expected);
                    Some(cells.get(*column).and_then(cell_text).ok_or_else(missing)?)
                }
                None => None,
            },
        };
        let is_of_embed = EMBED_COLUMNS[..4].iter().all(|column| cells.contains_key(*column));
        let vector_name = cells.get("modality").and_then(cell_text).filter(|_| is_of_embed);
        if is_of_embed {
            EMBED_COLUMNS.iter().for_each(|column| drop(cells.remove(*column)));
        }
        if options.id_column.as_deref().is_none_or(|column| column == "id") {
            cells.remove("id");
        }
        let mut text = TEXT_COLUMNS.iter().filter_map(|column| match cells.get(*column) {
            Some(Value::String(text)) => Some(((*column).to_owned(), text.clone())),
            _ => None,
        });
        let text = text.next().map(|(column, text)| {
            cells.remove(&column);
            text
        });
        // All fields of a row as `mm index export` writes them to JSON lines; next to other columns it is one of these.
        let payload = if cells.keys().all(|column| is_own(column)) { cells.remove("payload") } else { None };
        let payload = match payload {
            Some(Value::Object(fields)) => fields,
            other => {
                cells.extend(other.map(|value| ("payload".to_owned(), value)));
                let present = cells.into_iter().filter(|(_, value)| !value.is_null());
                present.map(|(column, value)| (field_of(&column).to_owned(), value)).collect()
            }
        };
        let (id, is_value) = (id.unwrap_or(number), is_of_embed);
        Ok((Self { id, vectors: Vec::new(), missing: 0, payload, text, is_value }, vector_name))
    }
}

/// Calls `each` with the rows of a table. Columns that a Parquet file marks as JSON have the values that their texts stand
/// for.
fn for_each_row(path: &Path, each: &mut dyn FnMut(Cells) -> Result<()>) -> Result<()> {
    let columns = json_columns(path)?;
    let mut number = 0;
    Table::for_each_row(path, |mut cells| {
        number += 1;
        for column in &columns {
            if let Some(Value::String(text)) = cells.get(column) {
                let expected = format!("the JSON that the type of column `{column}` says");
                let refused = |e| Error::file(path, format!("row {number}: found {text}, expected {expected}: {e}"));
                let value = serde_json::from_str(text).map_err(refused)?;
                cells.insert(column.clone(), value);
            }
        }
        each(cells)
    })
}

/// Without the feature `parquet` such a file is refused when its rows are read.
#[cfg(not(feature = "parquet"))]
fn json_columns(_: &Path) -> Result<Vec<String>> {
    Ok(Vec::new())
}

fn name_of(given: Option<String>, options: &ImportOptions, path: &Path) -> Result<String> {
    given.or_else(|| options.modality.clone()).ok_or_else(|| {
        let found = format!("not given, and {} does not say it", path.display());
        Error::invalid("modality", found, "the name of the vectors, for instance image or text (--modality)")
    })
}

fn read_table(path: &Path, options: &ImportOptions, add: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
    let mut number = 0;
    for_each_row(path, &mut |mut cells| {
        number += 1;
        let at = |reason: String| Error::file(path, format!("row {number}: {reason}"));
        let found = VECTOR_COLUMNS.iter().find_map(|column| Some((*column, cells.remove(*column)?)));
        let Some((column, value)) = found else {
            let expected =
                format!("one of {}, which `mm index export` writes with --modality", VECTOR_COLUMNS.join(", "));
            return Err(at(format!("found no column of vectors, expected {expected}")));
        };
        let (mut record, own) = Record::of_cells(cells, number.to_string(), options)?;
        let name = name_of(own, options, path)?;
        let vectors = vectors(value).ok_or_else(|| at(format!("{column}: expected a list of numbers")))?;
        record.missing += usize::from(vectors.is_empty());
        record.vectors.extend(vectors.into_iter().map(|vector| (name.clone(), vector)));
        add(record)
    })
}

/// The vectors in a cell: none where it is null, several where it is a list of lists.
fn vectors(value: Value) -> Option<Vec<Vec<f32>>> {
    let numbers = |items: Vec<Value>| -> Option<Vec<f32>> {
        items.into_iter().map(|item| item.as_f64().map(|number| number as f32)).collect()
    };
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) if items.first().is_some_and(Value::is_array) => {
            let list = |item: Value| if let Value::Array(items) = item { numbers(items) } else { None };
            items.into_iter().map(list).collect()
        }
        Value::Array(items) => numbers(items).map(|vector| vec![vector]),
        _ => None,
    }
}

fn read_arrays(
    arrays: &mut [ArrayReader],
    rows: Option<&Path>,
    prefix: &str,
    options: &ImportOptions,
    add: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<()> {
    let Some(length) = arrays.first().map(|array| array.rows) else { return Ok(()) };
    if let Some(other) = arrays.iter().find(|array| array.rows != length) {
        let reason = format!("found {} rows, expected {length} as in {}", other.rows, arrays[0].path.display());
        return Err(Error::file(&other.path, reason));
    }
    let mut next = 0;
    let mut add_cells = |cells: Cells| -> Result<()> {
        if next >= length {
            next += 1;
            return Ok(());
        }
        let (mut record, own) = Record::of_cells(cells, format!("{prefix}{}", next + 1), options)?;
        for array in arrays.iter_mut() {
            let name = name_of(array.name.clone().or_else(|| own.clone()), options, &array.path)?;
            match array.row(next)? {
                Some(vector) => record.vectors.push((name, vector)),
                None => record.missing += 1,
            }
        }
        next += 1;
        add(record)
    };
    match rows {
        Some(path) => for_each_row(path, &mut add_cells)?,
        None => (0..length).try_for_each(|_| add_cells(Cells::new()))?,
    }
    match rows {
        Some(path) if next != length => {
            Err(Error::file(path, format!("found {next} rows, expected {length} as in {}", arrays[0].path.display())))
        }
        _ => Ok(()),
    }
}

/// Reads the rows of an array in order, some thousand at a time.
struct ArrayReader {
    name: Option<String>,
    path: PathBuf,
    rows: usize,
    dim: usize,
    /// Rows from `start` on.
    batch: Vec<f32>,
    start: usize,
}

impl ArrayReader {
    /// Rows that are read at once.
    const BATCH: usize = 4096;

    fn open(name: Option<String>, path: &Path) -> Result<Self> {
        let shape = mm_data::npy_shape(path)?;
        let [rows, dim] = shape[..] else {
            return Err(Error::file(path, format!("found shape {shape:?}, expected [rows, dim]")));
        };
        Ok(Self { name, path: path.to_owned(), rows, dim, batch: Vec::new(), start: 0 })
    }

    /// A row; `None` where it is missing, which NaN stands for.
    fn row(&mut self, row: usize) -> Result<Option<Vec<f32>>> {
        let read = self.batch.len() / self.dim.max(1);
        if row < self.start || row >= self.start + read {
            let length = Self::BATCH.min(self.rows - row);
            self.batch = mm_data::read_npy_rows(&self.path, row, length)?.to_vec::<f32>()?;
            self.start = row;
        }
        let from = (row - self.start) * self.dim;
        let vector = &self.batch[from..from + self.dim];
        Ok((!vector.iter().all(|value| value.is_nan())).then(|| vector.to_vec()))
    }
}
