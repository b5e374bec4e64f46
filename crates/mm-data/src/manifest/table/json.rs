//! JSON Lines, and JSON files that hold one list of objects.

use super::{
    Cells, RawTable,
    blobs::{self, BlobWriter},
};
use crate::{Error, Result, notice};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use std::{fmt, path::Path};

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

pub(super) fn read(path: &Path, text: &str, blobs: &mut BlobWriter<'_>) -> Result<RawTable> {
    let mut replaced = 0;
    let mut rows = if text.trim_start().starts_with('[') {
        let all: Vec<UniqueCells> = parse(text, &mut replaced)
            .map_err(|e| Error::file(path, format!("not a list of objects, one for each row: {e}")))?;
        all.into_iter().map(|c| c.0).collect()
    } else {
        read_lines(path, text, &mut replaced)?
    };
    if replaced > 0 {
        notice::once(format!("{}: {replaced} times NaN or Infinity, read as missing values", path.display()));
    }
    for (index, row) in rows.iter_mut().enumerate() {
        for (column, value) in row.iter_mut() {
            take_inline(value, blobs).map_err(|reason| Error::Row {
                path: path.into(),
                row: index + 1,
                reason: format!("column `{column}`: {reason}"),
            })?;
        }
    }
    Ok(RawTable::from_rows(rows))
}

fn read_lines(path: &Path, text: &str, replaced: &mut usize) -> Result<Vec<Cells>> {
    let lines = text.split('\n').enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(index, line)| {
            let cells: UniqueCells = parse(line, replaced).map_err(|e| Error::Row {
                path: path.into(),
                row: index + 1,
                reason: format!("not a JSON object: {e}"),
            })?;
            Ok(cells.0)
        })
        .collect()
}

/// Parses JSON; where that fails, again with null for Python's `NaN`, `Infinity` and `-Infinity`, which are counted.
fn parse<'a, T: for<'de> Deserialize<'de>>(text: &'a str, replaced: &mut usize) -> serde_json::Result<T> {
    serde_json::from_str(text).or_else(|error| {
        let (standard, count) = without_non_finite(text);
        if count == 0 {
            return Err(error);
        }
        let value = serde_json::from_str(&standard).map_err(|_| error)?;
        *replaced += count;
        Ok(value)
    })
}

/// The text with null for numbers that JSON does not have, and how many there were; strings stay as they are.
fn without_non_finite(text: &str) -> (String, usize) {
    let (mut out, mut count, mut rest) = (String::with_capacity(text.len()), 0, text);
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let found = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !in_string && rest.starts_with(w));
        if let Some(word) = found {
            out.push_str("null");
            rest = &rest[word.len()..];
            count += 1;
            continue;
        }
        if in_string && c == '\\' {
            // An escaped character cannot end the string.
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        in_string ^= c == '"';
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    (out, count)
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
