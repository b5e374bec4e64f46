//! Random operations and queries on an engine, compared with a model in memory that knows nothing but the definitions.
#![allow(missing_docs)]

mod engines;

use engines::{Engine, Folder};
use half::f16;
use mm_index::{
    Distance, Filter, Hit, OptimizeOptions, Query, Row, SearchSettings, Store, StoreConfig, VectorConfig, Vectors,
};
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, sync::atomic::AtomicBool};

const DIM: usize = 4;
const WORDS: [&str; 6] = ["red", "bird", "night", "car", "old", "tree"];
const TOLERANCE: f64 = 2e-3;

fn config() -> StoreConfig {
    let plain = VectorConfig::cosine(DIM);
    StoreConfig::new("cosine", plain.clone())
        .with("dot", VectorConfig { distance: Distance::Dot, ..plain.clone() })
        .with("euclidean", VectorConfig { distance: Distance::Euclidean, ..plain.clone() })
        .with("tokens", VectorConfig { multi: true, ..plain })
}

/// The rows by id, with the order in which they were written.
#[derive(Default)]
struct Model {
    rows: BTreeMap<String, Row>,
}

fn normalized(values: &[f32]) -> Vec<f64> {
    let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    values.iter().map(|v| f64::from(*v) / norm).collect()
}

fn similarity(name: &str, query: &[f32], stored: &[f32]) -> f64 {
    let is_unit = matches!(name, "cosine" | "tokens");
    let query: Vec<f64> = if is_unit { normalized(query) } else { query.iter().map(|v| f64::from(*v)).collect() };
    let stored: Vec<f64> = if is_unit { normalized(stored) } else { stored.iter().map(|v| f64::from(*v)).collect() };
    let stored: Vec<f64> = stored.iter().map(|v| f64::from(f16::from_f64(*v).to_f32())).collect();
    let pairs = query.iter().zip(&stored);
    match name {
        "euclidean" => -pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        _ => pairs.map(|(a, b)| a * b).sum(),
    }
}

fn max_sim(name: &str, tokens: &[Vec<f32>], vectors: &Vectors) -> f64 {
    let best = |token: &Vec<f32>| vectors.iter().map(|v| similarity(name, token, v)).fold(f64::NEG_INFINITY, f64::max);
    tokens.iter().map(best).sum()
}

impl Model {
    fn selected<'a>(&'a self, filter: Option<&'a Filter>) -> impl Iterator<Item = &'a Row> {
        self.rows.values().filter(move |row| filter.is_none_or(|f| f.matches(&row.payload)))
    }

    /// Scores by id.
    fn nearest(&self, name: &str, tokens: &[Vec<f32>], filter: Option<&Filter>) -> BTreeMap<String, f64> {
        let score = |row: &Row| Some((row.id.clone(), max_sim(name, tokens, row.vectors.get(name)?)));
        self.selected(filter).filter_map(score).collect()
    }

    /// BM25 as FTS5 defines it: https://www.sqlite.org/fts5.html#the_bm25_function.
    fn words(&self, words: &[&str], filter: Option<&Filter>) -> BTreeMap<String, f64> {
        let (k1, b) = (1.2, 0.75);
        let texts: Vec<&str> = self.rows.values().filter_map(|row| row.text.as_deref()).collect();
        let length = |text: &str| text.split(' ').count() as f64;
        let average = texts.iter().map(|t| length(t)).sum::<f64>() / texts.len() as f64;
        let count = |text: &str, word: &str| text.split(' ').filter(|w| *w == word).count() as f64;
        let idf = |word: &str| {
            let with = texts.iter().filter(|t| count(t, word) > 0.0).count() as f64;
            let value = ((texts.len() as f64 - with + 0.5) / (with + 0.5)).ln();
            if value <= 0.0 { 1e-6 } else { value }
        };
        let score = |row: &Row| {
            let text = row.text.as_deref()?;
            let term = |word: &&str| {
                let found = count(text, word);
                idf(word) * found * (k1 + 1.0) / (found + k1 * (1.0 - b + b * length(text) / average))
            };
            let has_any = words.iter().any(|word| count(text, word) > 0.0);
            has_any.then(|| (row.id.clone(), words.iter().map(term).sum()))
        };
        self.selected(filter).filter_map(score).collect()
    }
}

