//! Graphs: what they find, with filters, deletions, fresh rows and writers at the same time.
#![allow(missing_docs)]

use mm_index::{
    Answer, Filter, Method, OptimizeOptions, Quantization, Query, Row, SearchSettings, SqliteStore, Store, StoreConfig,
    VectorConfig,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{collections::HashSet, path::Path, sync::atomic::AtomicBool};

const DIM: usize = 16;
const ROWS: usize = 1600;

fn settings() -> SearchSettings {
    SearchSettings { exact_below: 500, exact_filter_rows: 100, ..SearchSettings::default() }
}

/// Vectors around a hundred centers, as those of a real encoder lie.
fn vectors(count: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut centers = StdRng::seed_from_u64(1);
    let centers: Vec<Vec<f32>> =
        (0..100).map(|_| (0..DIM).map(|_| centers.random_range(-1.0..1.0)).collect()).collect();
    let mut random = StdRng::seed_from_u64(seed);
    let mut vector = || {
        let center = &centers[random.random_range(0..centers.len())];
        center.iter().map(|c| c + random.random_range(-0.4..0.4)).collect()
    };
    (0..count).map(|_| vector()).collect()
}

fn rows(count: usize) -> Vec<Row> {
    let row = |(n, values): (usize, Vec<f32>)| {
        Row::new(format!("{n}")).with_vector("v", values).with_field("tenth", n % 10).with_field("half", n % 2)
    };
    vectors(count, 2).into_iter().enumerate().map(row).collect()
}

fn store(folder: &Path, quantization: Quantization, count: usize) -> SqliteStore {
    let config = VectorConfig { quantization, ..VectorConfig::cosine(DIM) };
    let store = SqliteStore::create(folder, &StoreConfig::new("v", config)).unwrap().with_settings(settings());
    store.upsert(&rows(count)).unwrap();
    store
}

fn optimize(store: &SqliteStore) -> mm_index::Optimized {
    let options = OptimizeOptions { stop: &AtomicBool::new(false), rebuild: false };
    store.optimize(&options, &mut |_, _, _| {}).unwrap()
}

fn ids(answer: &Answer) -> HashSet<String> {
    answer.hits.iter().map(|hit| hit.id.clone()).collect()
}

/// The fraction of the ten nearest rows that a graph finds, over thirty queries.
fn recall(store: &SqliteStore, filter: Option<&str>) -> f64 {
    let exact = SqliteStore::open(store.folder()).unwrap();
    let (mut found, mut walked) = (0, 0);
    let queries = vectors(30, 3);
    for query in &queries {
        let mut query = Query::nearest("v", query.clone());
        query.filter = filter.map(|text| Filter::parse(text).unwrap());
        let (ours, truth) = (store.query(&query).unwrap(), exact.query(&query).unwrap());
        assert_eq!((truth.steps[0].method, ours.hits.len()), (Method::Exact, 10));
        walked += usize::from(ours.steps[0].method == Method::Graph);
        found += ids(&ours).intersection(&ids(&truth)).count();
        // What is found has the score that comparing gives.
        for hit in &ours.hits {
            let same = truth.hits.iter().find(|other| other.id == hit.id);
            assert!(same.is_none_or(|other| other.score == hit.score), "{hit:?} {same:?}");
        }
    }
    // By chance few of the rows near a query may meet a filter.
    assert!(walked >= queries.len() - filter.map_or(0, |_| 2), "{walked} queries walked the graph");
    found as f64 / (10 * queries.len()) as f64
}

#[test]
fn graphs_find_the_nearest_rows_with_filters_deletions_and_fresh_rows() {
    for quantization in [Quantization::F16, Quantization::I8] {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), quantization, ROWS);
        let built = optimize(&store);
        assert_eq!((built.graphs[0].rows, built.graphs[0].kept), (ROWS, 0));
        assert!(recall(&store, None) > 0.98, "{quantization:?}");
        assert!(recall(&store, Some("half = 1")) > 0.98, "{quantization:?}");
        assert!(recall(&store, Some("tenth = 3")) > 0.98, "{quantization:?}");
        // Rows that were deleted or replaced are not found; fresh ones are, before and after they are in the graph.
        let deleted: Vec<String> = (0..ROWS / 8).map(|n| format!("{}", n * 2)).collect();
        store.delete(&deleted.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let fresh = vectors(100, 4).into_iter().enumerate();
        store
            .upsert(&fresh.map(|(n, v)| Row::new(format!("{}", n * 2 + 1)).with_vector("v", v)).collect::<Vec<_>>())
            .unwrap();
        assert!(recall(&store, None) > 0.98, "{quantization:?}");
        let extended = optimize(&store);
        assert_eq!((extended.graphs[0].rows, extended.graphs[0].kept), (ROWS + 100, ROWS), "{quantization:?}");
        assert!(recall(&store, None) > 0.98, "{quantization:?}");
        assert_eq!(optimize(&store).graphs, [], "nothing is left to do");
        // Of many deleted rows nothing is kept.
        let deleted: Vec<String> = (0..ROWS / 2).map(|n| format!("{n}")).collect();
        store.delete(&deleted.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let rows = store.stats().unwrap().vectors[0].rows;
        let rebuilt = optimize(&store);
        assert_eq!((rebuilt.graphs[0].rows, rebuilt.graphs[0].kept), (rows, 0), "{quantization:?}");
        assert!(recall(&store, None) > 0.98, "{quantization:?}");
        assert_eq!(std::fs::read_dir(folder.path().join("graphs")).unwrap().count(), 2, "one graph and the lock");
    }
}

#[test]
fn rows_that_a_filter_selects_far_away_are_compared_one_by_one() {
    const CENTERS: usize = 20;
    let mut random = StdRng::seed_from_u64(7);
    let centers: Vec<Vec<f32>> =
        (0..CENTERS).map(|_| (0..DIM).map(|_| random.random_range(-1.0..1.0)).collect()).collect();
    let mut near =
        |center: usize| -> Vec<f32> { centers[center].iter().map(|c| c + random.random_range(-0.2..0.2)).collect() };
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::new("v", VectorConfig::cosine(DIM));
    let store = SqliteStore::create(folder.path(), &config).unwrap().with_settings(settings());
    let rows = (0..ROWS).map(|n| {
        let center = n % CENTERS;
        Row::new(format!("{n}")).with_vector("v", near(center)).with_field("center", center)
    });
    store.upsert(&rows.collect::<Vec<_>>()).unwrap();
    optimize(&store);
    let exact = SqliteStore::open(store.folder()).unwrap();
    for (center, method) in [(1, Method::Graph), (11, Method::Exact), (15, Method::Exact)] {
        let query = Query::nearest("v", near(center)).filter(Filter::parse("center < 4").unwrap());
        let (ours, truth) = (store.query(&query).unwrap(), exact.query(&query).unwrap());
        assert_eq!((ours.steps[0].method, ids(&ours)), (method, ids(&truth)), "center {center}");
    }
}

#[test]
fn a_narrow_filter_is_searched_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), Quantization::F16, ROWS);
    optimize(&store);
    store.upsert(&[Row::new("rare").with_vector("v", vectors(1, 9).remove(0)).with_field("tenth", 77)]).unwrap();
    let query = Query::nearest("v", vectors(1, 5).remove(0)).filter(Filter::parse("tenth = 77").unwrap());
    let answer = store.query(&query).unwrap();
    assert_eq!((answer.steps[0].method, answer.steps[0].filtered, answer.hits.len()), (Method::Exact, Some(1), 1));
}

