//! Search by vectors: exactly, or by a graph whose candidates are looked up and scored by the vectors of the rows.

use super::{
    NamedVector, SqliteStore,
    failure::Failure,
    graph::Graph,
    live_rows::LiveRows,
    loaded_graph::{GraphCache, LoadedGraph},
    read::{absent, is_in, read_vectors},
    schema::vector_table,
    selection::{Narrowed, Selection},
    state::VectorState,
    tail::{CHUNK, Tail, Target, scan},
};
use crate::{
    Method, Quantization, Step,
    score::{Scored, Scorer},
};
use half::f16;
use rayon::prelude::*;
use rusqlite::Connection;
use std::{collections::BinaryHeap, sync::Arc};

/// Candidates that are scored besides those that are wanted, where some are deleted rows.
const SPARE_CANDIDATES: usize = 16;

/// How many times as many candidates as results are scored again.
fn oversampling(quantization: Quantization) -> usize {
    match quantization {
        Quantization::F16 => 2,
        Quantization::I8 => 4,
    }
}

/// What is in memory of a named vector.
#[derive(Default)]
pub(super) struct Caches {
    /// All rows, for exact search.
    pub(super) all: Tail,
    graph: GraphCache,
}

/// That the graph of a state of the store is gone, since there is a newer one.
struct Replaced;

/// The best `k` of scored rows that are there, best first.
fn best_live(
    live: &mut LiveRows<'_>,
    scored: Vec<Scored>,
    target: &Target<'_>,
    k: usize,
) -> Result<Vec<Scored>, Failure> {
    let mut heap = BinaryHeap::from(scored);
    let mut best = Vec::new();
    while best.len() < k {
        let Some(row) = heap.pop() else { break };
        // A selection was made of rows that are there.
        if target.selection.is_some() || live.contains(row.row)? {
            best.push(row);
        } else if is_in(live.connection(), &vector_table(target.vector.number), row.row)? {
            // With a deleted row its vector is gone too.
            return Err(absent(row.row));
        }
    }
    Ok(best)
}

impl SqliteStore {
    /// The `k` best rows for a target, best first.
    pub(super) fn nearest(
        &self,
        live: &mut LiveRows<'_>,
        target: &Target<'_>,
        state: &VectorState,
        k: usize,
    ) -> Result<(Vec<Scored>, Step), Failure> {
        let started = std::time::Instant::now();
        let mut step = Step {
            name: target.vector.name.clone(),
            method: Method::Exact,
            rows: Some(state.rows),
            filtered: target.selection.map(Selection::len),
            scored: 0,
            seconds: 0.0,
            note: None,
        };
        let cache_bytes = self.settings.cache_bytes;
        let (loaded, cache_bytes) = match self.graph_for(target, state, k, &mut step) {
            Ok(loaded) => (loaded, cache_bytes),
            // Later states have a graph again: all rows are not kept in memory for this one.
            Err(Replaced) => (None, 0),
        };
        // Of the selected rows those that have the vector.
        let narrowed = match (&loaded, target.selection) {
            (Some(loaded), Some(selection)) => {
                let fresh = loaded.fresh.row_numbers(live.connection(), target.vector, state, cache_bytes)?;
                Some(selection.narrow(loaded.rows(), &fresh))
            }
            _ => None,
        };
        let selection = narrowed.as_ref().map(|narrowed| &narrowed.rows).or(target.selection);
        let target = &Target { selection, ..*target };
        // Of the selected rows many may lack the vector.
        let least = self.settings.least_filtered(state.rows);
        let is_wide = narrowed.as_ref().is_none_or(|rows| rows.in_graph > 0 && rows.rows.len() >= least);
        let found = match loaded.filter(|_| is_wide) {
            Some(loaded) => self.walk(live, target, (&loaded, narrowed.as_ref()), state, k, &mut step)?,
            None => None,
        };
        let found = match found {
            Some(found) => {
                step.method = Method::Graph;
                found
            }
            None => compare_all(live, target, state, k, cache_bytes, &mut step)?,
        };
        step.seconds = started.elapsed().as_secs_f64();
        Ok((found, step))
    }

    /// The graph, where there is one that may find the rows faster than comparing all of them.
    fn graph_for(
        &self,
        target: &Target<'_>,
        state: &VectorState,
        k: usize,
        step: &mut Step,
    ) -> Result<Option<Arc<LoadedGraph>>, Replaced> {
        let rows = state.rows;
        let is_single = !target.vector.config.multi && target.queries.len() == 1;
        let is_wide = step.filtered.is_none_or(|count| count >= self.settings.least_filtered(rows));
        let Some(record) = &state.graph else {
            if rows >= self.settings.exact_below && !target.vector.config.multi && step.filtered.is_none() {
                step.note = Some("no graph yet; `mm index optimize` builds one".into());
            }
            return Ok(None);
        };
        if !(is_single && is_wide && self.settings.suits_graph(rows, k)) {
            return Ok(None);
        }
        match target.vector.caches.graph.get(record.generation, || self.load_graph(target.vector, record)) {
            Some(Ok(loaded)) => Ok(Some(loaded)),
            Some(Err(reason)) => {
                step.note = Some(format!("{reason}; searched exactly, `mm index optimize` builds the graph again"));
                Ok(None)
            }
            // The state is older than the graph that is in memory.
            None => {
                step.note = Some("a newer graph replaced the one of this search; searched exactly".into());
                Err(Replaced)
            }
        }
    }

