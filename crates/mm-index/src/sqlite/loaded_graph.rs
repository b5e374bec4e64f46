//! The graph of a named vector in memory: one thread loads it, while others search with the graph of their own state of
//! the store or wait.

use super::{
    NamedVector, SqliteStore,
    graph::{Graph, GraphResult},
    graph_record::{GraphRecord, graph_record},
    selection::RowSet,
    tail::Tail,
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// A graph in memory and the rows that it lacks.
pub(super) struct LoadedGraph {
    pub(super) record: GraphRecord,
    pub(super) graph: Graph,
    pub(super) fresh: Tail,
    rows: OnceLock<RowSet>,
}

impl LoadedGraph {
    fn new(record: GraphRecord, graph: Graph) -> Self {
        let fresh = Tail::after(record.through);
        Self { record, graph, fresh, rows: OnceLock::new() }
    }

    /// The rows of the graph; deleted ones may be among them. usearch has no list of them: the first call asks it for each
    /// number, by one thread, since a worker of rayon that waits for others would take up a search that waits for this one.
    pub(super) fn rows(&self) -> &RowSet {
        self.rows.get_or_init(|| {
            let mut rows = RowSet::with_capacity(usize::try_from(self.record.through).unwrap_or(0) + 1);
            let row_numbers = (1..=self.record.through).filter(|number| self.graph.contains(*number));
            row_numbers.for_each(|number| rows.insert(number as usize));
            rows
        })
    }
}

/// The latest graph of a named vector, or why it cannot be loaded.
#[derive(Default)]
pub(super) struct GraphCache {
    slot: Mutex<Slot>,
    loaded: Condvar,
}

#[derive(Default)]
struct Slot {
    /// The generation of the graph, and what came of loading it.
    latest: Option<(i64, GraphResult<Arc<LoadedGraph>>)>,
    /// The generation that a thread loads at the moment.
    loading: Option<i64>,
}

/// Ends the loading of a thread, whatever comes of it.
struct Loading<'a>(&'a GraphCache);

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.slot().loading = None;
        self.0.loaded.notify_all();
    }
}

impl GraphCache {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The graph that is in memory, of whatever generation.
    pub(super) fn latest(&self) -> Option<Arc<LoadedGraph>> {
        self.slot().latest.as_ref().and_then(|(_, graph)| graph.clone().ok())
    }

    /// The graph of a generation. `load` is called by one thread at a time; it returns none where the file of the
    /// generation is gone because there is a newer one. None for generations older than the latest.
    pub(super) fn get(
        &self,
        generation: i64,
        load: impl FnOnce() -> Option<GraphResult<LoadedGraph>>,
    ) -> Option<GraphResult<Arc<LoadedGraph>>> {
        let mut slot = self.slot();
        loop {
            match &slot.latest {
                Some((latest, graph)) if *latest == generation => return Some(graph.clone()),
                Some((latest, _)) if *latest > generation => return None,
                _ => {}
            }
            match slot.loading {
                None => break,
                Some(loading) if loading > generation => return None,
                Some(_) => slot = self.loaded.wait(slot).unwrap_or_else(PoisonError::into_inner),
            }
        }
        slot.loading = Some(generation);
        drop(slot);
        let _loading = Loading(self);
        let graph = load()?.map(Arc::new);
        self.slot().latest = Some((generation, graph.clone()));
        Some(graph)
    }
}

