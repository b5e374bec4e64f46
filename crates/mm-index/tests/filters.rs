//! What filters select, compared with their definition: by tables of field values, and by comparing payloads.
#![allow(missing_docs)]

mod engines;

use engines::{Engine, on_each_engine};
use mm_index::{Filter, GeoPoint, Row, Scalar, StoreConfig, VectorConfig};
use std::ops::Bound;

/// Whatever shape payloads have, a filter selects the rows that meet it.
fn filters_select_what_meets_them(engine: &dyn Engine) {
    let store = engine.create(&StoreConfig::new("v", VectorConfig::cosine(2)));
    let payloads = serde_json::json!([
        {"camera": {"": 1}},
        {"camera": {"": {}}},
        {"camera": {"lens": [null, [], {}]}},
        {"camera": [{"lens": 1}, [2]]},
        {"camera": {"/": 1}},
        {"camera/": 1, "camera-": 1, "cameras": 1},
        {"": {"": 1}},
        {"": null},
        {"a": [1, 1.0, "1", true, null]},
        {"a": [0, false, ""]},
        {"a": 1.5},
        {"a": [[], {}]},
        {"a": {"b": 2}, "a.b": 1},
        {"place": [{"lat": 90, "lon": 180}, {"lat": 0.0, "lon": -180.0}]},
        {"place": {"lat": "1", "lon": 2}},
        {}
    ]);
    let payload = |value: &serde_json::Value| value.as_object().unwrap().clone();
    let rows = payloads.as_array().unwrap().iter().enumerate();
    let rows: Vec<Row> = rows.map(|(n, p)| Row { payload: payload(p), ..Row::new(format!("{n}")) }).collect();
    store.upsert(&rows).unwrap();
    let a = || "a".to_owned();
    let fields = ["camera", "camera.", "camera.lens", "", ".", "a", "a.b", "place", "place.lat"];
    let mut filters: Vec<Filter> = fields.iter().map(|field| Filter::Exists { field: (*field).to_owned() }).collect();
    let text = |text: &str| Scalar::from(text);
    let values = [text("1"), text(""), true.into(), false.into(), 1i64.into(), 0i64.into()];
    let values = values.into_iter().chain([1.0, 1.5, -0.0, f64::NAN].map(Scalar::Float));
    filters.extend(values.map(|value| Filter::Equal { field: a(), value }));
    for values in [vec![], vec![Scalar::Float(f64::NAN), 1i64.into(), text("1")], vec![true.into()]] {
        filters.push(Filter::In { field: a(), values });
    }
    for (lower, upper) in [
        (Bound::Unbounded, Bound::Unbounded),
        (Bound::Included(0i64.into()), Bound::Unbounded),
        (Bound::Excluded(Scalar::Float(0.0)), Bound::Unbounded),
        (Bound::Unbounded, Bound::Included(1i64.into())),
        (Bound::Excluded(1i64.into()), Bound::Included(Scalar::Float(1.5))),
        (Bound::Included(Scalar::Float(f64::NEG_INFINITY)), Bound::Excluded(Scalar::Float(f64::INFINITY))),
        (Bound::Included(text("")), Bound::Unbounded),
        (Bound::Excluded(text("")), Bound::Unbounded),
        (Bound::Unbounded, Bound::Included(text(""))),
        (Bound::Unbounded, Bound::Excluded(text("2"))),
    ] {
        filters.push(Filter::Range { field: a(), lower, upper });
    }
    let boxes = [[0.0, 0.0, 90.0, 180.0], [-1.0, 170.0, 1.0, -170.0], [0.0, -180.0, 0.0, -180.0]];
    for [south, west, north, east] in boxes {
        let (south_west, north_east) = (GeoPoint { lat: south, lon: west }, GeoPoint { lat: north, lon: east });
        filters.push(Filter::GeoBox { field: "place".to_owned(), south_west, north_east });
    }
    filters.extend([Filter::And(vec![]), Filter::Or(vec![])]);
    for filter in filters.iter().flat_map(|filter| [filter.clone(), Filter::Not(Box::new(filter.clone()))]) {
        let expected = rows.iter().filter(|row| filter.matches(&row.payload)).map(|row| row.id.clone());
        assert_eq!(store.select(&filter, 99).unwrap(), expected.collect::<Vec<_>>(), "{filter:?}");
    }
    assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, []);
}

on_each_engine!(filters_select_what_meets_them);
