//! The rows that a query looks up: that a row is there is found by reading it, and it is not read again for the answer.

use super::{failure::Failure, read::row_data};
use crate::search::RowData;
use rusqlite::Connection;
use std::collections::HashMap;

/// The rows of one state of the database that were read so far.
pub(super) struct LiveRows<'a> {
    connection: &'a Connection,
    read: HashMap<i64, RowData>,
}

impl<'a> LiveRows<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, read: HashMap::new() }
    }

    pub(super) fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// Whether there is a row of this number.
    pub(super) fn contains(&mut self, number: i64) -> Result<bool, Failure> {
        if self.read.contains_key(&number) {
            return Ok(true);
        }
        let row = row_data(self.connection, number)?;
        let found = row.is_some();
        self.read.extend(row.map(|row| (number, row)));
        Ok(found)
    }

    /// A row by its number, without its vectors; it is read again when it is taken again.
    pub(super) fn take(&mut self, number: i64) -> Result<Option<RowData>, Failure> {
        self.read.remove(&number).map_or_else(|| row_data(self.connection, number), |row| Ok(Some(row)))
    }
}
