//! Texts that stand for a missing value.

use super::Cells;
use crate::notice;
use mm_core::cells::MISSING_VALUES;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Columns that a message lists.
const MAX_LISTED: usize = 5;

/// Replaces the texts that stand for a missing value by null, and says which (empty cells need no word).
pub(super) fn remove(path: &Path, rows: &mut [Cells], missing_values: Option<&[String]>) {
    let markers: Vec<&str> = match missing_values {
        Some(given) => given.iter().map(|m| m.trim()).collect(),
        None => MISSING_VALUES.to_vec(),
    };
    let longest = markers.iter().map(|m| m.len()).max().unwrap_or(0);
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in rows {
        for (column, value) in row.iter_mut() {
            let Value::String(text) = value else { continue };
            // A long text without a space at its ends is none of them.
            let trimmed = text.trim();
            if trimmed.len() > longest {
                continue;
            }
            if trimmed.is_empty() {
                *value = Value::Null;
            } else if markers.contains(&trimmed) {
                *counts.entry((column.clone(), trimmed.to_owned())).or_default() += 1;
                *value = Value::Null;
            }
        }
    }
    if counts.is_empty() {
        return;
    }
    let listed = counts.iter().take(MAX_LISTED).map(|((column, text), n)| format!("`{text}` in {column} ({n} times)"));
    let listed = listed.collect::<Vec<_>>().join(", ");
    let more =
        if counts.len() > MAX_LISTED { format!(" and {} more", counts.len() - MAX_LISTED) } else { String::new() };
    notice::once(format!(
        "{}: read as missing values: {listed}{more} (--missing-values, data.missing_values in a config)",
        path.display()
    ));
}
