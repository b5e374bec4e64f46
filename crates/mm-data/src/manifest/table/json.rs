//! JSON Lines, and JSON files that hold one list of objects.

use super::{
    Cells,
    blobs::{self, BlobWriter},
    json_numbers::{quote_large_integers, without_non_finite},
    rows::Rows,
    text::TextFile,
};
use crate::{Error, Result, notice};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use std::{
    fmt,
    io::{self, BufRead, Read},
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

pub(super) fn read(path: &Path, encoding: Option<&str>, blobs: &mut BlobWriter<'_>, rows: &mut Rows<'_>) -> Result<()> {
    let mut file = TextFile::open(path, encoding)?;
    // What is wrong with the text.
    let bad = |e: io::Error| Error::file(path, e.to_string());
    let mut replaced = Replaced::default();
    let (mut line, mut is_first) = (String::new(), true);
    for index in 0.. {
        line.clear();
        if file.read_line(&mut line).map_err(bad)? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        if is_first && line.trim_start().starts_with('[') {
            // The blank lines before it count in messages.
            line.insert_str(0, &"\n".repeat(index));
            file.read_to_string(&mut line).map_err(bad)?;
            read_list(path, &line, &mut replaced, blobs, rows)?;
            break;
        }
        is_first = false;
        let mut row = read_line(path, index, line.strip_suffix('\n').unwrap_or(&line), &mut replaced)?;
        take_inline_files(path, index, &mut row, blobs)?;
        rows.push(row, blobs)?;
    }
    replaced.tell(path);
    Ok(())
}

/// Reads a list of all rows, which is in memory as a whole.
fn read_list(
    path: &Path,
    text: &str,
    replaced: &mut Replaced,
    blobs: &mut BlobWriter<'_>,
    rows: &mut Rows<'_>,
) -> Result<()> {
    let all: Vec<UniqueCells> = parse(text, replaced)
        .map_err(|e| Error::file(path, format!("not a list of objects, one for each row: {e}")))?;
    for (index, mut row) in all.into_iter().map(|cells| cells.0).enumerate() {
        take_inline_files(path, index, &mut row, blobs)?;
        rows.push(row, blobs)?;
    }
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
