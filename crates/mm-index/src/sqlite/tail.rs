//! Vectors in memory that are compared one by one: all of a small store, or those that no graph has yet.

use super::{
    NamedVector,
    failure::Failure,
    read::read_blob,
    schema::vector_table,
    selection::Selection,
    state::{ChangeCounter, VectorState},
};
use crate::score::{Scored, Scorer};
use half::f16;
use rayon::prelude::*;
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that one task compares.
pub(super) const CHUNK: usize = 2048;

/// Rows of a memory that may be deleted ones, besides as many as there are.
const MAX_DELETED: usize = 10_000;

/// A segment of fewer rows is copied into the next one.
const SMALL: usize = 4096;

/// The vectors of the rows with higher numbers than `after`, in the order of their numbers. It may hold rows that were
/// deleted since: whoever uses it looks the rows up.
#[derive(Default)]
pub(super) struct Tail {
    /// The number after which it begins.
    after: i64,
    /// What was read, each segment from a later state of the store than the one before it. They are never changed, so
    /// that searches compare them while others read the next one.
    segments: Mutex<Vec<Arc<Segment>>>,
}

/// Rows that were read from one state of the store: without those that were deleted before, which an older state has.
#[derive(Clone)]
struct Segment {
    read_at: ChangeCounter,
    rows: Vec<i64>,
    /// The end of each row's vectors in `values`.
    ends: Vec<usize>,
    values: Vec<f16>,
}

/// What is searched for.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) vector: &'a NamedVector,
    /// Prepared vectors: one, or one for each token.
    pub(super) queries: &'a [Vec<f32>],
    pub(super) selection: Option<&'a Selection>,
}

impl<'a> Target<'a> {
    pub(super) fn scorer(&self) -> Scorer<'a> {
        Scorer::new(self.vector.config.distance, self.vector.config.dim, self.queries)
    }

    fn wants(&self, number: i64) -> bool {
        self.selection.is_none_or(|s| s.contains(number))
    }
}

impl Segment {
    fn bytes(&self) -> usize {
        self.values.len() * size_of::<f16>()
    }

    fn last(&self) -> Option<i64> {
        self.rows.last().copied()
    }

    /// Scores the rows of a chunk.
    fn score(&self, start: usize, target: &Target<'_>) -> Vec<Scored> {
        let mut scorer = target.scorer();
        let rows = start..(start + CHUNK).min(self.rows.len());
        let begin = |index: usize| if index == 0 { 0 } else { self.ends[index - 1] };
        rows.filter(|index| target.wants(self.rows[*index]))
            .map(|index| {
                let score = scorer.score(&self.values[begin(index)..self.ends[index]]);
                Scored { row: self.rows[index], score: f64::from(score) }
            })
            .collect()
    }
}

impl Tail {
    /// A memory of the rows after a number.
    pub(super) fn after(number: i64) -> Self {
        Self { after: number, ..Self::default() }
    }

    /// The segments that a state of the store may use, after the rows that were written since were read, as far as the
    /// memory suffices.
    fn segments(
        &self,
        connection: &Connection,
        vector: &NamedVector,
        state: &VectorState,
        cache_bytes: usize,
    ) -> Result<Vec<Arc<Segment>>, Failure> {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if segments.last().is_none_or(|latest| latest.read_at <= state.changes) {
            let rows: usize = segments.iter().map(|segment| segment.rows.len()).sum();
            if rows > 2 * state.rows + MAX_DELETED {
                segments.clear();
            }
            self.extend(&mut segments, connection, vector, state, cache_bytes)?;
        }
        Ok(segments.iter().take_while(|segment| segment.read_at <= state.changes).cloned().collect())
    }

    /// The numbers of its rows; deleted ones may be among them.
    pub(super) fn row_numbers(
        &self,
        connection: &Connection,
        vector: &NamedVector,
        state: &VectorState,
        cache_bytes: usize,
    ) -> Result<Vec<i64>, Failure> {
        let segments = self.segments(connection, vector, state, cache_bytes)?;
        let mut row_numbers: Vec<i64> = segments.iter().flat_map(|segment| segment.rows.iter().copied()).collect();
        let sql = format!("SELECT number FROM {} WHERE number > ?1", vector_table(vector.number));
        let mut statement = connection.prepare_cached(&sql)?;
        for number in statement.query_map([self.last(&segments)], |row| row.get(0))? {
            row_numbers.push(number?);
        }
        Ok(row_numbers)
    }

    /// The number after which the database has rows that segments lack.
    fn last(&self, segments: &[Arc<Segment>]) -> i64 {
        segments.last().and_then(|segment| segment.last()).unwrap_or(self.after)
    }