/// Asserts that hits are the `k` best of these scores, best first.
fn assert_best(hits: &[Hit], scores: &BTreeMap<String, f64>, k: usize, what: &str) {
    let mut best: Vec<f64> = scores.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    best.truncate(k);
    assert_eq!(hits.len(), best.len(), "{what}: {hits:?} instead of {scores:?}");
    for (hit, best) in hits.iter().zip(best) {
        let expected = scores.get(&hit.id).unwrap_or_else(|| panic!("{what}: {hit:?} is not among {scores:?}"));
        assert!((hit.score - expected).abs() < TOLERANCE, "{what}: {hit:?}, expected {expected}");
        assert!((hit.score - best).abs() < TOLERANCE, "{what}: {hit:?}, expected a row of score {best}");
    }
    let mut ids: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), hits.len(), "{what}: a row came twice");
}

#[derive(Debug, Clone)]
enum Operation {
    Upsert(Vec<Row>),
    Delete(Vec<String>),
    Optimize,
    Reopen,
}

fn vector() -> impl Strategy<Value = Vec<f32>> {
    vec(-8i8..8, DIM).prop_map(|values| values.into_iter().map(|v| f32::from(v) + 0.3).collect())
}

fn id() -> impl Strategy<Value = String> {
    (0u8..24).prop_map(|n| format!("row {n}"))
}

fn payload() -> impl Strategy<Value = serde_json::Value> {
    let number = prop_oneof![
        (-3i64..3).prop_map(|n| serde_json::json!(n)),
        (-3i8..3).prop_map(|n| serde_json::json!(f64::from(n) + 0.5))
    ];
    let text = prop::sample::select(WORDS.to_vec()).prop_map(|w| serde_json::json!(w));
    let value =
        prop_oneof![number, text, any::<bool>().prop_map(|b| serde_json::json!(b)), Just(serde_json::json!(null))];
    let list = vec(value.clone(), 0..3).prop_map(|v| serde_json::json!(v));
    let place = (-89i8..89, -179i16..179).prop_map(|(lat, lon)| serde_json::json!({"lat": lat, "lon": lon}));
    (prop::option::of(value), prop::option::of(list), prop::option::of(place)).prop_map(|(a, list, place)| {
        let mut payload = serde_json::Map::new();
        payload.extend(a.map(|a| ("a".to_owned(), a)));
        payload.extend(list.map(|list| ("list".to_owned(), list)));
        payload.extend(place.map(|place| ("place".to_owned(), place)));
        serde_json::Value::Object(payload)
    })
}

