//! Random writes to a store with one named vector, the rows that they leave (in memory), and whether a store finds these
//! rows and no others.
#![allow(dead_code, reason = "each test file uses a part")]

use mm_index::{
    Filter, Method, OptimizeOptions, Query, Row, SearchSettings, Store, StoreConfig, VectorConfig, Vectors,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
};

pub const DIM: usize = 8;

/// Ids at which an upsert begins, and how many rows it writes.
const FIRST_IDS: u32 = 40;
const BATCH: u32 = 10;

/// Largest difference of scores: vectors are stored as 16-bit floats.
const TOLERANCE: f64 = 2e-3;

/// Rows by id: the value that was written last. Vector, field and text follow from both.
pub type Rows = BTreeMap<String, u32>;

pub fn config() -> StoreConfig {
    StoreConfig::new("v", VectorConfig::cosine(DIM))
}

/// Searches walk the graph wherever there is one. It links each row of a small store to all others, and a walk keeps more
/// candidates than there are rows: what it finds is exact.
pub fn settings() -> SearchSettings {
    SearchSettings {
        exact_below: 10,
        exact_filter_rows: 1,
        exact_filter_fraction: 0.0,
        exact_k_fraction: 1.0,
        connectivity: Some(64),
        ..SearchSettings::default()
    }
}

/// The vector of a row.
pub fn vector(id: &str, value: u32) -> Vec<f32> {
    let seed = crc32fast::hash(format!("{id} {value}").as_bytes());
    let mut random = StdRng::seed_from_u64(u64::from(seed));
    (0..DIM).map(|_| random.random_range(-1.0..1.0)).collect()
}

pub fn row(id: &str, value: u32) -> Row {
    Row::new(id).with_vector("v", vector(id, value)).with_field("value", value).with_text(format!("word{value}"))
}

/// A call of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// Writes rows with consecutive ids, all of one value.
    Upsert {
        first: u32,
        value: u32,
    },
    /// Deletes several rows; some ids may have none, or come twice.
    Delete(Vec<u32>),
    Optimize {
        rebuild: bool,
    },
}

impl Operation {
    /// An operation that writes this value if any.
    pub fn random(random: &mut StdRng, value: u32) -> Self {
        match random.random_range(0..20) {
            0..17 => Self::random_write(random, value),
            17..19 => Self::Optimize { rebuild: false },
            _ => Self::Optimize { rebuild: true },
        }
    }

    /// One that changes rows.
    pub fn random_write(random: &mut StdRng, value: u32) -> Self {
        if random.random_range(0..5) < 3 {
            return Self::Upsert { first: random.random_range(0..FIRST_IDS), value };
        }
        let count = random.random_range(1..=12);
        Self::Delete((0..count).map(|_| random.random_range(0..FIRST_IDS + BATCH)).collect())
    }

    /// Upserts that write each id once.
    pub fn fill(value: u32) -> impl Iterator<Item = Self> {
        (0..=FIRST_IDS).step_by(BATCH as usize).map(move |first| Self::Upsert { first, value })
    }

    /// What it does to the rows in memory.
    pub fn apply_to(&self, rows: &mut Rows) {
        match self {
            Self::Upsert { first, value } => rows.extend(batch(*first).map(|id| (id, *value))),
            Self::Delete(ids) => rows.retain(|id, _| !ids.iter().any(|deleted| deleted.to_string() == *id)),
            Self::Optimize { .. } => {}
        }
    }

