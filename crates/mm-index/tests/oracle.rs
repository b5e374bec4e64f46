//! Random operations and queries of every kind on an engine, compared with a model in memory that knows nothing but the
//! definitions.
#![allow(missing_docs)]

mod definitions;
mod engines;

use definitions::{Case, DIM, Model, Operation, assert_best, case, config, fused, operation};
use engines::{Engine, Folder};
use half::f16;
use mm_index::{Example, Filter, Hit, OptimizeOptions, Quantization, Query, Row, SearchSettings, Store};
use proptest::{collection::vec, prelude::*};
use std::sync::atomic::AtomicBool;

const NAMES: [&str; 4] = ["cosine", "dot", "euclidean", "tokens"];

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

/// Asks a store with one filter.
struct Asked<'a> {
    store: &'a dyn Store,
    model: &'a Model,
    case: &'a Case,
    filter: Option<&'a Filter>,
}

impl Asked<'_> {
    /// Compares all kinds of queries.
    fn compare(&self) {
        let Case { query, tokens, k, .. } = self.case;
        for name in NAMES {
            let hits = self.hits(&Query::nearest(name, query.clone()).k(*k));
            assert_best(&hits, &self.model.nearest(name, std::slice::from_ref(query), self.filter), *k, name);
            for hit in &hits {
                let row = &self.model.rows[&hit.id];
                assert_eq!((&hit.payload, &hit.text), (&row.payload, &row.text));
            }
            let late = self.hits(&Query::max_sim(name, tokens.clone()).k(*k));
            assert_best(
                &late,
                &self.model.nearest(name, tokens, self.filter),
                *k,
                &format!("late interaction, {name}"),
            );
            self.compare_recommendation(name);
        }
        let words = ["red", "night"];
        let found = self.hits(&Query::text(words.join(" ")).k(*k));
        assert_best(&found, &self.model.words(&words, self.filter), *k, "words");
        self.compare_fusion();
        self.compare_late_interaction_over_candidates();
    }

    fn hits(&self, query: &Query) -> Vec<Hit> {
        let query = Query { filter: self.filter.cloned(), ..query.clone() };
        self.store.query(&query).unwrap_or_else(|error| panic!("{query:?}: {error}")).hits
    }

    /// Examples are rows and vectors; there are counter-examples or not.
    fn compare_recommendation(&self, name: &str) {
        let Case { query, tokens, k, picks: [first, second, kind], .. } = self.case;
        let ids = self.model.ids_with(name);
        let row = |pick: &usize| ids.get(pick % ids.len().max(1)).map(|id| Example::Id((*id).clone()));
        let values = |values: &Vec<f32>| Some(Example::Values(values.clone()));
        let list = |examples: [Option<Example>; 2]| examples.into_iter().flatten().collect::<Vec<_>>();
        let positive = match kind % 3 {
            0 => list([row(first), row(second)]),
            1 => list([row(first), values(&tokens[0])]),
            _ => list([values(&tokens[0]), None]),
        };
        let negative = match kind / 3 % 3 {
            0 => Vec::new(),
            1 => list([row(second), None]),
            _ => list([row(second), values(query)]),
        };
        let expected = self.model.recommend(name, [&positive, &negative], self.filter);
        if let Some(expected) = expected {
            let what = format!("recommended by {name}: {positive:?}, {negative:?}");
            assert_best(&self.hits(&Query::recommend(name, positive, negative).k(*k)), &expected, *k, &what);
        }
    }

    /// The fusion of two queries is that of their results.
    fn compare_fusion(&self) {
        let queries = self.fused_queries();
        let lists = queries.iter().map(|(weight, query)| (*weight, self.hits(query))).collect::<Vec<_>>();
        let expected = fused(&lists);
        let hits = self.hits(&Query::fusion(queries).k(5));
        let mut best: Vec<f64> = expected.values().copied().collect();
        best.sort_by(|a, b| b.total_cmp(a));
        best.truncate(5);
        assert_eq!(hits.iter().map(|hit| hit.score).collect::<Vec<_>>(), best);
        assert!(hits.iter().all(|hit| hit.score == expected[&hit.id]), "{hits:?}");
    }

    fn fused_queries(&self) -> Vec<(f64, Query)> {
        vec![(1.0, Query::nearest("dot", self.case.query.clone()).k(6)), (0.25, Query::text("bird car").k(4))]
    }

    /// Late interaction scores what another query finds, of whatever kind.
    fn compare_late_interaction_over_candidates(&self) {
        let Case { query, tokens, k, .. } = self.case;
        let nearest = Query::nearest("cosine", query.clone()).k(8);
        for over in [nearest, Query::text("bird car").k(8), Query::fusion(self.fused_queries()).k(8)] {
            let candidates = self.hits(&over);
            for name in ["tokens", "dot"] {
                let expected = self.model.rescored(name, tokens, candidates.iter().map(|hit| &hit.id));
                let hits = self.hits(&Query::max_sim_over(name, tokens.clone(), over.clone()).k(*k));
                assert_best(&hits, &expected, *k, &format!("late interaction, {name} over {over:?}"));
            }
        }
    }
}

/// Applies operations to a store and a model, and compares them after each.
fn run(
    engine: &dyn Engine,
    quantization: Quantization,
    settings: SearchSettings,
    mut operations: Vec<Operation>,
    case: &Case,
) {
    drop(engine.create(&config(quantization)));
    let mut store = engine.open(settings);
    let mut model = Model::default();
    let filter = case.filter.as_ref().map(|text| Filter::parse(text).unwrap());
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
        Asked { store: store.as_ref(), model: &model, case, filter: filter.as_ref() }.compare();
        let stats = store.stats().unwrap();
        assert_eq!(stats.rows, model.rows.len());
        for vector in stats.vectors {
            assert_eq!(vector.rows, model.ids_with(&vector.name).len(), "{}", vector.name);
        }
    }
    let report = store.check(&mut |_, _, _| {}).unwrap();
    assert_eq!((report.rows, report.problems.as_slice()), (model.rows.len(), &[][..]));
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
    fn exact_search_is_that_of_the_definitions(operations in vec(operation(), 1..8), case in case(1..12)) {
        run(&Folder::new(), Quantization::F16, SearchSettings::default(), operations, &case);
    }

    /// Memory for two vectors: everything else is read from the database each time.
    #[test]
    fn vectors_beyond_the_memory_are_read(operations in vec(operation(), 1..6), case in case(1..12)) {
        let settings = SearchSettings { cache_bytes: 2 * DIM * size_of::<f16>(), ..SearchSettings::default() };
        run(&Folder::new(), Quantization::F16, settings, operations, &case);
    }

    /// Graphs of a few rows, which a search visits completely: results are as exact as without them.
    #[test]
    fn graphs_with_fresh_and_deleted_rows_find_the_same(operations in vec(operation(), 2..10), case in case(1..12)) {
        run(&Folder::new(), Quantization::F16, always_graphs(), operations, &case);
    }

    /// Four times as many candidates as results are scored again by the vectors of the rows: of a graph of 8-bit integers
    /// with at most 32 rows all are, so that results are exact.
    #[test]
    fn graphs_of_8_bit_integers_find_the_same(operations in vec(operation(), 2..10), case in case(8..12)) {
        run(&Folder::new(), Quantization::I8, always_graphs(), operations, &case);
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
        let cases = (vec(operation(), 1..8), case(1..12));
        let result = TestRunner::new(config).run(&cases, |(operations, case)| {
            run(&server.schema(), Quantization::F16, settings, operations, &case);
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
