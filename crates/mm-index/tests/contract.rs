//! What every engine promises.
#![allow(missing_docs)]

mod engines;

use engines::{Engine, on_each_engine};
use mm_index::{
    Example, Filter, GeoPoint, Query, Row, Scalar, Search, SearchSettings, Store, StoreConfig, VectorConfig,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

const DIM: usize = 8;

fn config() -> StoreConfig {
    StoreConfig::new("v", VectorConfig::cosine(DIM))
}

fn values(seed: u64) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..DIM).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn filled(engine: &dyn Engine) -> Box<dyn Store> {
    let store = engine.create(&config());
    let row = |n: u64| {
        Row::new(format!("row {n}"))
            .with_vector("v", values(n))
            .with_field("n", n)
            .with_text(format!("word{} common", n % 7))
    };
    store.upsert(&(0..150).map(row).collect::<Vec<_>>()).unwrap();
    store
}

fn message<T>(result: Result<T, mm_index::Error>) -> String {
    result.err().expect("an error").to_string()
}

fn queries_that_do_not_fit_are_refused(engine: &dyn Engine) {
    let store = filled(engine);
    let filter = |text: &str| Query::nearest("v", values(1)).filter(Filter::parse(text).unwrap());
    let has_order =
        Filter::Range { field: "n".into(), lower: Bound::Included(Scalar::Bool(true)), upper: Bound::Unbounded };
    let fusion = |constant| Query {
        search: Search::Fusion { queries: vec![(1.0, Query::text("a"))], constant },
        ..Query::text("a")
    };
    let (south_west, north_east) = (GeoPoint { lat: f64::NAN, lon: 0.0 }, GeoPoint { lat: 1.0, lon: 1.0 });
    let no_box = Filter::GeoBox { field: "n".into(), south_west, north_east };
    assert!(message(store.select(&no_box, 9)).contains("latitudes from -90 to 90"));
    for (query, expected) in [
        (Query::nearest("v", vec![1.0; 3]), "query for vector `v`: found 3 values, expected 8 values"),
        (Query::nearest("v", vec![f32::NAN; DIM]), "found NaN at position 0"),
        (Query::nearest("v", vec![0.0; DIM]), "a vector of zeros"),
        (Query::nearest("w", values(1)), "unknown vector `w`"),
        (Query::nearest("v", values(1)).k(0), "number of results: found 0"),
        (Query::text(" -- "), "at least one word"),
        (Query::max_sim("v", vec![]), "found no vector"),
        (Query::fusion(vec![(f64::NAN, Query::text("a"))]), "weight of a fusion"),
        (Query::fusion(vec![]), "queries of a fusion: found none"),
        (Query::fusion(vec![(1.0, Query::text("a").k(0))]), "number of results: found 0"),
        (fusion(-1.0), "constant of a fusion: found -1"),
        (fusion(f64::NAN), "constant of a fusion: found NaN"),
        (Query::text("a").filter(no_box), "latitudes from -90 to 90"),
        (filter("m > 3"), "unknown field in the filter `m`: known are n"),
        (Query::text("a").filter(has_order), "true and false have no order"),
    ] {
        let message = message(store.query(&query));
        assert!(message.contains(expected), "{message}");
    }
}

fn a_write_is_all_or_nothing(engine: &dyn Engine) {
    let store = filled(engine);
    let rows = [Row::new("new").with_vector("v", values(1)), Row::new("bad").with_vector("v", vec![1.0])];
    assert!(message(store.upsert(&rows)).contains("vector `v` of row `bad`: found 1 values"));
    assert_eq!((store.stats().unwrap().rows, store.get(&["new"]).unwrap()), (150, vec![None]));
    // Of two rows with one id in a call, the last counts.
    store.upsert(&[Row::new("twice").with_field("n", 1), Row::new("twice").with_field("n", 2)]).unwrap();
    assert_eq!(store.get(&["twice"]).unwrap()[0].as_ref().unwrap().payload["n"], 2);
    assert_eq!(store.stats().unwrap().rows, 151);
    assert_eq!(store.delete(&["twice", "twice", "none", "NUL \0"]).unwrap(), 1);
    assert_eq!(
        store.get(&["twice", "row 3", "NUL \0"]).unwrap().iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, true, false]
    );
}

