//! Texts that stand for a missing value.

use super::Cells;
use crate::notice;
use mm_core::cells::MISSING_VALUES;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Columns that a message lists.
const MAX_LISTED: usize = 5;

/// Replaces the texts that stand for a missing value by null, and counts them.
pub(super) struct MissingValues {
    markers: Vec<String>,
    longest: usize,
    counts: BTreeMap<(String, String), usize>,
}

impl MissingValues {
    /// Those that were given, else [`MISSING_VALUES`]; the empty text is one as well.
    pub(super) fn new(given: Option<&[String]>) -> Self {
        let markers: Vec<String> = match given {
            Some(given) => given.iter().map(|marker| marker.trim().to_owned()).collect(),
            None => MISSING_VALUES.map(ToOwned::to_owned).to_vec(),
        };
        let longest = markers.iter().map(String::len).max().unwrap_or(0);
        Self { markers, longest, counts: BTreeMap::new() }
    }

    pub(super) fn remove(&mut self, row: &mut Cells) {
        for (column, value) in row.iter_mut() {
            let Value::String(text) = value else { continue };
            // A long text without a space at its ends is none of them.
            let trimmed = text.trim();
            if trimmed.len() > self.longest {
                continue;
            }
            if trimmed.is_empty() {
                *value = Value::Null;
            } else if self.markers.iter().any(|marker| marker == trimmed) {
                *self.counts.entry((column.clone(), trimmed.to_owned())).or_default() += 1;
                *value = Value::Null;
            }
        }
    }

    /// Says which were found (empty cells need no word).
    pub(super) fn tell(&self, path: &Path) {
        let counts = &self.counts;
        if counts.is_empty() {
            return;
        }
        let listed = counts.iter().take(MAX_LISTED);
        let listed: Vec<String> =
            listed.map(|((column, text), n)| format!("`{text}` in {column} ({n} times)")).collect();
        let more =
            if counts.len() > MAX_LISTED { format!(" and {} more", counts.len() - MAX_LISTED) } else { String::new() };
        notice::once(format!(
            "{}: read as missing values: {}{more} (--missing-values, data.missing_values in a config)",
            path.display(),
            listed.join(", ")
        ));
    }
}