fn row() -> impl Strategy<Value = Row> {
    let text = vec(prop::sample::select(WORDS.to_vec()), 1..5).prop_map(|words| words.join(" "));
    let vectors = (
        prop::option::weighted(0.9, vector()),
        prop::option::of(vector()),
        prop::option::of(vector()),
        prop::option::of(vec(vector(), 1..4)),
    );
    (id(), vectors, payload(), prop::option::of(text)).prop_map(
        |(id, (cosine, dot, euclidean, tokens), payload, text)| {
            let mut row = Row::new(id);
            for (name, values) in [("cosine", cosine), ("dot", dot), ("euclidean", euclidean)] {
                row.vectors.extend(values.map(|values| (name.to_owned(), Vectors::Single(values))));
            }
            row.vectors.extend(tokens.map(|tokens| ("tokens".to_owned(), Vectors::Multi(tokens))));
            row.payload = payload.as_object().cloned().unwrap_or_default();
            row.text = text;
            row
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        5 => vec(row(), 1..8).prop_map(Operation::Upsert),
        2 => vec(id(), 1..4).prop_map(Operation::Delete),
        1 => Just(Operation::Optimize),
        1 => Just(Operation::Reopen),
    ]
}

fn filter() -> impl Strategy<Value = Option<String>> {
    let leaf = prop_oneof![
        (-3i8..3).prop_map(|n| format!("a > {n}")),
        (-3i8..3).prop_map(|n| format!("a <= {n}.5")),
        (-3i8..3, -3i8..3).prop_map(|(m, n)| format!("list between {m} and {n}")),
        prop::sample::select(WORDS.to_vec()).prop_map(|w| format!("list != \"{w}\"")),
        prop::sample::select(WORDS.to_vec()).prop_map(|w| format!("a >= \"{w}\"")),
        prop::sample::select(WORDS.to_vec()).prop_map(|w| format!("a in (\"{w}\", 1, true)")),
        Just("a = false".to_owned()),
        Just("exists place".to_owned()),
        (-89i8..0, -179i16..179, 0i8..89, -179i16..179)
            .prop_map(|(s, w, n, e)| format!("place in box({s}, {w}, {n}, {e})")),
    ];
    let nested = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) and ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) or not ({b})")),
            inner.prop_map(|a| format!("not ({a})")),
        ]
    });
    prop::option::of(nested)
}

fn with_filter(query: Query, filter: Option<&Filter>) -> Query {
    filter.map_or(query.clone(), |filter| query.filter(filter.clone()))
}

/// A row that has every field, so that no filter names an unknown one.
fn first_row() -> Row {
    Row::new("first")
        .with_field("a", 1)
        .with_field("list", vec!["red"])
        .with_field("place", serde_json::json!({"lat": 1, "lon": 2}))
}

fn optimize(store: &dyn Store) {
    let options = OptimizeOptions { stop: &AtomicBool::new(false), rebuild: false };
    store.optimize(&options, &mut |_, _, _| {}).unwrap();
}

/// Compares all kinds of queries.
fn compare(store: &dyn Store, model: &Model, query: &[f32], tokens: &[Vec<f32>], filter: Option<&Filter>, k: usize) {
    for name in ["cosine", "dot", "euclidean", "tokens"] {
        let hits = store.query(&with_filter(Query::nearest(name, query.to_vec()).k(k), filter)).unwrap().hits;
        assert_best(&hits, &model.nearest(name, &[query.to_vec()], filter), k, name);
        for hit in &hits {
            assert_eq!((&hit.payload, &hit.text), (&model.rows[&hit.id].payload, &model.rows[&hit.id].text));
        }
    }
    let late = Query::max_sim("tokens", tokens.to_vec()).k(k);
    let hits = store.query(&with_filter(late, filter)).unwrap().hits;
    assert_best(&hits, &model.nearest("tokens", tokens, filter), k, "late interaction");
    let words = ["red", "night"];
    let found = model.words(&words, filter);
    let hits = store.query(&with_filter(Query::text(words.join(" ")).k(k), filter)).unwrap().hits;
    assert_best(&hits, &found, k, "words");
    compare_fusion(store, query, filter);
}

/// The fusion of two queries is that of their results.
fn compare_fusion(store: &dyn Store, query: &[f32], filter: Option<&Filter>) {
    let (first, second) = (Query::nearest("dot", query.to_vec()).k(6), Query::text("bird car").k(4));
    let ranks = |query: &Query| store.query(&with_filter(query.clone(), filter)).unwrap().hits;
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for (weight, query) in [(1.0, &first), (0.25, &second)] {
        for (index, hit) in ranks(query).iter().enumerate() {
            *expected.entry(hit.id.clone()).or_default() += weight / (61.0 + index as f64);
        }
    }
    let fusion = with_filter(Query::fusion(vec![(1.0, first), (0.25, second)]).k(5), filter);
    let hits = store.query(&fusion).unwrap().hits;
    let mut best: Vec<f64> = expected.values().copied().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    best.truncate(5);
    assert_eq!(hits.iter().map(|hit| hit.score).collect::<Vec<_>>(), best);
    assert!(hits.iter().all(|hit| hit.score == expected[&hit.id]), "{hits:?}");
}