fn pages_return_each_row_once(engine: &dyn Engine) {
    let store = filled(engine);
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.page(cursor, 40).unwrap();
        ids.extend(page.rows.into_iter().map(|row| row.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(ids, (0..150).map(|n| format!("row {n}")).collect::<Vec<_>>());
    let between = Filter::parse("n between 7 and 9").unwrap();
    assert_eq!(store.select(&between, usize::MAX).unwrap(), ["row 7", "row 8", "row 9"]);
    assert_eq!(store.select(&between, 2).unwrap(), ["row 7", "row 8"]);
}

/// The rows that a filter selects are those of the moment, whoever wrote since the filter was last used.
fn a_filter_that_is_used_again_sees_what_was_written_since(engine: &dyn Engine) {
    let store = filled(engine);
    let other = engine.open(SearchSettings::default());
    let filters: Vec<Filter> = (0..10).map(|least| Filter::parse(&format!("n >= {}", 140 + least)).unwrap()).collect();
    let found = |filter: &Filter| {
        let answer = store.query(&Query::nearest("v", values(3)).filter(filter.clone()).k(200)).unwrap();
        answer.hits.into_iter().map(|hit| hit.id).collect::<BTreeSet<String>>()
    };
    let mut expected: BTreeMap<String, u64> = (0..150).map(|n| (format!("row {n}"), n)).collect();
    for round in 0..4 {
        let (writer, id) = (if round % 2 == 0 { &store } else { &other }, format!("new {round}"));
        writer.upsert(&[Row::new(&id).with_vector("v", values(round)).with_field("n", 145 + round)]).unwrap();
        expected.insert(id, 145 + round);
        let deleted = format!("row {}", 141 + round);
        assert_eq!(writer.delete(&[&deleted]).unwrap(), 1);
        expected.remove(&deleted);
        // Twice: more filters than are remembered.
        for (least, filter) in filters.iter().enumerate().chain(filters.iter().enumerate()) {
            let met = expected.iter().filter(|(_, n)| **n >= 140 + least as u64).map(|(id, _)| id.clone());
            assert_eq!(found(filter), met.collect(), "round {round}, {filter}");
        }
    }
}

/// What is written is returned as it was, and is there when the store is opened again.
fn rows_are_returned_as_they_were_written(engine: &dyn Engine) {
    let store = engine.create(&config());
    let payload = serde_json::json!({
        "whole": 10_000_000_000_000_000.0, "large": u64::MAX, "small": 1e-7, "minus": -0.0, "list": [[1, "a"], {"b": null}],
        "text": "it's \"quoted\" \\ and é日", "long": "x".repeat(5000), "camera": {"lens": true},
        "place": {"lat": 48.1, "lon": 11.5}
    });
    let row = Row {
        id: "ids may have / ' \" \\ é".to_owned(),
        vectors: [("v".to_owned(), vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0].into())].into(),
        payload: payload.as_object().unwrap().clone(),
        text: Some(String::new()),
        version: Some("1".to_owned()),
    };
    store.upsert(std::slice::from_ref(&row)).unwrap();
    drop(store);
    let store = engine.open(SearchSettings::default());
    assert_eq!(store.get(&[&row.id]).unwrap(), [Some(row.clone())]);
    assert_eq!(store.versions().unwrap(), [(row.id.clone(), Some("1".to_owned()))]);
    for filter in [
        "whole = 10000000000000000",
        "large > 1.8446744073709549e19",
        "large < 1.8446744073709555e19",
        "small < 0.00000011",
        "minus = 0",
        "list = 'a'",
        "camera.lens = true",
        "long > 'xxx'",
        "not long < 'xxy' or long < 'xxy'",
        "place in box(48, 11, 49, 12)",
    ] {
        assert_eq!(
            store.select(&Filter::parse(filter).unwrap(), 2).unwrap(),
            std::slice::from_ref(&row.id),
            "{filter}"
        );
    }
    let long = format!("long = '{}'", "x".repeat(5000));
    assert_eq!(store.select(&Filter::parse(&long).unwrap(), 9).unwrap().len(), 1);
    assert_eq!(store.select(&Filter::parse(&long.replace("xx'", "xy'")).unwrap(), 9).unwrap().len(), 0);
    assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, []);
}