    /// Walks the graph, and compares the rows that it lacks. None where the walk ends before it has found enough rows:
    /// the selected ones may lie where no path leads.
    fn walk(
        &self,
        live: &mut LiveRows<'_>,
        target: &Target<'_>,
        (loaded, narrowed): (&LoadedGraph, Option<&Narrowed>),
        state: &VectorState,
        k: usize,
        step: &mut Step,
    ) -> Result<Option<Vec<Scored>>, Failure> {
        let (connection, graph) = (live.connection(), &loaded.graph);
        let fresh = scan(&loaded.fresh, connection, target, state, self.settings.cache_bytes)?;
        step.scored += fresh.len();
        let mut scorer = RowScorer::new(target);
        let available = narrowed.map_or(state.rows, |narrowed| narrowed.rows.len());
        let named = |reason| crate::Error::Graph { vector: target.vector.name.clone(), reason };
        // A selection was made of rows that are there.
        let has_deleted = narrowed.is_none() && graph.len() + fresh.len() != state.rows;
        let expansion = self.settings.filtered_candidates(graph.len(), available);
        let mut wanted = k.saturating_mul(oversampling(loaded.record.quantization));
        wanted = wanted.saturating_add(if has_deleted { SPARE_CANDIDATES } else { 0 });
        loop {
            wanted = wanted.min(graph.len());
            let found = graph.search(&target.queries[0], wanted.max(expansion), narrowed).map_err(named)?;
            let Some(mut candidates) = found else { return Ok(None) };
            let is_complete = candidates.len() < wanted || wanted == graph.len();
            candidates.truncate(wanted);
            let mut scored = Vec::with_capacity(candidates.len());
            for number in &candidates {
                scored.extend(scorer.score(connection, Some(graph), *number)?);
            }
            step.scored += candidates.len();
            let mut best = best_live(live, scored, target, k)?;
            if best.len() >= k || is_complete {
                best.extend(best_live(live, fresh, target, k)?);
                best.sort_unstable_by(|a, b| b.cmp(a));
                best.truncate(k);
                return Ok((best.len() >= k.min(available)).then_some(best));
            }
            // Most of the candidates are deleted rows.
            wanted *= 4;
        }
    }
}

/// Compares every row, or every one that the filter selects. Of what it reads at most `cache_bytes` stay in memory.
fn compare_all(
    live: &mut LiveRows<'_>,
    target: &Target<'_>,
    state: &VectorState,
    k: usize,
    cache_bytes: usize,
    step: &mut Step,
) -> Result<Vec<Scored>, Failure> {
    const FEW: usize = 8;
    let connection = live.connection();
    // Of whatever generation it is: the vector of a number never changes.
    let loaded = target.vector.caches.graph.latest();
    let graph = loaded.as_ref().map(|loaded| &loaded.graph);
    let in_memory = graph.is_some_and(Graph::has_stored_vectors);
    let one_by_one = target.selection.filter(|s| in_memory || s.len() < state.rows / FEW);
    let scored = match one_by_one {
        Some(selection) => score_selected(connection, target, graph, selection)?,
        None => scan(&target.vector.caches.all, connection, target, state, cache_bytes)?,
    };
    step.scored += scored.len();
    best_live(live, scored, target, k)
}

/// Scores the rows that a filter selects: those in the graph by all threads, the others as they are read.
fn score_selected(
    connection: &Connection,
    target: &Target<'_>,
    graph: Option<&Graph>,
    selection: &Selection,
) -> Result<Vec<Scored>, Failure> {
    let mut row_numbers: Vec<i64> = selection.numbers().collect();
    let mut scored = Vec::with_capacity(row_numbers.len());
    if let Some(graph) = graph {
        let score = |chunk: &[i64]| {
            let mut scorer = RowScorer::new(target);
            chunk.iter().map(|number| (*number, scorer.score_in(graph, *number))).collect::<Vec<_>>()
        };
        let all: Vec<_> = row_numbers.par_chunks(CHUNK).flat_map_iter(score).collect();
        row_numbers.clear();
        for (number, found) in all {
            match found {
                Some(found) => scored.push(found),
                None => row_numbers.push(number),
            }
        }
    }
    let mut scorer = RowScorer::new(target);
    for number in row_numbers {
        scored.extend(scorer.score(connection, None, number)?);
    }
    Ok(scored)
}

/// Scores rows one after the other, in the same memory.
pub(super) struct RowScorer<'a> {
    vector: &'a NamedVector,
    scorer: Scorer<'a>,
    values: Vec<f16>,
}

impl<'a> RowScorer<'a> {
    pub(super) fn new(target: &Target<'a>) -> Self {
        Self { vector: target.vector, scorer: target.scorer(), values: Vec::new() }
    }

    /// A row with its score; none where it lacks the vector.
    pub(super) fn score(
        &mut self,
        connection: &Connection,
        graph: Option<&Graph>,
        number: i64,
    ) -> Result<Option<Scored>, Failure> {
        if let Some(scored) = graph.and_then(|graph| self.score_in(graph, number)) {
            return Ok(Some(scored));
        }
        self.values.clear();
        let is_found = read_vectors(connection, self.vector, number, &mut self.values)?;
        Ok(is_found.then(|| self.scored(number)))
    }

    /// The same of a row whose vector a graph holds as it is stored; none for other rows.
    fn score_in(&mut self, graph: &Graph, number: i64) -> Option<Scored> {
        graph.vector(number, &mut self.values).then(|| self.scored(number))
    }

    /// The row whose values were read.
    fn scored(&mut self, number: i64) -> Scored {
        Scored { row: number, score: f64::from(self.scorer.score(&self.values)) }
    }
}