    pub fn apply(&self, store: &dyn Store) {
        match self {
            Self::Upsert { first, value } => {
                store.upsert(&batch(*first).map(|id| row(&id, *value)).collect::<Vec<_>>()).unwrap();
            }
            Self::Delete(ids) => {
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                store.delete(&ids.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
            }
            Self::Optimize { rebuild } => {
                let options = OptimizeOptions { stop: &AtomicBool::new(false), rebuild: *rebuild };
                store.optimize(&options, &mut |_, _, _| {}).unwrap();
            }
        }
    }
}

fn batch(first: u32) -> impl Iterator<Item = String> {
    (first..first + BATCH).map(|id| id.to_string())
}

/// The rows of a store, whose vectors and texts are compared.
pub fn stored(store: &dyn Store) -> Rows {
    let page = store.page(None, usize::MAX).unwrap();
    let value = |row: &Row| {
        let value = u32::try_from(row.payload["value"].as_u64().unwrap()).unwrap();
        let Some(Vectors::Single(stored)) = row.vectors.get("v") else { panic!("{row:?} has no vector") };
        let written = vector(&row.id, value);
        let norm = written.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!(stored.iter().zip(&written).all(|(a, b)| (a - b / norm).abs() < 1e-3), "{row:?}");
        assert_eq!(row.text, Some(format!("word{value}")));
        value
    };
    let rows: Rows = page.rows.iter().map(|row| (row.id.clone(), value(row))).collect();
    assert_eq!(rows.len(), page.rows.len(), "an id came twice");
    rows
}

/// Searches by vectors, with filters and by words, reads by id, and compares what a store finds with the rows in memory.
/// Returns how many searches walked a graph.
pub fn assert_finds(store: &dyn Store, rows: &Rows, random: &mut StdRng, what: &str) -> usize {
    let query: Vec<f32> = (0..DIM).map(|_| random.random_range(-1.0..1.0)).collect();
    // All rows: a deleted one would be among them.
    let mut walked = assert_nearest(store, rows, &query, None, rows.len().max(1), what);
    walked += assert_nearest(store, rows, &query, None, 5, what);
    if !rows.is_empty() {
        let least = *rows.values().nth(random.random_range(0..rows.len())).unwrap();
        let from: Rows =
            rows.iter().filter(|(_, value)| **value >= least).map(|(id, value)| (id.clone(), *value)).collect();
        let only: Rows =
            from.iter().filter(|(_, value)| **value == least).map(|(id, value)| (id.clone(), *value)).collect();
        for (filter, selected) in [(format!("value >= {least}"), from), (format!("value = {least}"), only)] {
            let filter = Filter::parse(&filter).unwrap();
            let ids: BTreeSet<String> = store.select(&filter, usize::MAX).unwrap().into_iter().collect();
            assert!(ids.iter().eq(selected.keys()), "{what}: {filter}: {ids:?}, expected {selected:?}");
            walked += assert_nearest(store, &selected, &query, Some(filter), 5, what);
        }
    }
    assert_words(store, rows, random, what);
    let ids: Vec<String> = (0..FIRST_IDS + BATCH).map(|id| id.to_string()).collect();
    let found = store.get(&ids.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    for (id, found) in ids.iter().zip(found) {
        assert_eq!(found.is_some(), rows.contains_key(id), "{what}: row {id}");
    }
    let stats = store.stats().unwrap();
    assert_eq!((stats.rows, stats.vectors[0].rows), (rows.len(), rows.len()), "{what}");
    walked
}

/// Compares the nearest of the rows that a filter selects. Returns 1 where the search walked a graph.
fn assert_nearest(
    store: &dyn Store,
    rows: &Rows,
    values: &[f32],
    filter: Option<Filter>,
    k: usize,
    what: &str,
) -> usize {
    let query = Query { filter, ..Query::nearest("v", values.to_vec()).k(k) };
    let answer = store.query(&query).unwrap_or_else(|error| panic!("{what}: {query:?}: {error}"));
    let mut best: Vec<f64> = rows.iter().map(|(id, value)| cosine(values, &vector(id, *value))).collect();
    best.sort_by(|a, b| b.total_cmp(a));
    best.truncate(k);
    let hits = &answer.hits;
    assert_eq!(hits.len(), best.len(), "{what}: {query:?}: {hits:?}");
    for (hit, best) in hits.iter().zip(best) {
        let value = rows.get(&hit.id).unwrap_or_else(|| panic!("{what}: {query:?}: found {hit:?}, which is not there"));
        assert_eq!(hit.payload["value"], *value, "{what}: {query:?}: {hit:?}");
        let score = cosine(values, &vector(&hit.id, *value));
        let is_best = (hit.score - score).abs() < TOLERANCE && (hit.score - best).abs() < TOLERANCE;
        assert!(is_best, "{what}: {query:?}: {hit:?}, expected its score {score} and a row of score {best}");
    }
    assert_eq!(hits.iter().map(|hit| &hit.id).collect::<BTreeSet<_>>().len(), hits.len(), "{what}: a row came twice");
    usize::from(answer.steps[0].method == Method::Graph)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A word finds the rows that carry it, and no others: those of all rows, and some of rows that were deleted or replaced.
fn assert_words(store: &dyn Store, rows: &Rows, random: &mut StdRng, what: &str) {
    let mut words: BTreeSet<u32> = rows.values().copied().collect();
    let highest = words.last().copied().unwrap_or(0);
    words.extend((0..8).map(|_| random.random_range(0..highest + 10)));
    for value in words {
        let query = Query::text(format!("word{value}")).k(rows.len() + 10);
        let found = store.query(&query).unwrap_or_else(|error| panic!("{what}: word{value}: {error}")).hits;
        let ids: BTreeSet<&String> = found.iter().map(|hit| &hit.id).collect();
        let expected: BTreeSet<&String> = rows.iter().filter(|(_, v)| **v == value).map(|(id, _)| id).collect();
        assert_eq!((&ids, found.len()), (&expected, expected.len()), "{what}: word{value}");
    }
}
