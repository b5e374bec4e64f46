//! The rows of files of vectors, one at a time.

use super::super::columns::{Layout, StatedColumns};
#[cfg(feature = "parquet")]
use super::super::parquet::stated_columns;
use super::{
    ImportOptions,
    record::{Place, Record},
    source::Part,
};
use crate::{Error, Result};
use mm_data::{Cells, Table};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Columns that may hold the vector of a row.
const VECTOR_COLUMNS: [&str; 3] = ["embedding", "vector", "embeddings"];

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
        Part::Table { path, prefix } => read_table(path, prefix, options, &mut add)?,
        Part::Arrays { arrays, rows, prefix, .. } => {
            let mut readers = arrays.iter().map(|(name, path)| ArrayReader::open(name.clone(), path));
            let mut readers = readers.by_ref().collect::<Result<Vec<_>>>()?;
            read_arrays(&mut readers, rows.as_deref(), prefix, options, &mut add)?;
        }
    }
    pending.map_or(Ok(()), each)
}

/// Calls `each` with the rows of a table, and the layout of its columns where it states one. Columns that a Parquet file
/// marks as JSON have the values that their texts stand for.
fn for_each_row(path: &Path, each: &mut dyn FnMut(Cells, Option<Layout>) -> Result<()>) -> Result<()> {
    let StatedColumns { json, layout } = stated_columns(path)?;
    let mut number = 0;
    Table::for_each_row(path, |mut cells| {
        number += 1;
        for column in &json {
            if let Some(Value::String(text)) = cells.get(column) {
                let expected = format!("JSON, the type of the column `{column}`");
                let refused = |e| Error::file(path, format!("row {number}: found {text}, expected {expected}: {e}"));
                let value = serde_json::from_str(text).map_err(refused)?;
                cells.insert(column.clone(), value);
            }
        }
        each(cells, layout)
    })
}

/// Without the feature `parquet` such a file is refused when its rows are read.
#[cfg(not(feature = "parquet"))]
fn stated_columns(_: &Path) -> Result<StatedColumns> {
    Ok(StatedColumns::default())
}

fn name_of(given: Option<String>, options: &ImportOptions, path: &Path) -> Result<String> {
    given.or_else(|| options.modality.clone()).ok_or_else(|| {
        let found = format!("not given, and {} does not state it", path.display());
        Error::invalid("modality", found, "the name of the vectors, for instance image or text (--modality)")
    })
}

fn read_table(
    path: &Path,
    prefix: &str,
    options: &ImportOptions,
    add: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<()> {
    let mut number = 0;
    for_each_row(path, &mut |mut cells, layout| {
        number += 1;
        let at = |reason: String| Error::file(path, format!("row {number}: {reason}"));
        // Where the layout is stated, other columns of these names are fields.
        let columns = if layout.is_some() { &VECTOR_COLUMNS[..1] } else { &VECTOR_COLUMNS[..] };
        let found = columns.iter().find_map(|column| Some((*column, cells.remove(*column)?)));
        let Some((column, value)) = found else {
            let expected =
                format!("one of {}, which `mm index export` writes with --modality", VECTOR_COLUMNS.join(", "));
            return Err(at(format!("found no column of vectors, expected {expected}")));
        };
        let (mut record, own) = Record::of_cells(cells, layout, Place { path, prefix, number }, options)?;
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
    let path = rows.map_or_else(|| arrays[0].path.clone(), Path::to_owned);
    let mut next = 0;
    let mut add_cells = |cells: Cells, layout: Option<Layout>| -> Result<()> {
        if next >= length {
            next += 1;
            return Ok(());
        }
        let place = Place { path: &path, prefix, number: next + 1 };
        let (mut record, own) = Record::of_cells(cells, layout, place, options)?;
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
        None => (0..length).try_for_each(|_| add_cells(Cells::new(), None))?,
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
