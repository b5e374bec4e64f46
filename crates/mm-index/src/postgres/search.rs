//! What the engine offers to queries: one state of the database.

use super::{
    PostgresStore,
    failure::Failure,
    filter::{Selection, select},
    read::{absent, number_of_id, rows_by_number, vectors_by_number},
    text,
};
use crate::{
    Answer, Filter, Query, Step, StoreConfig,
    score::Scored,
    search::{RowData, Searcher, Wanted, answer},
};
use half::f16;
use postgres::Transaction;

/// One state of the database of a store.
struct Snapshot<'a, 'b> {
    store: &'a PostgresStore,
    transaction: &'a mut Transaction<'b>,
}

impl PostgresStore {
    pub(super) fn answer(&self, transaction: &mut Transaction<'_>, query: &Query) -> Result<Answer, Failure> {
        answer(&mut Snapshot { store: self, transaction }, query)
    }
}

impl Searcher for Snapshot<'_, '_> {
    type Failure = Failure;
    type Selection = Selection;

    fn config(&self) -> &StoreConfig {
        &self.store.config
    }

    fn select(&mut self, filter: &Filter) -> Result<Selection, Failure> {
        select(self.transaction, filter)
    }

    fn nearest(
        &mut self,
        wanted: Wanted<'_>,
        selection: Option<&Selection>,
        k: usize,
    ) -> Result<(Vec<Scored>, Step), Failure> {
        self.store.nearest(self.transaction, wanted, selection, k)
    }

    fn words(
        &mut self,
        words: &[&str],
        selection: Option<&Selection>,
        k: usize,
    ) -> Result<(Vec<Scored>, Option<usize>), Failure> {
        // The rows that a filter selects are not counted: only those with a word are compared with it.
        Ok((text::search(self.transaction, words, selection, k)?, None))
    }

    fn score(&mut self, wanted: Wanted<'_>, row_numbers: &[i64]) -> Result<Vec<Scored>, Failure> {
        self.store.score(self.transaction, wanted, row_numbers)
    }

    fn example(&mut self, name: &str, id: &str) -> Result<Option<(i64, Option<Vec<f16>>)>, Failure> {
        let vector = self.store.named(name)?;
        let Some(number) = number_of_id(self.transaction, id)? else { return Ok(None) };
        let stored = vectors_by_number(self.transaction, vector, &[number])?;
        Ok(Some((number, stored.into_iter().next().map(|(_, values)| values))))
    }

    fn rows(&mut self, row_numbers: &[i64]) -> Result<Vec<RowData>, Failure> {
        let mut rows = rows_by_number(self.transaction, row_numbers)?;
        row_numbers.iter().map(|number| rows.remove(number).ok_or_else(|| absent(*number))).collect()
    }

    fn damaged(what: String) -> Failure {
        Failure::Damaged(what)
    }
}
