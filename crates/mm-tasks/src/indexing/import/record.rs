//! A row of the files, and what the columns of a table are to it.

use super::{super::columns::Layout, ImportOptions};
use crate::{Error, Result};
use mm_data::{Cells, cell_text};
use mm_index::Payload;
use serde_json::Value;
use std::path::Path;

/// A row of the files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Record {
    pub(super) id: String,
    /// Whether the id is its number, since no column holds one.
    pub(super) is_numbered: bool,
    /// By name, in the order in which they come.
    pub(super) vectors: Vec<(String, Vec<f32>)>,
    /// Vectors that the files state are missing.
    pub(super) missing: usize,
    pub(super) payload: Payload,
    /// Whether the fields have the types that they had in a store: texts of digits are texts.
    pub(super) is_typed: bool,
    pub(super) text: Option<String>,
    /// Whether it is one of the values of its row, which `mm embed` writes one after the other.
    pub(super) is_value: bool,
}

/// Where a row is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The table, or the array where no table describes it.
    pub(super) path: &'a Path,
    /// What ids of rows begin with that no column names.
    pub(super) prefix: &'a str,
    /// From 1 on.
    pub(super) number: usize,
}

/// Columns that may hold the id of a row, where none is named.
const ID_COLUMNS: [&str; 4] = ["id", "key", "image_path", "path"];

/// Columns that may hold the text of a row; a field may have the name of one where the row has an earlier one.
const TEXT_COLUMNS: [&str; 2] = ["text", "caption"];

/// Columns with which `mm embed` names the value of a vector: the first four always, the others where there are any.
const EMBED_COLUMNS: [&str; 6] = ["id", "row", "modality", "value", "shard", "error"];

/// What `mm index export` adds to these for the first value of a row.
const EXPORT_COLUMNS: [&str; 2] = ["text", "payload"];

impl Place<'_> {
    fn error(&self, found: &str, expected: &str) -> Error {
        Error::file(self.path, format!("row {}: found {found}, expected {expected}", self.number))
    }
}

impl Record {
    /// Joins a further record of the same row.
    pub(super) fn append(&mut self, further: Self) {
        self.vectors.extend(further.vectors);
        self.missing += further.missing;
        self.payload.extend(further.payload);
        self.is_typed |= further.is_typed;
        self.text = further.text.or(self.text.take());
    }

    /// What a row of a table holds of a row: all but its vectors, and the name of these where the table is one that
    /// `mm embed` writes next to vectors.
    pub(super) fn of_cells(
        mut cells: Cells,
        layout: Option<Layout>,
        place: Place<'_>,
        options: &ImportOptions,
    ) -> Result<(Self, Option<String>)> {
        let id = id(&cells, place, options)?;
        let is_value = layout.is_none() && is_of_embed(&cells);
        let vector_name = cells.get("modality").and_then(cell_text).filter(|_| is_value);
        if is_value {
            EMBED_COLUMNS.iter().for_each(|column| drop(cells.remove(*column)));
        }
        if options.id_column.as_deref().is_none_or(|column| column == "id") {
            cells.remove("id");
        }
        let text = take_text(&mut cells, layout);
        let (payload, is_typed) = match layout {
            Some(layout) => {
                cells.retain(|column, _| !layout.is_own(column));
                (fields(cells, layout), true)
            }
            None => take_payload(cells),
        };
        let is_numbered = id.is_none();
        let id = id.unwrap_or_else(|| format!("{}{}", place.prefix, place.number));
        Ok((Self { id, is_numbered, payload, is_typed, text, is_value, ..Self::default() }, vector_name))
    }
}

/// The id that a column holds; none where the table has no column of ids.
fn id(cells: &Cells, place: Place<'_>, options: &ImportOptions) -> Result<Option<String>> {
    if let Some(column) = &options.id_column {
        let found = cells.get(column).and_then(cell_text);
        return found.map(Some).ok_or_else(|| place.error(&format!("no `{column}`"), "an id in each row"));
    }
    let Some(column) = ID_COLUMNS.into_iter().find(|column| cells.contains_key(*column)) else { return Ok(None) };
    let expected = "an id in each row; another column may hold them (--id)";
    let missing = || place.error(&format!("no value in its column `{column}`"), expected);
    cells.get(column).and_then(cell_text).map(Some).ok_or_else(missing)
}

/// Whether cells are those of a value that `mm embed` writes. A table of another program may have columns of the same
/// names, with values of other types or further columns.
fn is_of_embed(cells: &Cells) -> bool {
    let has = |column: &str, is_valid: fn(&Value) -> bool| cells.get(column).is_some_and(is_valid);
    let is_exported = has("payload", Value::is_object);
    let is_known = |column: &str| EMBED_COLUMNS.contains(&column) || (is_exported && EXPORT_COLUMNS.contains(&column));
    has("id", Value::is_string)
        && has("row", |row| row.as_u64().is_some_and(|row| row > 0))
        && has("modality", Value::is_string)
        && has("value", |value| value.is_null() || value.is_u64())
        && cells.keys().all(|column| is_known(column))
}

/// The text of a row: that of the first column that may hold it. Where that is empty, a later one is a field.
fn take_text(cells: &mut Cells, layout: Option<Layout>) -> Option<String> {
    let is_text = |column: &&str| matches!(cells.get(*column), Some(Value::String(_) | Value::Null));
    let column = match layout {
        Some(layout) => Some(layout.text()).filter(is_text),
        None => TEXT_COLUMNS.into_iter().find(is_text),
    }?;
    match cells.remove(column) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// The fields of a table without a layout, and whether they have the types of a store: all of them are in `payload` as
/// `mm index export` writes them to JSON lines, unless that is next to other columns and one of these.
fn take_payload(mut cells: Cells) -> (Payload, bool) {
    let payload = if cells.keys().all(|column| Layout::Rows.is_own(column)) { cells.remove("payload") } else { None };
    match payload {
        Some(Value::Object(fields)) => (fields, true),
        other => {
            cells.extend(other.map(|value| ("payload".to_owned(), value)));
            (fields(cells, Layout::Rows), false)
        }
    }
}

/// The fields of columns that have a value.
fn fields(cells: Cells, layout: Layout) -> Payload {
    let present = cells.into_iter().filter(|(_, value)| !value.is_null());
    present.map(|(column, value)| (layout.field_of(&column).to_owned(), value)).collect()
}
