//! What a connection has read of the latest state of the database. It holds until another connection writes.

use super::{
    NamedVector,
    failure::Failure,
    filter,
    graph_record::{GraphRecord, graph_record},
    schema::vector_table,
    selection::Selection,
    stats::count,
};
use crate::Filter;
use rusqlite::{Connection, OptionalExtension as _};
use std::{cmp::Reverse, collections::HashMap, sync::Arc};

/// The number of filters whose rows a connection remembers.
const MAX_FILTERS: usize = 8;
/// Bytes of the rows that it remembers.
const MAX_BYTES: usize = 16 << 20;

/// Which of two states of the rows with a named vector is the later one. The highest number that a row ever had grows with
/// every row that is written; between two states with the same one rows were only deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChangeCounter {
    highest: i64,
    rows: Reverse<usize>,
}

/// What a search by a named vector has to know of the database.
pub(super) struct VectorState {
    pub(super) changes: ChangeCounter,
    /// Number of rows that have the vector.
    pub(super) rows: usize,
    /// The highest number of such a row.
    pub(super) newest: i64,
    pub(super) graph: Option<GraphRecord>,
}

/// What a connection that never writes remembers.
#[derive(Default)]
pub(super) struct State {
    /// State of the database that it was read from, as this connection numbers them.
    version: Option<i64>,
    /// What the latest filters selected; the latest is last.
    selections: Vec<(Filter, Arc<Selection>)>,
    /// By the number of the named vector.
    vectors: HashMap<i64, Arc<VectorState>>,
}

impl State {
    /// Forgets everything if another connection has written.
    fn refresh(&mut self, connection: &Connection) -> Result<(), Failure> {
        // Within a transaction: the state that it reads.
        let version = connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if self.version != Some(version) {
            *self = Self { version: Some(version), ..Self::default() };
        }
        Ok(())
    }

    /// The rows that a filter selects.
    pub(super) fn select(&mut self, connection: &Connection, filter: &Filter) -> Result<Arc<Selection>, Failure> {
        self.refresh(connection)?;
        if let Some(place) = self.selections.iter().position(|(known, _)| known == filter) {
            let known = self.selections.remove(place);
            let selection = Arc::clone(&known.1);
            self.selections.push(known);
            return Ok(selection);
        }
        let selection = filter::select(connection, filter)?;
        let latest = &mut self.selections;
        latest.push((filter.clone(), Arc::clone(&selection)));
        while latest.len() > MAX_FILTERS || latest.iter().map(|(_, s)| s.bytes()).sum::<usize>() > MAX_BYTES {
            latest.remove(0);
        }
        Ok(selection)
    }

    /// What is known of a named vector.
    pub(super) fn vector(
        &mut self,
        connection: &Connection,
        vector: &NamedVector,
    ) -> Result<Arc<VectorState>, Failure> {
        self.refresh(connection)?;
        if let Some(known) = self.vectors.get(&vector.number) {
            return Ok(Arc::clone(known));
        }
        let sql = format!("SELECT coalesce(max(number), 0) FROM {}", vector_table(vector.number));
        let newest = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
        let (rows, graph) = (count(connection, vector)?, graph_record(connection, vector)?);
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'row_data'";
        let highest = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.unwrap_or(0);
        let changes = ChangeCounter { highest, rows: Reverse(rows) };
        let state = Arc::new(VectorState { changes, rows, newest, graph });
        self.vectors.insert(vector.number, Arc::clone(&state));
        Ok(state)
    }
}
