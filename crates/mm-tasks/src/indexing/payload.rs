//! Cells of a table → the payload of a row.

use mm_core::{Modality, Source, cells::NumberFormat};
use mm_data::{Manifest, Row, is_stored_file, source_name};
use mm_index::Payload;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What the cells of a column become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CellType {
    Boolean,
    Number,
    Text,
}

/// How the columns of a data set become fields of payloads.
#[derive(Debug, Default)]
pub(super) struct PayloadColumns {
    types: BTreeMap<String, CellType>,
    /// Columns that are the text of a row, which is stored as such.
    texts: BTreeSet<String>,
    /// Columns with values of any modality.
    values: BTreeSet<String>,
}

impl PayloadColumns {
    pub(super) fn infer(manifest: &Manifest) -> Self {
        let mut columns = Self::infer_cells(manifest.rows.iter().flat_map(|row| row.cells.texts()));
        let text = manifest.columns.modalities.get(Modality::TEXT.name());
        columns.texts.extend(text.into_iter().flat_map(|binding| binding.columns().iter().cloned()));
        let all = manifest.columns.modalities.values();
        columns.values.extend(all.flat_map(|binding| binding.columns().iter().cloned()));
        columns
    }

    /// Numbers are columns whose cells are plain numbers (one of twenty may be something else) without leading zeros,
    /// which are codes.
    pub(super) fn infer_cells<'a>(all: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut columns: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (column, cell) in all {
            columns.entry(column).or_default().push(cell.trim());
        }
        let is_code = |cell: &&str| cell.starts_with('0') && cell[1..].starts_with(|c: char| c.is_ascii_digit());
        let type_of = |cells: &[&str]| {
            if cells.iter().all(|cell| matches!(*cell, "true" | "false")) {
                CellType::Boolean
            } else if !cells.iter().any(is_code)
                && NumberFormat::infer(cells.iter().copied()) == Some(NumberFormat::Plain)
            {
                CellType::Number
            } else {
                CellType::Text
            }
        };
        let types = columns.into_iter().map(|(column, cells)| (column.to_owned(), type_of(&cells))).collect();
        Self { types, ..Self::default() }
    }

    /// Takes further rows into account: a column that is not of the same type in all of them is text.
    pub(super) fn join(&mut self, further: Self) {
        for (column, found) in further.types {
            let known = self.types.entry(column).or_insert(found);
            if *known != found {
                *known = CellType::Text;
            }
        }
    }

    /// The payload of a row: its cells, lists and objects as they are, and the paths of its files by modality.
    pub(super) fn payload(&self, row: &Row) -> Payload {
        let mut payload = Payload::new();
        for column in row.cells.columns().filter(|column| !self.texts.contains(*column)) {
            let nested = row.cells.value(column).filter(|value| value.is_array() || value.is_object());
            let nested = nested.filter(|value| !self.values.contains(column) && !is_stored_file(value));
            let value = nested.or_else(|| row.cells.get(column).map(|cell| self.value(column, cell)));
            payload.extend(value.map(|value| (column.to_owned(), value)));
        }
        for (modality, values) in row.values.iter().filter(|(modality, _)| **modality != Modality::TEXT) {
            let paths: Vec<Value> = values.iter().filter(|v| v.json().is_none()).map(path).collect();
            match <[Value; 1]>::try_from(paths) {
                Ok([path]) => drop(payload.insert(modality.name().to_owned(), path)),
                Err(paths) if paths.is_empty() => {}
                Err(paths) => drop(payload.insert(modality.name().to_owned(), Value::Array(paths))),
            }
        }
        payload
    }

    /// A cell as the value of a field.
    pub(super) fn value(&self, column: &str, cell: &str) -> Value {
        let text = cell.trim();
        let number = || text.parse::<i64>().ok().map(Value::from).or_else(|| text.parse::<f64>().ok().map(Value::from));
        match self.types.get(column) {
            Some(CellType::Boolean) => Value::Bool(text == "true"),
            Some(CellType::Number) => number().filter(|n| !n.is_null()).unwrap_or_else(|| Value::from(cell)),
            _ => Value::from(cell),
        }
    }
}

/// The path of a file, absolute where it exists.
fn path(value: &Source) -> Value {
    match value {
        Source::Path(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Value::from(path.display().to_string())
        }
        other => Value::from(source_name(other)),
    }
}

/// The text of a row, which is searched by words: its texts, one a line.
pub(super) fn text(row: &Row) -> Option<String> {
    let values = row.values.get(&Modality::TEXT)?;
    let text = |value: &Source| match value {
        Source::Text(text) => Some(text.clone()),
        Source::Path(path) => mm_data::decode::read_text(path, None).ok(),
        _ => None,
    };
    let texts: Vec<String> = values.iter().filter_map(text).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_data::ManifestConfig;
    use serde_json::json;

    #[test]
    fn columns_of_numbers_are_numbers_and_codes_stay_texts() {
        let folder = tempfile::tempdir().unwrap();
        let table =
            "id,text,year,zip,seen,size\n1,a red bird,1999,01067,true,1.5\n2,a cat at night,2001,80331,false,x\n";
        std::fs::write(folder.path().join("m.csv"), table).unwrap();
        let config = ManifestConfig { manifest: "m.csv".into(), ..ManifestConfig::default() };
        let manifest = Manifest::open(&config, folder.path()).unwrap();
        let columns = PayloadColumns::infer(&manifest);
        let expected = json!({"id": 1, "year": 1999, "zip": "01067", "seen": true, "size": "1.5"});
        assert_eq!(Value::Object(columns.payload(&manifest.rows[0])), expected);
        assert_eq!(text(&manifest.rows[0]).unwrap(), "a red bird");
    }

    #[test]
    fn lists_and_objects_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let row = json!({"id": "a", "text": ["one", "two"], "image": {"bytes": "iVBORw0KGgo="}, "tags": ["a", "b"],
            "place": {"lat": 48.1, "lon": 11.6}, "lens": [{"mm": 50}], "none": null, "year": 1999});
        std::fs::write(folder.path().join("m.jsonl"), row.to_string()).unwrap();
        let config = ManifestConfig { manifest: "m.jsonl".into(), ..ManifestConfig::default() };
        let manifest = Manifest::open(&config, folder.path()).unwrap();
        let mut payload = PayloadColumns::infer(&manifest).payload(&manifest.rows[0]);
        assert!(payload.remove("image").is_some_and(|image| image.is_string()));
        let expected = json!({"id": "a", "tags": ["a", "b"], "place": {"lat": 48.1, "lon": 11.6}, "lens": [{"mm": 50}], "year": 1999});
        assert_eq!(Value::Object(payload), expected);
    }
}
