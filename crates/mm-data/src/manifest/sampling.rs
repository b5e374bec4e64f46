//! Samples of the cells of each column, from a table in memory or from one that is read in pieces.

use super::{
    infer::MAX_INSPECTED,
    table::{MIN_SAMPLED, Table},
};
use crate::Result;
use mm_core::cells::Record;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A table whose columns are inspected.
pub(super) trait Sampled {
    /// The file.
    fn path(&self) -> &Path;

    /// The columns of all rows.
    fn columns(&self) -> &[String];

    /// Some cells of a column that are not null, as [`Table::sample`] chooses them.
    fn sample(&self, column: &str) -> Vec<Value>;
}

impl Sampled for Table {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn sample(&self, column: &str) -> Vec<Value> {
        Table::sample(self, column, MAX_INSPECTED)
    }
}

/// Calls a function with the tables of all pieces, and the number of rows before each.
type ForEachPiece<'a> = &'a dyn Fn(&mut dyn FnMut(usize, Table)) -> Result<()>;

/// The samples that [`Table::sample`] would take of the whole table.
pub(super) struct PieceSamples {
    path: PathBuf,
    columns: Vec<String>,
    /// The number of rows.
    pub(super) rows: usize,
    /// Rows spread over the whole table.
    sampled: Vec<Record>,
    /// Values of columns that few of these rows have.
    sparse: BTreeMap<String, Vec<Value>>,
}

impl PieceSamples {
    /// Reads the table once for its number of rows and its columns, and up to three times more for the samples unless
    /// nothing is to be inspected.
    pub(super) fn read(path: &Path, has_samples: bool, for_each_piece: ForEachPiece<'_>) -> Result<Self> {
        let (columns, sampled, sparse) = Default::default();
        let mut samples = Self { path: path.to_owned(), columns, rows: 0, sampled, sparse };
        for_each_piece(&mut |_, table| {
            samples.rows += table.rows.len();
            samples.columns = table.columns;
        })?;
        if !has_samples {
            return Ok(samples);
        }
        let step = (samples.rows / MAX_INSPECTED).max(1);
        for_each_piece(&mut |first, table| {
            let chosen = (first..).zip(table.rows).filter(|(index, _)| index % step == 0);
            samples.sampled.extend(chosen.map(|(_, row)| row));
        })?;
        if step > 1 {
            samples.read_sparse(for_each_piece)?;
        }
        Ok(samples)
    }

    /// Searches all rows for the columns that few of the sampled rows have.
    fn read_sparse(&mut self, for_each_piece: ForEachPiece<'_>) -> Result<()> {
        let has_few = |column: &&String| {
            self.sampled.iter().filter(|row| row.has_value(column)).take(MIN_SAMPLED).count() < MIN_SAMPLED
        };
        let columns: Vec<String> = self.columns.iter().filter(has_few).cloned().collect();
        if columns.is_empty() {
            return Ok(());
        }
        let mut filled = vec![0; columns.len()];
        for_each_piece(&mut |_, table| {
            for (column, count) in columns.iter().zip(&mut filled) {
                *count += table.rows.iter().filter(|row| row.has_value(column)).count();
            }
        })?;
        let steps: Vec<usize> = filled.iter().map(|count| (count / MAX_INSPECTED).max(1)).collect();
        let (mut seen, mut values) = (vec![0; columns.len()], vec![Vec::new(); columns.len()]);
        for_each_piece(&mut |_, table| {
            for (at, column) in columns.iter().enumerate() {
                for row in table.rows.iter().filter(|row| row.has_value(column)) {
                    if seen[at] % steps[at] == 0 {
                        values[at].extend(row.value(column));
                    }
                    seen[at] += 1;
                }
            }
        })?;
        self.sparse = columns.into_iter().zip(values).collect();
        Ok(())
    }
}

impl Sampled for PieceSamples {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn sample(&self, column: &str) -> Vec<Value> {
        if let Some(values) = self.sparse.get(column) {
            return values.clone();
        }
        self.sampled.iter().filter(|row| row.has_value(column)).filter_map(|row| row.value(column)).collect()
    }
}
