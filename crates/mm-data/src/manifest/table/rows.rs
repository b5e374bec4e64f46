//! Where the readers of tables put rows.

use super::{Cells, missing::MissingValues};
use mm_core::cells::{Record, RecordPacker};
use std::{collections::HashSet, path::Path};

/// Rows and columns as readers find them; only one row at a time is in memory as a map.
pub(super) struct Rows {
    columns: Vec<String>,
    known: HashSet<String>,
    records: Vec<Record>,
    packer: RecordPacker,
    /// What stands for a missing value; nothing does where rows are passed on as they are.
    missing: Option<MissingValues>,
    /// The split of the rows that follow, where a folder says so.
    split: Option<String>,
}

impl Rows {
    pub(super) fn new(missing: Option<MissingValues>) -> Self {
        let (columns, known, records) = Default::default();
        Self { columns, known, records, packer: RecordPacker::default(), missing, split: None }
    }

    /// Adds a column to those of all rows, which are in the order in which they occur.
    pub(super) fn declare(&mut self, column: &str) {
        if !self.known.contains(column) {
            self.known.insert(column.to_owned());
            self.columns.push(column.to_owned());
        }
    }

    /// Gives the rows that follow, until the next call, the split that they are in, unless they name one themselves.
    pub(super) fn set_split(&mut self, split: Option<String>) {
        self.split = split;
    }

    /// The number of rows so far.
    #[cfg(feature = "arrow")]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn push(&mut self, mut row: Cells) {
        if let Some(split) = &self.split {
            row.entry("split").or_insert_with(|| split.as_str().into());
        }
        row.keys().for_each(|column| self.declare(column));
        if let Some(missing) = &mut self.missing {
            missing.remove(&mut row);
        }
        self.records.push(self.packer.pack(&row));
    }

    /// The columns and the rows of the table `path`; says which texts were read as missing values.
    pub(super) fn finish(self, path: &Path) -> (Vec<String>, Vec<Record>) {
        if let Some(missing) = &self.missing {
            missing.tell(path);
        }
        (self.columns, self.records)
    }
}
