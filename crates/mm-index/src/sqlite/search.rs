//! What the engine offers to queries: one state of the database.

use super::{
    SqliteStore,
    failure::Failure,
    live_rows::LiveRows,
    nearest::RowScorer,
    read::{absent, number_of_id, read_vectors},
    selection::Selection,
    state::State,
    tail::Target,
    text,
};
use crate::{
    Answer, Filter, Query, Step, StoreConfig,
    score::Scored,
    search::{RowData, Searcher, Wanted, answer},
};
use half::f16;
use rusqlite::Connection;
use std::sync::Arc;

/// One state of the database of a store.
struct Snapshot<'a> {
    store: &'a SqliteStore,
    connection: &'a Connection,
    state: &'a mut State,
    live: LiveRows<'a>,
}

impl SqliteStore {
    pub(super) fn answer(&self, connection: &Connection, state: &mut State, query: &Query) -> Result<Answer, Failure> {
        answer(&mut Snapshot { store: self, connection, state, live: LiveRows::new(connection) }, query)
    }
}

impl<'a> Snapshot<'a> {
    fn target<'b>(&self, wanted: Wanted<'b>, selection: Option<&'b Selection>) -> Result<Target<'b>, Failure>
    where
        'a: 'b,
    {
        Ok(Target { vector: self.store.named(wanted.name)?, queries: wanted.queries, selection })
    }
}

impl Searcher for Snapshot<'_> {
    type Failure = Failure;
    type Selection = Arc<Selection>;

    fn config(&self) -> &StoreConfig {
        &self.store.config
    }

    fn select(&mut self, filter: &Filter) -> Result<Arc<Selection>, Failure> {
        self.state.select(self.connection, filter)
    }

    fn nearest(
        &mut self,
        wanted: Wanted<'_>,
        selection: Option<&Arc<Selection>>,
        k: usize,
    ) -> Result<(Vec<Scored>, Step), Failure> {
        let target = self.target(wanted, selection.map(Arc::as_ref))?;
        let state = self.state.vector(self.connection, target.vector)?;
        self.store.nearest(&mut self.live, &target, &state, k)
    }

    fn words(
        &mut self,
        words: &[&str],
        selection: Option<&Arc<Selection>>,
        k: usize,
    ) -> Result<(Vec<Scored>, Option<usize>), Failure> {
        let rows = text::search(self.connection, words, selection.map(Arc::as_ref), k)?;
        Ok((rows, selection.map(|s| s.len())))
    }

    fn score(&mut self, wanted: Wanted<'_>, row_numbers: &[i64]) -> Result<Vec<Scored>, Failure> {
        let target = self.target(wanted, None)?;
        let mut scorer = RowScorer::new(&target);
        let scored = row_numbers.iter().map(|number| scorer.score(self.connection, None, *number));
        scored.filter_map(Result::transpose).collect()
    }

    fn example(&mut self, name: &str, id: &str) -> Result<Option<(i64, Option<Vec<f16>>)>, Failure> {
        let Some(number) = number_of_id(self.connection, id)? else { return Ok(None) };
        let mut stored = Vec::new();
        let has_vector = read_vectors(self.connection, self.store.named(name)?, number, &mut stored)?;
        Ok(Some((number, has_vector.then_some(stored))))
    }

    fn rows(&mut self, row_numbers: &[i64]) -> Result<Vec<RowData>, Failure> {
        row_numbers.iter().map(|number| self.live.take(*number)?.ok_or_else(|| absent(*number))).collect()
    }

    fn damaged(what: String) -> Failure {
        Failure::Damaged(what)
    }
}
