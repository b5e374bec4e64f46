//! Rows of a manifest, from the cells of its table.

use super::{
    Row, RowValues,
    schema::Columns,
    split::{Split, SplitConfig, group_of},
    values::{Files, ValueReader},
};
use crate::{Error, Result};
use mm_core::{
    Modality,
    cells::{Record, RecordPacker},
};
use std::{cell::RefCell, collections::BTreeMap, path::Path};

/// Reads the rows of one file.
pub(super) struct RowReader<'a> {
    pub(super) path: &'a Path,
    pub(super) files: Files<'a>,
    pub(super) columns: &'a Columns,
    pub(super) split: &'a SplitConfig,
    /// The split of all rows, where the file holds one split.
    pub(super) file_split: Option<Split>,
    /// Makes the values of several columns, which share their names.
    pub(super) packer: RefCell<RecordPacker>,
}

impl RowReader<'_> {
    /// The row of this number, from its cells.
    pub(super) fn read(&self, number: usize, cells: Record) -> Result<Row> {
        let columns = self.columns;
        let text = |column: &Option<String>| column.as_ref().and_then(|c| cells.get(c)).map(ToOwned::to_owned);
        let id = match &columns.id {
            Some(column) => text(&columns.id)
                .ok_or_else(|| self.error(number, format!("column `{column}` is empty, expected an id")))?,
            None => number.to_string(),
        };
        let order = match &columns.order {
            Some(column) => text(&columns.order).and_then(|t| t.trim().parse().ok()).ok_or_else(|| {
                let found = text(&columns.order);
                self.error(
                    number,
                    format!("column `{column}`: found {found:?}, expected a number that orders the rows"),
                )
            })?,
            None => number as f64,
        };
        let (mut values, mut languages) = (RowValues::with_capacity(columns.modalities.len()), BTreeMap::new());
        let reader = ValueReader { cells: &cells, files: self.files, row: number, packer: &self.packer };
        for (name, binding) in &columns.modalities {
            let found = reader.read(binding, name);
            if found.is_empty() {
                continue;
            }
            // As large as needed: lists that grow have room for four.
            let mut sources = Vec::with_capacity(found.len());
            let mut stated = Vec::with_capacity(found.len());
            for (source, language) in found {
                sources.push(source);
                stated.push(language);
            }
            values.insert(Modality::from(name.as_str()), sources);
            // Lists without any language are not stored: they would double the memory of a large table.
            if stated.iter().any(Option::is_some) {
                languages.insert(Modality::from(name.as_str()), stated);
            }
        }
        let item = text(&columns.item).unwrap_or_else(|| id.clone());
        Ok(Row {
            split: self.split_of(number, &cells, &item)?,
            order,
            item,
            label: text(&columns.label),
            id,
            number,
            values,
            languages,
            cells,
        })
    }

    /// Rows of a group are in one split; rows of an item as well where there are no groups.
    fn split_of(&self, number: usize, cells: &Record, item: &str) -> Result<Split> {
        let text = |column: &Option<String>| column.as_ref().and_then(|c| cells.get(c));
        let group = self.split.group.as_ref().and_then(|group| group_of(cells, group));
        let group = group.as_deref().unwrap_or(item);
        match (self.file_split, &self.split.column) {
            (Some(split), _) => Ok(split),
            (None, None) => Ok(self.split.by_hash(group)),
            (None, Some(column)) => {
                let name = text(&self.split.column).ok_or_else(|| {
                    self.error(number, format!("column `{column}` is empty, expected train, valid or test"))
                })?;
                match name.parse().map_err(|e: Error| self.error(number, e.to_string()))? {
                    Split::Train => Ok(self.split.hold_out_validation(group)),
                    split => Ok(split),
                }
            }
        }
    }

    pub(super) fn error(&self, row: usize, reason: String) -> Error {
        Error::Row { path: self.path.into(), row, reason }
    }
}
