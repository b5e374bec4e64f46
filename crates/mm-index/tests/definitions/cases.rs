//! Random operations and queries.

use super::DIM;
use mm_index::{Row, Vectors};
use proptest::{collection::vec, prelude::*};
use std::ops::Range;

const WORDS: [&str; 6] = ["red", "bird", "night", "car", "old", "tree"];

/// A call of a store.
#[derive(Debug, Clone)]
pub enum Operation {
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

pub fn operation() -> impl Strategy<Value = Operation> {
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

/// What is asked.
#[derive(Debug, Clone)]
pub struct Case {
    pub query: Vec<f32>,
    /// The query of late interaction.
    pub tokens: Vec<Vec<f32>>,
    pub filter: Option<String>,
    /// Number of results.
    pub k: usize,
    /// Which rows are examples of a recommendation, and which kinds of examples there are.
    pub picks: [usize; 3],
}

pub fn case(k: Range<usize>) -> impl Strategy<Value = Case> {
    let picks = prop::array::uniform3(0usize..24);
    (vector(), vec(vector(), 1..3), filter(), k, picks).prop_map(|(query, tokens, filter, k, picks)| Case {
        query,
        tokens,
        filter,
        k,
        picks,
    })
}
