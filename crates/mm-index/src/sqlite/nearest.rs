//! Search by vectors: exactly, or by a graph whose candidates are looked up and scored by the vectors of the rows.

use super::{
    NamedVector, SqliteStore,
    failure::Failure,
    filter::Selection,
    graph::Graph,
    graph_record::GraphRecord,
    live_rows::LiveRows,
    read::read_vectors,
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
use std::{
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

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
    all: RwLock<Tail>,
    graph: Mutex<Option<Arc<LoadedGraph>>>,
}

/// A graph in memory and the rows that it lacks.
struct LoadedGraph {
    record: GraphRecord,
    graph: Result<Graph, String>,
    fresh: RwLock<Tail>,
}

/// The best `k` of scored rows that are there, best first.
fn best_live(
    live: &mut LiveRows<'_>,
    scored: Vec<Scored>,
    selection: Option<&Selection>,
    k: usize,
) -> Result<Vec<Scored>, Failure> {
    let mut heap = BinaryHeap::from(scored);
    let mut best = Vec::new();
    while best.len() < k {
        let Some(row) = heap.pop() else { break };
        // A selection was made of rows that are there.
        if selection.is_some() || live.contains(row.row)? {
            best.push(row);
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
        let rows = state.rows;
        let filtered = target.selection.map(Selection::len);
        let mut step = Step {
            name: target.vector.name.clone(),
            method: Method::Exact,
            rows: Some(rows),
            filtered,
            scored: 0,
            seconds: 0.0,
            note: None,
        };
        let mut found = None;
        if self.suits_graph(target, rows, filtered, k)
            && let Some(record) = &state.graph
        {
            let loaded = self.loaded_graph(target.vector, record);
            match &loaded.graph {
                Ok(graph) => {
                    step.method = Method::Graph;
                    found = self.walk(live, target, (&loaded, graph), state, k, &mut step)?;
                }
                Err(reason) => {
                    step.note = Some(format!("{reason}; searched exactly, `mm index optimize` builds the graph again"));
                }
            }
        } else if rows >= self.settings.exact_below && !target.vector.config.multi && filtered.is_none() {
            step.note = Some("no graph yet; `mm index optimize` builds one".into());
        }
        let found = if let Some(found) = found {
            found
        } else {
            step.method = Method::Exact;
            self.compare_all(live, target, state, k, &mut step)?
        };
        step.seconds = started.elapsed().as_secs_f64();
        Ok((found, step))
    }

    /// Whether a graph finds the rows faster than comparing all of them.
    fn suits_graph(&self, target: &Target<'_>, rows: usize, filtered: Option<usize>, k: usize) -> bool {
        let is_wide = filtered.is_none_or(|count| count >= self.settings.least_filtered(rows));
        !target.vector.config.multi && target.queries.len() == 1 && self.settings.suits_graph(rows, k) && is_wide
    }

    /// The graph of a record, in memory.
    fn loaded_graph(&self, vector: &NamedVector, record: &GraphRecord) -> Arc<LoadedGraph> {
        let mut slot = vector.caches.graph.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = slot.as_ref().filter(|loaded| loaded.record.generation == record.generation) {
            return Arc::clone(loaded);
        }
        let graph = record.load(&self.graphs(), vector, self);
        let fresh = RwLock::new(Tail::after(record.through));
        let loaded = Arc::new(LoadedGraph { record: record.clone(), graph, fresh });
        *slot = Some(Arc::clone(&loaded));
        loaded
    }

    /// Walks the graph, and compares the rows that it lacks. None where the walk ends before it has found enough rows:
    /// the selected ones may lie where no path leads.
    fn walk(
        &self,
        live: &mut LiveRows<'_>,
        target: &Target<'_>,
        (loaded, graph): (&LoadedGraph, &Graph),
        state: &VectorState,
        k: usize,
        step: &mut Step,
    ) -> Result<Option<Vec<Scored>>, Failure> {
        let connection = live.connection();
        let fresh = scan(&loaded.fresh, connection, target, state, self.settings.cache_bytes)?;
        step.scored += fresh.len();
        let rows = state.rows;
        let mut scorer = RowScorer::new(target);
        let available = target.selection.map_or(rows, Selection::len);
        let named = |reason| crate::Error::Graph { vector: target.vector.name.clone(), reason };
        // A selection was made of rows that are there.
        let has_deleted = target.selection.is_none() && graph.len() + fresh.len() != rows;
        let expansion = self.settings.filtered_candidates(graph.len(), available);
        let mut wanted = k.saturating_mul(oversampling(loaded.record.quantization));
        wanted = wanted.saturating_add(if has_deleted { SPARE_CANDIDATES } else { 0 });
        loop {
            wanted = wanted.min(graph.len());
            let found = graph.search(&target.queries[0], wanted.max(expansion), target.selection).map_err(named)?;
            let Some(mut candidates) = found else { return Ok(None) };
            let is_complete = candidates.len() < wanted || wanted == graph.len();
            candidates.truncate(wanted);
            let mut scored = Vec::with_capacity(candidates.len());
            for number in &candidates {
                scored.extend(scorer.score(connection, Some(graph), *number)?);
            }
            step.scored += candidates.len();
            let mut best = best_live(live, scored, target.selection, k)?;
            if best.len() >= k || is_complete {
                best.extend(best_live(live, fresh, target.selection, k)?);
                best.sort_unstable_by(|a, b| b.cmp(a));
                best.truncate(k);
                return Ok((best.len() >= k.min(available)).then_some(best));
            }
            // Most of the candidates are deleted rows.
            wanted *= 4;
        }
    }

    /// Compares every row, or every one that the filter selects.
    fn compare_all(
        &self,
        live: &mut LiveRows<'_>,
        target: &Target<'_>,
        state: &VectorState,
        k: usize,
        step: &mut Step,
    ) -> Result<Vec<Scored>, Failure> {
        const FEW: usize = 8;
        let connection = live.connection();
        let slot = target.vector.caches.graph.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let graph = slot.as_ref().and_then(|loaded| loaded.graph.as_ref().ok());
        let in_memory = graph.is_some_and(Graph::has_stored_vectors);
        let one_by_one = target.selection.filter(|s| in_memory || s.len() < state.rows / FEW);
        let scored = match one_by_one {
            Some(selection) => score_selected(connection, target, graph, selection)?,
            None => scan(&target.vector.caches.all, connection, target, state, self.settings.cache_bytes)?,
        };
        step.scored += scored.len();
        best_live(live, scored, target.selection, k)
    }
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