/// Applies operations to a store and a model, and compares them after each.
fn run(
    engine: &dyn Engine,
    settings: SearchSettings,
    operations: Vec<Operation>,
    (query, tokens, filter, k): (Vec<f32>, Vec<Vec<f32>>, Option<String>, usize),
) {
    drop(engine.create(&config()));
    let mut store = engine.open(settings);
    let mut model = Model::default();
    let filter = filter.map(|text| Filter::parse(&text).unwrap());
    let mut operations = operations;
    operations.insert(0, Operation::Upsert(vec![first_row()]));
    for operation in operations {
        match operation {
            Operation::Upsert(rows) => {
                store.upsert(&rows).unwrap();
                model.rows.extend(rows.into_iter().map(|row| (row.id.clone(), row)));
            }
            Operation::Delete(ids) => {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                let mut expected = 0;
                for id in &ids {
                    expected += usize::from(model.rows.remove(*id).is_some());
                }
                assert_eq!(store.delete(&ids).unwrap(), expected);
            }
            Operation::Optimize => optimize(store.as_ref()),
            Operation::Reopen => {
                drop(store);
                store = engine.open(settings);
            }
        }
        compare(store.as_ref(), &model, &query, &tokens, filter.as_ref(), k);
        let stats = store.stats().unwrap();
        assert_eq!(stats.rows, model.rows.len());
        for vector in stats.vectors {
            let expected = model.rows.values().filter(|row| row.vectors.contains_key(&vector.name)).count();
            assert_eq!(vector.rows, expected, "{}", vector.name);
        }
    }
    let report = store.check(&mut |_, _, _| {}).unwrap();
    assert_eq!((report.rows, report.problems.as_slice()), (model.rows.len(), &[][..]));
}

fn query() -> impl Strategy<Value = (Vec<f32>, Vec<Vec<f32>>, Option<String>, usize)> {
    (vector(), vec(vector(), 1..3), filter(), 1usize..12)
}

/// Graphs wherever there is one.
fn always_graphs() -> SearchSettings {
    SearchSettings {
        exact_below: 1,
        exact_filter_rows: 1,
        exact_filter_fraction: 0.0,
        exact_k_fraction: 1.0,
        ..SearchSettings::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn exact_search_is_that_of_the_definitions(operations in vec(operation(), 1..8), query in query()) {
        run(&Folder::new(), SearchSettings::default(), operations, query);
    }

    /// Memory for two vectors: everything else is read from the database each time.
    #[test]
    fn vectors_beyond_the_memory_are_read(operations in vec(operation(), 1..6), query in query()) {
        let settings = SearchSettings { cache_bytes: 2 * DIM * size_of::<f16>(), ..SearchSettings::default() };
        run(&Folder::new(), settings, operations, query);
    }

    /// Graphs of a few rows, which a search visits completely: results are as exact as without them.
    #[test]
    fn graphs_with_fresh_and_deleted_rows_find_the_same(operations in vec(operation(), 2..10), query in query()) {
        run(&Folder::new(), always_graphs(), operations, query);
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use engines::Server;
    use proptest::test_runner::TestRunner;

    /// Random operations on schemas of one server.
    fn run_cases(cases: u32, settings: SearchSettings) {
        let Some(server) = Server::start() else { return };
        let config =
            ProptestConfig { cases, max_shrink_iters: 50, failure_persistence: None, ..ProptestConfig::default() };
        let cases = (vec(operation(), 1..8), query());
        let result = TestRunner::new(config).run(&cases, |(operations, query)| {
            run(&server.schema(), settings, operations, query);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn exact_search_is_that_of_the_definitions() {
        run_cases(8, SearchSettings::default());
    }

    #[test]
    fn graphs_with_deleted_rows_find_the_same() {
        run_cases(6, always_graphs());
    }
}