/// Rows of which some have one named vector and the others another one.
#[test]
fn rows_without_the_vector_do_not_count_as_selected() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::new("image", VectorConfig::cosine(DIM)).with("text", VectorConfig::cosine(DIM));
    let store = SqliteStore::create(folder.path(), &config).unwrap().with_settings(settings());
    let with = |name: &'static str, seed: u64| {
        let rows = vectors(ROWS, seed).into_iter().enumerate();
        rows.map(move |(n, v)| {
            let row = Row::new(format!("{name} {n}")).with_vector(name, v);
            row.with_field("half", n % 2).with_field("few", n % 32 == 0 || name == "text")
        })
    };
    store.upsert(&with("image", 2).chain(with("text", 3)).collect::<Vec<_>>()).unwrap();
    optimize(&store);
    let exact = SqliteStore::open(store.folder()).unwrap();
    let compare = |query: Query| {
        let (ours, truth) = (store.query(&query).unwrap(), exact.query(&query).unwrap());
        assert_eq!((ours.hits.len(), truth.steps[0].method), (truth.hits.len(), Method::Exact));
        (ours.steps[0].method, ids(&ours).intersection(&ids(&truth)).count())
    };
    let half = Filter::parse("half = 1").unwrap();
    for name in ["image", "text"] {
        let queries = vectors(10, 4).into_iter();
        let answers: Vec<_> = queries.map(|query| compare(Query::nearest(name, query).filter(half.clone()))).collect();
        let found: usize = answers.iter().map(|(_, found)| found).sum();
        assert!(found >= 98, "{found} of 100");
        // Rows are added by two threads, in no fixed order: one walk in some thousand meets so few selected rows that all
        // are compared.
        let walked = answers.iter().filter(|(method, _)| *method == Method::Graph).count();
        assert!(walked >= 8, "{walked} of 10 by the graph");
    }
    // Few of the selected rows have the vector: they are compared, a fresh one among them.
    let fresh = vectors(1, 5).remove(0);
    store.upsert(&[Row::new("new").with_vector("image", fresh.clone()).with_field("few", true)]).unwrap();
    let query = Query::nearest("image", fresh).filter(Filter::parse("few = true").unwrap());
    assert_eq!(store.query(&query).unwrap().hits[0].id, "new");
    assert_eq!(compare(query), (Method::Exact, 10));
}

#[test]
fn many_threads_search_while_one_writes_and_optimizes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), Quantization::F16, 1000);
    optimize(&store);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (store, done) = (&store, &done);
            scope.spawn(move || {
                let filter = Filter::parse("half = 1").unwrap();
                for query in vectors(60, 100 + seed) {
                    let hits = store.query(&Query::nearest("v", query.clone()).filter(filter.clone())).unwrap().hits;
                    assert_eq!(hits.len(), 10);
                    assert_eq!(store.query(&Query::nearest("v", query)).unwrap().hits.len(), 10);
                    if done.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for round in 0..3 {
            let fresh = vectors(100, 50 + round).into_iter().enumerate();
            store
                .upsert(&fresh.map(|(n, v)| Row::new(format!("{}", n * 3)).with_vector("v", v)).collect::<Vec<_>>())
                .unwrap();
            optimize(&store);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_stopped_optimization_leaves_the_store_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), Quantization::F16, 600);
    let options = OptimizeOptions { stop: &AtomicBool::new(true), rebuild: false };
    let error = store.optimize(&options, &mut |_, _, _| {}).unwrap_err();
    assert!(matches!(error, mm_index::Error::Stopped { done: 0, total: 600 }), "{error}");
    assert_eq!(store.stats().unwrap().vectors[0].graph, None);
    assert_eq!(store.query(&Query::nearest("v", vectors(1, 5).remove(0))).unwrap().hits.len(), 10);
}
