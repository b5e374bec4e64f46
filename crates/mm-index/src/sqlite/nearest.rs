//! Search by vectors: exactly, or by a graph whose candidates are looked up and scored by the vectors of the rows.

use super::{
    NamedVector, SqliteStore,
    failure::Failure,
    filter::Selection,
    graph::Graph,
    graph_record::{GraphRecord, graph_record},
    live_rows::LiveRows,
    read::read_vectors,
    stats::count,
    tail::{Tail, Target, scan},
};
use crate::{
    Method, Quantization, Step,
    score::{Scored, Scorer},
};
use half::f16;
use rusqlite::Connection;
use std::{
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// Candidates that a graph is asked for, besides as many as are wanted: some are deleted rows.
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
        k: usize,
    ) -> Result<(Vec<Scored>, Step), Failure> {
        let connection = live.connection();
        let started = std::time::Instant::now();
        let rows = count(connection, target.vector)?;
        let filtered = target.selection.map(|s| s.count_ones(..));
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
            && let Some(record) = graph_record(connection, target.vector)?
        {
            let loaded = self.loaded_graph(target.vector, record);
            match &loaded.graph {
                Ok(graph) => {
                    step.method = Method::Graph;
                    found = self.walk(live, target, (&loaded, graph), rows, k, &mut step)?;
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
            self.compare_all(live, target, rows, k, &mut step)?
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
    fn loaded_graph(&self, vector: &NamedVector, record: GraphRecord) -> Arc<LoadedGraph> {
        let mut slot = vector.caches.graph.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = slot.as_ref().filter(|loaded| loaded.record.generation == record.generation) {
            return Arc::clone(loaded);
        }
        let graph = record.load(&self.graphs(), vector, self);
        let fresh = RwLock::new(Tail::after(record.through));
        let loaded = Arc::new(LoadedGraph { record, graph, fresh });
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
        rows: usize,
        k: usize,
        step: &mut Step,
    ) -> Result<Option<Vec<Scored>>, Failure> {
        let connection = live.connection();
        let fresh = scan(&loaded.fresh, connection, target, rows, self.settings.cache_bytes)?;
        step.scored += fresh.len();
        let mut scorer = RowScorer::new(target);
        let available = target.selection.map_or(rows, |selection| selection.count_ones(..));
        let named = |reason| crate::Error::Graph { vector: target.vector.name.clone(), reason };
        let mut wanted = k.saturating_mul(oversampling(loaded.record.quantization)).saturating_add(SPARE_CANDIDATES);
        loop {
            wanted = wanted.min(graph.len());
            let candidates = graph.search(&target.queries[0], wanted, target.selection).map_err(named)?;
            let mut scored = Vec::with_capacity(candidates.len());
            for number in &candidates {
                scored.extend(scorer.score(connection, Some(graph), *number)?);
            }
            step.scored += candidates.len();
            let mut best = best_live(live, scored, target.selection, k)?;
            let is_complete = candidates.len() < wanted || wanted == graph.len();
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
        rows: usize,
        k: usize,
        step: &mut Step,
    ) -> Result<Vec<Scored>, Failure> {
        const FEW: usize = 8;
        let connection = live.connection();
        let few = target.selection.filter(|selection| selection.count_ones(..) < rows / FEW);
        let scored = match few {
            Some(selection) => {
                let slot = target.vector.caches.graph.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let graph = slot.as_ref().and_then(|loaded| loaded.graph.as_ref().ok());
                let row_numbers = selection.ones().filter_map(|number| i64::try_from(number).ok());
                let mut scorer = RowScorer::new(target);
                let scored = row_numbers.map(|number| scorer.score(connection, graph, number));
                scored.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?
            }
            None => scan(&target.vector.caches.all, connection, target, rows, self.settings.cache_bytes)?,
        };
        step.scored += scored.len();
        best_live(live, scored, target.selection, k)
    }
}

/// Scores rows one after the other, in the same memory.
pub(super) struct RowScorer<'a> {
    vector: &'a NamedVector,
    scorer: Scorer<'a>,
    values: Vec<f16>,
    bits: Vec<i16>,
}

impl<'a> RowScorer<'a> {
    pub(super) fn new(target: &Target<'a>) -> Self {
        Self { vector: target.vector, scorer: target.scorer(), values: Vec::new(), bits: Vec::new() }
    }

    /// A row with its score; none where it lacks the vector.
    pub(super) fn score(
        &mut self,
        connection: &Connection,
        graph: Option<&Graph>,
        number: i64,
    ) -> Result<Option<Scored>, Failure> {
        self.values.clear();
        let in_memory = graph.is_some_and(|graph| graph.vector(number, &mut self.bits, &mut self.values));
        if !in_memory && !read_vectors(connection, self.vector, number, &mut self.values)? {
            return Ok(None);
        }
        Ok(Some(Scored { row: number, score: f64::from(self.scorer.score(&self.values)) }))
    }
}