/// A field exists where it has a value, or an object with one; a field without any value is known.
fn fields_of_objects_and_empty_lists_are_known(engine: &dyn Engine) {
    let store = engine.create(&config());
    let row =
        |id: &str, payload: serde_json::Value| Row { payload: payload.as_object().unwrap().clone(), ..Row::new(id) };
    store
        .upsert(&[
            row("a", serde_json::json!({"camera": {"lens": {"f": 2}}, "tags": [], "none": null})),
            row("b", serde_json::json!({"camera": {}, "cameras": 1, "place": {"lat": 1, "lon": 2}})),
        ])
        .unwrap();
    let ids = |filter: &str| store.select(&Filter::parse(filter).unwrap(), 9);
    assert_eq!(ids("exists camera").unwrap(), ["a"]);
    assert_eq!(ids("exists camera.lens").unwrap(), ["a"]);
    assert_eq!(ids("not exists camera").unwrap(), ["b"]);
    assert_eq!(ids("exists place").unwrap(), ["b"]);
    for field in ["tags", "none"] {
        assert_eq!(ids(&format!("exists {field}")).unwrap(), Vec::<String>::new());
        assert_eq!(ids(&format!("not {field} = 1")).unwrap(), ["a", "b"]);
    }
    assert!(message(ids("exists camer")).contains("unknown field in the filter `camer`"));
    assert!(message(ids("camera.lens = 2")).contains("did you mean `camera.lens.f`?"));
    assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, []);
}

/// Integers beyond the exact range of floats are not rounded.
fn numbers_are_compared_without_rounding(engine: &dyn Engine) {
    let store = engine.create(&config());
    let large = (1i64 << 60) + 1;
    let rows = [("integer", serde_json::json!(large)), ("float", serde_json::json!((1i64 << 60) as f64))];
    store.upsert(&rows.map(|(id, value)| Row::new(id).with_field("n", value))).unwrap();
    let ids = |filter: String| store.select(&Filter::parse(&filter).unwrap(), 9).unwrap();
    assert_eq!(ids(format!("n = {large}")), ["integer"]);
    assert_eq!(ids(format!("n = {}", 1i64 << 60)), ["float"]);
    assert_eq!(ids(format!("n >= {large}")), ["integer"]);
    assert_eq!(ids(format!("n < {large}")), ["float"]);
}

fn recommendations_are_near_examples_and_far_from_counter_examples(engine: &dyn Engine) {
    let store = engine.create(&StoreConfig::new("v", VectorConfig::cosine(2)));
    let angle = |degrees: u16| vec![f32::from(degrees).to_radians().cos(), f32::from(degrees).to_radians().sin()];
    let rows: Vec<Row> = (0..36).map(|n| Row::new(format!("{}", n * 10)).with_vector("v", angle(n * 10))).collect();
    store.upsert(&rows).unwrap();
    let ids = |query: &Query| store.query(query).unwrap().hits.into_iter().map(|hit| hit.id).collect::<Vec<_>>();
    let like = |id: &str| Example::Id(id.to_owned());
    // Between 80 and 120 lies 100; the examples themselves are left out.
    assert_eq!(ids(&Query::recommend("v", vec![like("80"), like("120")], vec![]).k(3)), ["100", "90", "110"]);
    // Twice 90° minus 60° is at 113.8°.
    let away = Query::recommend("v", vec![like("90")], vec![Example::Values(angle(60))]).k(2);
    assert_eq!(ids(&away), ["110", "120"]);
    for (query, expected) in [
        (Query::recommend("v", vec![], vec![like("0")]), "expected at least one row or vector"),
        (Query::recommend("v", vec![like("7")], vec![]), "example `7`: found no such row"),
    ] {
        let message = message(store.query(&query));
        assert!(message.contains(expected), "{message}");
    }
}

on_each_engine!(
    queries_that_do_not_fit_are_refused,
    a_write_is_all_or_nothing,
    pages_return_each_row_once,
    a_filter_that_is_used_again_sees_what_was_written_since,
    rows_are_returned_as_they_were_written,
    fields_of_objects_and_empty_lists_are_known,
    numbers_are_compared_without_rounding,
    recommendations_are_near_examples_and_far_from_counter_examples,
);
