//! Which column of a table is what: given by the config, or inferred from column names and values.

use super::{binding::ColumnBinding, split::SplitConfig};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// Which column is what (`[data.columns]`). What is absent is inferred from column names and values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// Modality → its column. A list in a cell holds several values of one sample, such as captions.
    pub modalities: BTreeMap<String, ColumnBinding>,
    /// The column of unique ids. When absent: the column `id`, else row numbers; row numbers in any case when it is the
    /// empty text.
    pub id: Option<String>,
    /// Rows with the same value in this column show the same item: they match each other in retrieval.
    pub item: Option<String>,
    /// The column of labels.
    pub label: Option<String>,
    /// The column of numbers that orders the rows of an item; the order of the file when absent.
    pub order: Option<String>,
}

/// Checks that every named column is one of those that a table has, and that at least one modality has a column.
pub(super) fn check_columns(path: &Path, of_table: &[String], columns: &Columns, split: &SplitConfig) -> Result<()> {
    let listed = || of_table.join(", ");
    let named = columns
        .modalities
        .values()
        .flat_map(ColumnBinding::columns)
        .chain([&columns.id, &columns.item, &columns.label, &columns.order].into_iter().flatten())
        .chain(&split.column)
        .chain(split.group.iter().flat_map(ColumnBinding::columns));
    for column in named {
        if !of_table.contains(column) {
            return Err(Error::Column { path: path.into(), column: column.clone(), known: listed() });
        }
    }
    if columns.modalities.is_empty() {
        return Err(Error::file(
            path,
            format!(
                "no column looks like text, image, audio or video (columns: {}); choose with --column, or data.columns.modalities in a config",
                listed()
            ),
        ));
    }
    Ok(())
}
