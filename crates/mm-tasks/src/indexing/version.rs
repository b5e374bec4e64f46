//! The version of a row: what its vectors were computed from, as a text that is stored with it.

use super::payload::PayloadColumns;
use mm_core::{Modality, Source};
use mm_data::{Row, source_name};
use std::fmt;

/// Hexadecimal digits of each part.
const DIGITS: usize = 16;

/// What follows a version of which a value could not be embedded: it is tried again.
const INCOMPLETE: &str = ":incomplete";

/// The data set, the values and the cells of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    source: String,
    values: String,
    cells: String,
    incomplete: bool,
}

/// What differs between two versions of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// The payload or the text.
    Cells,
    /// What is embedded.
    Values,
}

impl Version {
    /// The version of a row as it is now. Files count by path, size and time of change.
    pub(super) fn of(source: &str, row: &Row, modalities: &[Modality], columns: &PayloadColumns) -> Self {
        let mut values = blake3::Hasher::new();
        modalities.iter().for_each(|modality| add_values(&mut values, modality, row));
        let mut cells = blake3::Hasher::new();
        cells.update(serde_json::Value::Object(columns.payload(row)).to_string().as_bytes());
        cells.update(super::payload::text(row).unwrap_or_default().as_bytes());
        Self { source: source.to_owned(), values: digits(&values), cells: digits(&cells), incomplete: false }
    }

    /// The same, of a row that lacks a vector.
    pub(super) fn incomplete(self) -> Self {
        Self { incomplete: true, ..self }
    }

    /// Whether a stored version is of a row of this data set.
    pub(super) fn is_of(version: &str, source: &str) -> bool {
        version.strip_prefix(source).is_some_and(|rest| rest.starts_with(':'))
    }

    /// What differs from the stored version, if a row with one is stored.
    pub(super) fn change(&self, stored: Option<&str>) -> Change {
        let Some(stored) = stored else { return Change::Values };
        let mut parts = stored.splitn(3, ':').skip(1);
        match (parts.next(), parts.next()) {
            (Some(values), Some(cells)) if values == self.values => {
                if cells == self.cells {
                    Change::None
                } else if cells.ends_with(INCOMPLETE) {
                    Change::Values
                } else {
                    Change::Cells
                }
            }
            _ => Change::Values,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}{}", self.source, self.values, self.cells, if self.incomplete { INCOMPLETE } else { "" })
    }
}

fn digits(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..DIGITS].to_owned()
}

/// Identifies a data set by its path.
pub(super) fn source_key(path: &std::path::Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.as_os_str().as_encoded_bytes());
    digits(&hasher)
}

/// Adds what the values of a modality are: files by path, size and time of change.
pub(crate) fn add_values(hasher: &mut blake3::Hasher, modality: &Modality, row: &Row) {
    hasher.update(modality.name().as_bytes());
    for value in row.values.get(modality).into_iter().flatten() {
        hasher.update(b"\0");
        add_value(hasher, value);
    }
}

fn add_value(hasher: &mut blake3::Hasher, value: &Source) {
    match value {
        Source::Text(text) => hasher.update(text.as_bytes()),
        Source::Bytes(file) => hasher.update(file.digest()),
        Source::Path(path) => {
            hasher.update(path.as_os_str().as_encoded_bytes());
            // A file that is not there fails when it is read.
            if let Ok(metadata) = std::fs::metadata(path) {
                hasher.update(&metadata.len().to_le_bytes());
                let time = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
                hasher.update(&time.unwrap_or_default().as_nanos().to_le_bytes());
            }
            hasher
        }
        other => hasher.update(source_name(other).as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(values: &str, cells: &str) -> Version {
        Version { source: "s".into(), values: values.into(), cells: cells.into(), incomplete: false }
    }

    #[test]
    fn versions_tell_what_changed() {
        let now = version("v", "c");
        let change = |stored: &Version| now.change(Some(&stored.to_string()));
        assert_eq!(change(&now), Change::None);
        assert_eq!(change(&version("v", "d")), Change::Cells);
        assert_eq!(change(&version("w", "c")), Change::Values);
        assert_eq!(change(&now.clone().incomplete()), Change::Values);
        assert_eq!(now.change(None), Change::Values);
        assert!(Version::is_of(&now.to_string(), "s") && !Version::is_of(&now.to_string(), "t"));
    }
}
