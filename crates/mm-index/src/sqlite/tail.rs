//! Vectors in memory that are compared one by one: all of a small store, or those that no graph has yet.

use super::{
    NamedVector, failure::Failure, filter::Selection, read::read_blob, schema::vector_table, state::VectorState,
};
use crate::score::{Scored, Scorer};
use half::f16;
use rayon::prelude::*;
use rusqlite::Connection;
use std::sync::{PoisonError, RwLock};

/// Rows that one task compares.
pub(super) const CHUNK: usize = 2048;

/// Rows of a memory that may be deleted ones, besides as many as there are.
const MAX_DELETED: usize = 10_000;

/// The vectors of the rows with higher numbers than `after`, in the order of their numbers. It may hold rows that were
/// deleted since and rows that a reader does not see yet: whoever uses it looks the rows up.
#[derive(Default)]
pub(super) struct Tail {
    /// The number after which it begins.
    after: i64,
    /// The last number that was read.
    last: i64,
    /// Whether the memory for it is used up: rows after `last` are read each time.
    is_full: bool,
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

impl Tail {
    /// A memory of the rows after a number.
    pub(super) fn after(number: i64) -> Self {
        Self { after: number, last: number, ..Self::default() }
    }

    /// Whether most of it are deleted rows, where `live` rows have the vector.
    fn is_worn(&self, live: usize) -> bool {
        self.rows.len() > 2 * live + MAX_DELETED
    }

    /// Reads the rows that were written since, as far as the memory suffices.
    fn extend(&mut self, connection: &Connection, vector: &NamedVector, cache_bytes: usize) -> Result<(), Failure> {
        read_after(connection, vector, self.last, |number, blob| {
            read_blob(vector, number, blob, &mut self.values)?;
            self.rows.push(number);
            self.ends.push(self.values.len());
            self.last = number;
            self.is_full = self.values.len() * size_of::<f16>() >= cache_bytes;
            Ok(!self.is_full)
        })
    }

    /// Scores the rows in memory.
    fn score(&self, target: &Target<'_>) -> Vec<Scored> {
        let chunks: Vec<usize> = (0..self.rows.len()).step_by(CHUNK).collect();
        let score = |start: &usize| {
            let mut scorer = target.scorer();
            let rows = *start..(*start + CHUNK).min(self.rows.len());
            let begin = |index: usize| if index == 0 { 0 } else { self.ends[index - 1] };
            rows.filter(|index| target.wants(self.rows[*index]))
                .map(|index| {
                    let score = scorer.score(&self.values[begin(index)..self.ends[index]]);
                    Scored { row: self.rows[index], score: f64::from(score) }
                })
                .collect::<Vec<_>>()
        };
        // A worker of rayon that waits for others takes up other work, which would need the lock that it holds.
        if rayon::current_thread_index().is_some() {
            return chunks.iter().flat_map(score).collect();
        }
        chunks.par_iter().flat_map_iter(score).collect()
    }
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

/// Scores the rows of a tail by comparing each; deleted ones may be among them.
pub(super) fn scan(
    tail: &RwLock<Tail>,
    connection: &Connection,
    target: &Target<'_>,
    state: &VectorState,
    cache_bytes: usize,
) -> Result<Vec<Scored>, Failure> {
    let vector = target.vector;
    let (live, newest) = (state.rows, state.newest);
    let is_current = |tail: &Tail| !tail.is_worn(live) && (tail.is_full || tail.last >= newest);
    if !is_current(&tail.read().unwrap_or_else(PoisonError::into_inner)) {
        let mut tail = tail.write().unwrap_or_else(PoisonError::into_inner);
        if tail.is_worn(live) {
            *tail = Tail::after(tail.after);
        }
        tail.extend(connection, vector, cache_bytes)?;
    }
    let tail = tail.read().unwrap_or_else(PoisonError::into_inner);
    let mut scored = tail.score(target);
    if tail.is_full && tail.last < newest {
        let (mut scorer, mut values) = (target.scorer(), Vec::new());
        read_after(connection, vector, tail.last, |number, blob| {
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
