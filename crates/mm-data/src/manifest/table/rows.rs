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
}

impl Rows {
    pub(super) fn new(missing: Option<MissingValues>) -> Self {
        let (columns, known, records) = Default::default();
        Self { columns, known, records, packer: RecordPacker::default(), missing }
    }

    /// Adds a column to those of all rows, which are in the order in which they occur.
    pub(super) fn declare(&mut self, column: &str) {
        if !self.known.contains(column) {
            self.known.insert(column.to_owned());
            self.columns.push(column.to_owned());
        }
    }

    pub(super) fn push(&mut self, mut row: Cells) {
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
