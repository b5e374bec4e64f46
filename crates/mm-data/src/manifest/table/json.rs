//! JSON Lines, and JSON files that hold one list of objects.

use super::{
    Cells,
    blobs::{self, BlobWriter},
    json_numbers::{quote_large_integers, without_non_finite},
    rows::Rows,
};
use crate::{Error, Result, notice};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// A row; a key that occurs twice is an error, as one of its values would be lost.
struct UniqueCells(Cells);

impl<'de> Deserialize<'de> for UniqueCells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Cells;
        impl<'de> Visitor<'de> for Cells {
            type Value = UniqueCells;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut cells = super::Cells::new();
                while let Some(key) = map.next_key::<String>()? {
                    if cells.contains_key(&key) {
                        return Err(serde::de::Error::custom(format!("the key `{key}` occurs twice")));
                    }
                    let value = map.next_value()?;
                    cells.insert(key, value);
                }
                Ok(UniqueCells(cells))
            }
        }
        deserializer.deserialize_map(Cells)
    }
}

/// Counts of the numbers that were read as something else.
#[derive(Default)]
struct Replaced {
    /// NaN and infinities, as missing values.
    non_finite: usize,
    /// Integers beyond 64 bits, as texts.
    large: usize,
}

impl Replaced {
    /// Says what was read as something else.
    fn tell(&self, path: &Path) {
        let (Self { non_finite, large }, path) = (self, path.display());
        if *non_finite > 0 {
            notice::once(format!("{path}: {non_finite} times NaN or Infinity, read as missing values"));
        }
        if *large > 0 {
            notice::once(format!("{path}: {large} integers beyond 64 bits, read as text so that no digit is lost"));
        }
    }
}

pub(super) fn read(path: &Path, text: &str, blobs: &mut BlobWriter<'_>, rows: &mut Rows) -> Result<()> {
    let mut replaced = Replaced::default();
    if text.trim_start().starts_with('[') {
        let all: Vec<UniqueCells> = parse(text, &mut replaced)
            .map_err(|e| Error::file(path, format!("not a list of objects, one for each row: {e}")))?;
        for (index, mut row) in all.into_iter().map(|cells| cells.0).enumerate() {
            take_inline_files(path, index, &mut row, blobs)?;
            rows.push(row);
        }
    } else {
        for (index, line) in text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut row = read_line(path, index, line, &mut replaced)?;
            take_inline_files(path, index, &mut row, blobs)?;
            rows.push(row);
        }
    }
    replaced.tell(path);
    Ok(())
}

fn read_line(path: &Path, index: usize, line: &str, replaced: &mut Replaced) -> Result<Cells> {
    let cells: UniqueCells = parse(line, replaced).map_err(|e| Error::Row {
        path: path.into(),
        row: index + 1,
        reason: format!("not a JSON object: {e}"),
    })?;
    Ok(cells.0)
}

/// Calls `each` with the row of each line of a file in UTF-8; one line is in memory.
pub(super) fn for_each_row<E: From<Error>>(
    path: &Path,
    blobs: &mut BlobWriter<'_>,
    mut each: impl FnMut(Cells) -> Result<(), E>,
) -> Result<(), E> {
    let unread = |e: std::io::Error| Error::file(path, format!("cannot be read: {e}"));
    let file = BufReader::new(File::open(path).map_err(unread)?);
    let mut replaced = Replaced::default();
    for (index, line) in file.lines().enumerate() {
        let line = line.map_err(unread)?;
        let line = line.trim_start_matches('\u{feff}');
        if !line.trim().is_empty() {
            let mut row = read_line(path, index, line, &mut replaced)?;
            take_inline_files(path, index, &mut row, blobs)?;
            each(row)?;
        }
    }
    replaced.tell(path);
    Ok(())
}

/// Parses JSON. Integers beyond 64 bits, which Python reads exactly, become texts; where parsing fails, Python's `NaN`,
/// `Infinity` and `-Infinity` become null. Both are counted.
fn parse<T: for<'de> Deserialize<'de>>(text: &str, replaced: &mut Replaced) -> serde_json::Result<T> {
    let (text, large) = quote_large_integers(text);
    let (value, non_finite) = match serde_json::from_str(&text) {
        Ok(value) => (value, 0),
        Err(error) => match without_non_finite(&text) {
            (_, 0) => return Err(error),
            (standard, count) => (serde_json::from_str(&standard).map_err(|_| error)?, count),
        },
    };
    replaced.large += large;
    replaced.non_finite += non_finite;
    Ok(value)
}

/// Moves the encoded files of a row out of its cells.
fn take_inline_files(path: &Path, index: usize, row: &mut Cells, blobs: &mut BlobWriter<'_>) -> Result<()> {
    for (column, value) in row.iter_mut() {
        take_inline(value, blobs).map_err(|reason| Error::Row {
            path: path.into(),
            row: index + 1,
            reason: format!("column `{column}`: {reason}"),
        })?;
    }
    Ok(())
}

/// Moves encoded files (data URIs, base64, `{"bytes": base64}`) out of a cell, also inside a list.
fn take_inline(value: &mut Value, blobs: &mut BlobWriter<'_>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            if let Some(found) = blobs.add_inline(text)? {
                *value = found;
            }
        }
        Value::Array(items) if items.iter().any(|i| i.is_string() || i.is_object()) => {
            items.iter_mut().try_for_each(|item| take_inline(item, blobs))?;
        }
        Value::Object(cells) if cells.contains_key(blobs::KEY) => {
            return Err(format!("the key `{}` is reserved for files inside tables; rename it", blobs::KEY));
        }
        Value::Object(cells) => {
            if let Some(bytes) = cells.get("bytes").and_then(Value::as_str) {
                let name = ["path", "file", "name"].iter().find_map(|k| cells.get(*k)?.as_str());
                *value = blobs.add_base64(bytes, name)?;
            }
        }
        _ => {}
    }
    Ok(())
}
