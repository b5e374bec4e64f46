//! Tables: JSON Lines, CSV, TSV and Parquet.

use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// One row of a table: column → value.
pub type Cells = serde_json::Map<String, Value>;

/// Reads all rows of a table: `.jsonl`, `.ndjson`, `.csv`, `.tsv` or `.parquet`. `encoding` is a WHATWG label; UTF-8
/// when absent.
///
/// # Errors
/// Names the file, and the row where there is one: unreadable, of another kind, not valid in the encoding, or
/// malformed.
pub fn read_table(path: &Path, encoding: Option<&str>) -> Result<Vec<Cells>> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    if extension == "parquet" {
        return crate::catching_panics(|| read_parquet(path)).unwrap_or_else(|e| Err(Error::file(path, e)));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let text = crate::decode::text_from_bytes(&bytes, encoding)
        .map_err(|e| Error::file(path, format!("{e}; set data.encoding to the file's encoding")))?;
    match extension.as_str() {
        "jsonl" | "ndjson" => read_json_lines(path, &text),
        "csv" => read_delimited(path, &text, b','),
        "tsv" => read_delimited(path, &text, b'\t'),
        other => {
            Err(Error::file(path, format!("found the extension `.{other}`, expected .jsonl, .csv, .tsv or .parquet")))
        }
    }
}

fn read_json_lines(path: &Path, text: &str) -> Result<Vec<Cells>> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|e| Error::Row {
                path: path.into(),
                row: index + 1,
                reason: format!("not a JSON object: {e}"),
            })
        })
        .collect()
}

fn read_delimited(path: &Path, text: &str, delimiter: u8) -> Result<Vec<Cells>> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
    let bad = |e: csv::Error| Error::file(path, e);
    let header = reader.headers().map_err(bad)?.clone();
    reader
        .records()
        .map(|record| {
            let record = record.map_err(bad)?;
            let cells = header.iter().zip(record.iter());
            Ok(cells.map(|(k, v)| (k.to_owned(), Value::String(v.to_owned()))).collect())
        })
        .collect()
}

#[cfg(feature = "parquet")]
fn read_parquet(path: &Path) -> Result<Vec<Cells>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let bad = |e: parquet::errors::ParquetError| Error::file(path, format!("not a complete Parquet file: {e}"));
    let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let reader = SerializedFileReader::new(file).map_err(bad)?;
    let rows = reader.get_row_iter(None).map_err(bad)?;
    rows.map(|row| match row.map_err(bad)?.to_json_value() {
        Value::Object(cells) => Ok(cells),
        _ => Err(Error::file(path, "found a row that is not a record")),
    })
    .collect()
}

#[cfg(not(feature = "parquet"))]
fn read_parquet(path: &Path) -> Result<Vec<Cells>> {
    Err(Error::file(path, "this build does not read Parquet; build mm-data with its `parquet` feature"))
}

/// A cell as text: numbers and booleans as JSON writes them, lists of up to 64 texts joined by semicolons; `None` for
/// empty cells and other values.
pub fn cell_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) if !items.is_empty() && items.len() <= 64 && items.iter().all(Value::is_string) => {
            Some(items.iter().filter_map(cell_text).collect::<Vec<_>>().join(";"))
        }
        _ => None,
    }
}