    fn extend(
        &self,
        segments: &mut Vec<Arc<Segment>>,
        connection: &Connection,
        vector: &NamedVector,
        state: &VectorState,
        cache_bytes: usize,
    ) -> Result<(), Failure> {
        let bytes: usize = segments.iter().map(|segment| segment.bytes()).sum();
        let last = self.last(segments);
        if last >= state.newest || bytes >= cache_bytes {
            return Ok(());
        }
        let small = segments.last().filter(|segment| segment.rows.len() < SMALL);
        let empty = || Segment { read_at: state.changes, rows: Vec::new(), ends: Vec::new(), values: Vec::new() };
        let mut next = small.map_or_else(empty, |small| Segment { read_at: state.changes, ..Segment::clone(small) });
        let is_copied = small.is_some();
        let bytes = bytes - next.bytes();
        read_after(connection, vector, last, |number, blob| {
            read_blob(vector, number, blob, &mut next.values)?;
            next.rows.push(number);
            next.ends.push(next.values.len());
            Ok(bytes + next.bytes() < cache_bytes)
        })?;
        if is_copied {
            segments.pop();
        }
        segments.push(Arc::new(next));
        Ok(())
    }
}

/// Scores the rows of segments.
fn score(segments: &[Arc<Segment>], target: &Target<'_>) -> Vec<Scored> {
    let chunks = segments.iter().flat_map(|segment| (0..segment.rows.len()).step_by(CHUNK).map(move |n| (segment, n)));
    let chunks: Vec<(&Arc<Segment>, usize)> = chunks.collect();
    let score = |(segment, start): &(&Arc<Segment>, usize)| segment.score(*start, target);
    // The other workers of rayon have searches of their own.
    if rayon::current_thread_index().is_some() {
        return chunks.iter().flat_map(score).collect();
    }
    chunks.par_iter().flat_map_iter(score).collect()
}

/// Calls `each` with the rows of a named vector after a number, in order, until it returns false.
pub(super) fn read_after(
    connection: &Connection,
    vector: &NamedVector,
    after: i64,
    mut each: impl FnMut(i64, &[u8]) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let sql = format!("SELECT number, data FROM {} WHERE number > ?1 ORDER BY number", vector_table(vector.number));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([after])?;
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        let blob = row.get_ref(1)?.as_blob().map_err(|e| Failure::Damaged(e.to_string()))?;
        if !each(number, blob)? {
            break;
        }
    }
    Ok(())
}

/// Scores the rows of a tail by comparing each; deleted ones may be among them. What an older state than the latest one
/// may not take from memory is read from the database.
pub(super) fn scan(
    tail: &Tail,
    connection: &Connection,
    target: &Target<'_>,
    state: &VectorState,
    cache_bytes: usize,
) -> Result<Vec<Scored>, Failure> {
    let vector = target.vector;
    let segments = tail.segments(connection, vector, state, cache_bytes)?;
    let mut scored = score(&segments, target);
    let last = tail.last(&segments);
    if last < state.newest {
        let (mut scorer, mut values) = (target.scorer(), Vec::new());
        read_after(connection, vector, last, |number, blob| {
            if target.wants(number) {
                values.clear();
                read_blob(vector, number, blob, &mut values)?;
                scored.push(Scored { row: number, score: f64::from(scorer.score(&values)) });
            }
            Ok(true)
        })?;
    }
    Ok(scored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Query, Row, SqliteStore, Store as _, StoreConfig, VectorConfig, sqlite::state::State};

    /// The numbers of the rows that a state of the store compares.
    fn scanned(store: &SqliteStore, connection: &Connection, state: &VectorState) -> Vec<i64> {
        let (vector, queries) = (&store.vectors["v"], [vec![1.0, 0.0]]);
        let target = Target { vector, queries: &queries, selection: None };
        let scored = scan(&vector.caches.all, connection, &target, state, usize::MAX).unwrap();
        let mut row_numbers: Vec<i64> = scored.iter().map(|scored| scored.row).collect();
        row_numbers.sort_unstable();
        row_numbers
    }

    #[test]
    fn an_older_state_sees_its_own_rows_after_a_later_one_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(folder.path(), &StoreConfig::new("v", VectorConfig::cosine(2))).unwrap();
        let row = |id: &str| Row::new(id).with_vector("v", vec![0.6, 0.8]);
        let search = || store.query(&Query::nearest("v", vec![1.0, 0.0])).unwrap().hits.len();
        store.upsert(&[row("a"), row("b")]).unwrap();
        // A snapshot begins when it is first read.
        let reader = store.reader().unwrap();
        let snapshot = reader.connection.unchecked_transaction().unwrap();
        let before = State::default().vector(&snapshot, &store.vectors["v"]).unwrap();
        // The memory is first filled by a later state, in which `b` has another number.
        store.upsert(&[row("b"), row("c")]).unwrap();
        assert_eq!(search(), 3);
        assert_eq!(scanned(&store, &snapshot, &before), [1, 2]);
        assert_eq!(search(), 3, "the memory of the later state is as it was");
        // A state that differs by a deletion alone.
        let reader = store.reader().unwrap();
        let snapshot = reader.connection.unchecked_transaction().unwrap();
        let before = State::default().vector(&snapshot, &store.vectors["v"]).unwrap();
        assert_eq!(store.delete(&["a"]).unwrap(), 1);
        store.vectors["v"].caches.all.segments.lock().unwrap().clear();
        assert_eq!(search(), 2);
        assert_eq!(scanned(&store, &snapshot, &before), [1, 3, 4]);
    }
}
