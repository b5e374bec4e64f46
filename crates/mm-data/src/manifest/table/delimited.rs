//! CSV and TSV, with the separator and the column names that the file has.

use super::{blobs::BlobWriter, rows::Rows, text::TextFile};
use crate::{Error, Result, file_type::modality_of_name, notice};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

/// Rows from which the separator is found.
const SNIFFED_ROWS: usize = 200;

pub(super) fn read(
    path: &Path,
    encoding: Option<&str>,
    default: u8,
    blobs: &mut BlobWriter<'_>,
    rows: &mut Rows<'_>,
) -> Result<()> {
    let delimiter = find_delimiter(path, encoding, default)?;
    if delimiter != default {
        notice::once(format!("{}: columns are separated by {}", path.display(), name_of(delimiter)));
    }
    let mut reader = reader(path, encoding, delimiter)?;
    let bad = |e: csv::Error| match e.kind() {
        // What is wrong with the text.
        csv::ErrorKind::Io(e) => Error::file(path, e.to_string()),
        _ => Error::file(path, format!("{e}; a field that holds the separator {} needs quotes", name_of(delimiter))),
    };
    let columns = column_names(path, reader.headers().map_err(bad)?);
    columns.iter().for_each(|column| rows.declare(column));
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(bad)?;
        let mut row = super::Cells::new();
        for (column, cell) in columns.iter().zip(record.iter()) {
            let inline = blobs.add_inline(cell).map_err(|reason| Error::Row {
                path: path.into(),
                row: index + 1,
                reason: format!("column `{column}`: {reason}"),
            })?;
            row.insert(column.clone(), inline.unwrap_or_else(|| Value::String(cell.to_owned())));
        }
        rows.push(row, blobs)?;
    }
    Ok(())
}

fn reader(path: &Path, encoding: Option<&str>, delimiter: u8) -> Result<csv::Reader<TextFile>> {
    Ok(csv::ReaderBuilder::new().delimiter(delimiter).from_reader(TextFile::open(path, encoding)?))
}

fn name_of(delimiter: u8) -> String {
    if delimiter == b'\t' { "a tab".into() } else { format!("`{}`", delimiter as char) }
}

/// The separator: `default` where it gives several columns and the same number in every row; else the one that does and
/// gives the most columns; else `default`.
fn find_delimiter(path: &Path, encoding: Option<&str>, default: u8) -> Result<u8> {
    let width = |delimiter: u8| -> Result<Option<usize>> {
        let mut reader = reader(path, encoding, delimiter)?;
        let Ok(width) = reader.headers().map(csv::StringRecord::len) else { return Ok(None) };
        Ok((width > 1 && reader.records().take(SNIFFED_ROWS).all(|r| r.is_ok())).then_some(width))
    };
    if width(default)?.is_some() {
        return Ok(default);
    }
    let mut found = (0, default);
    for delimiter in [b',', b';', b'\t', b'|'].into_iter().filter(|d| *d != default) {
        // The last of those that give the most columns.
        if let Some(width) = width(delimiter)?.filter(|width| *width >= found.0) {
            found = (width, delimiter);
        }
    }
    Ok(found.1)
}

/// The column names: without spaces around them; nameless ones and doubled ones as pandas names them (`Unnamed: 0`,
/// `text.1`).
fn column_names(path: &Path, header: &csv::StringRecord) -> Vec<String> {
    let given: HashSet<&str> = header.iter().map(str::trim).collect();
    let mut taken: HashSet<String> = HashSet::new();
    // The last number of each name, so that many equal names take linear time.
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut names = Vec::new();
    for (index, name) in header.iter().map(str::trim).enumerate() {
        let mut unique = if name.is_empty() { format!("Unnamed: {index}") } else { name.to_owned() };
        let mut number = 0;
        while taken.contains(&unique) || (number > 0 && given.contains(unique.as_str())) {
            number = *numbers.entry(name).and_modify(|n| *n += 1).or_insert(1);
            unique = format!("{name}.{number}");
        }
        if number > 0 {
            let path = path.display();
            notice::once(format!(
                "{path}: the column name `{name}` occurs more than once; column {} is `{unique}`",
                index + 1
            ));
        }
        taken.insert(unique.clone());
        names.push(unique);
    }
    let is_value = |name: &&String| modality_of_name(name).is_some();
    if let Some(name) = names.iter().find(is_value) {
        notice::once(format!(
            "{}: the first line holds the column names, and `{name}` looks like a value; add a line of names if it has none",
            path.display()
        ));
    }
    names
}