impl SqliteStore {
    /// Reads the graph of a record; none where it was deleted since there is a newer one.
    pub(super) fn load_graph(&self, vector: &NamedVector, record: &GraphRecord) -> Option<GraphResult<LoadedGraph>> {
        match record.load(&self.graphs(), vector, self) {
            Ok(graph) => Some(Ok(LoadedGraph::new(record.clone(), graph))),
            Err(reason) => {
                let latest = self.read("reading the record of a graph", |connection| graph_record(connection, vector));
                let is_newer = |latest: GraphRecord| latest.generation > record.generation;
                let is_replaced = latest.is_ok_and(|latest| latest.is_some_and(is_newer));
                (!is_replaced).then_some(Err(reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OptimizeOptions, Quantization, Row, SearchSettings, Store as _, StoreConfig, VectorConfig};
    use std::{sync::mpsc, thread};

    fn graph(generation: i64) -> LoadedGraph {
        let record = GraphRecord {
            generation,
            file: String::new(),
            through: 0,
            count: 0,
            bytes: 0,
            blake3: String::new(),
            quantization: Quantization::F16,
            scale: 1.0,
        };
        let graph = Graph::new(&VectorConfig::cosine(2), &SearchSettings::default(), 1, 1.0).unwrap();
        LoadedGraph::new(record, graph)
    }

    fn load(cache: &GraphCache, generation: i64) -> Option<i64> {
        let found = cache.get(generation, || Some(Ok(graph(generation))))?;
        Some(found.unwrap().record.generation)
    }

    #[test]
    fn searches_of_the_former_graph_do_not_wait_for_the_next_one() {
        let cache = &GraphCache::default();
        assert_eq!(load(cache, 1), Some(1));
        let (started, is_started) = mpsc::channel();
        thread::scope(|scope| {
            // Where an assertion fails, `go_on` is dropped, and the loader ends too.
            let (go_on, may_go_on) = mpsc::channel::<()>();
            let loader = scope.spawn(move || {
                let slowly = || {
                    started.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    Some(Ok(graph(2)))
                };
                cache.get(2, slowly).unwrap().unwrap()
            });
            is_started.recv().unwrap();
            assert_eq!(load(cache, 1), Some(1));
            let waiting = scope.spawn(|| cache.get(2, || panic!("another thread loads it")).unwrap().unwrap());
            assert_eq!(cache.latest().unwrap().record.generation, 1);
            go_on.send(()).unwrap();
            assert!(Arc::ptr_eq(&loader.join().unwrap(), &waiting.join().unwrap()));
        });
        assert_eq!(load(cache, 1), None, "older than the latest");
        assert_eq!(cache.latest().unwrap().record.generation, 2);
    }

    #[test]
    fn a_graph_that_was_deleted_for_a_newer_one_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(folder.path(), &StoreConfig::new("v", VectorConfig::cosine(2))).unwrap();
        store.upsert(&[Row::new("a").with_vector("v", vec![0.6, 0.8])]).unwrap();
        let vector = &store.vectors["v"];
        let optimize = || {
            let options = OptimizeOptions { stop: &false.into(), rebuild: true };
            store.optimize(&options, &mut |_, _, _| {}).unwrap();
            store.read("reading", |connection| graph_record(connection, vector)).unwrap().unwrap()
        };
        let first = optimize();
        let loaded = store.load_graph(vector, &first).unwrap().unwrap();
        assert_eq!((loaded.graph.len(), loaded.rows().ones().collect::<Vec<_>>()), (1, vec![1]));
        let second = optimize();
        assert!(store.load_graph(vector, &first).is_none());
        std::fs::remove_file(store.graphs().join(&second.file)).unwrap();
        assert!(store.load_graph(vector, &second).unwrap().is_err());
    }

    #[test]
    fn failures_are_remembered_unless_the_graph_was_replaced() {
        let cache = GraphCache::default();
        assert!(cache.get(1, || None).is_none());
        assert_eq!(load(&cache, 1), Some(1), "nothing was remembered");
        assert!(cache.get(2, || Some(Err("damaged".into()))).unwrap().is_err());
        assert!(cache.get(2, || panic!("it is known to be damaged")).unwrap().is_err());
        assert!(cache.latest().is_none());
        assert_eq!(load(&cache, 3), Some(3));
        let panicked = thread::scope(|scope| scope.spawn(|| cache.get(4, || panic!("a fault"))).join());
        assert!(panicked.is_err());
        assert_eq!(load(&cache, 4), Some(4), "a loader that failed holds up nobody");
    }
}
