//! Scores and order of each kind of search by vectors, and of fusions, are those of NumPy for the same vectors
//! (`cargo xtask parity scores` recomputes them).
#![allow(missing_docs)]

mod engines;

use engines::{Engine, on_each_engine};
use mm_index::{Distance, Example, Query, Row, Search, Store, StoreConfig, VectorConfig, Vectors};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest difference of scores, which are computed in 32 bits here.
const TOLERANCE: f64 = 1e-6;

/// What `xtask/parity/scores.py` writes.
#[derive(Deserialize)]
struct Fixture {
    rows: Vec<FixtureRow>,
    query: Vec<f32>,
    tokens: Vec<Vec<f32>>,
    positive: Examples,
    negative: Examples,
    /// How many results each query of a fusion finds.
    depths: [usize; 3],
    weights: [f64; 3],
    constant: f64,
    /// How many results late interaction scores again.
    candidates: usize,
    expected: BTreeMap<String, Ranking>,
}

#[derive(Deserialize)]
struct FixtureRow {
    id: String,
    single: Option<Vec<f32>>,
    multi: Option<Vec<Vec<f32>>>,
}

#[derive(Deserialize)]
struct Examples {
    ids: Vec<String>,
    values: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Ranking {
    ids: Vec<String>,
    scores: Vec<f64>,
}

impl Examples {
    fn list(&self) -> Vec<Example> {
        let ids = self.ids.iter().cloned().map(Example::Id);
        ids.chain(self.values.iter().cloned().map(Example::Values)).collect()
    }
}

impl Fixture {
    fn read() -> Self {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/scores.json");
        let path = std::env::var("MM_PARITY_SCORES").unwrap_or_else(|_| fixture.into());
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// A store whose rows have their vectors under a name for each distance.
    fn store(&self, engine: &dyn Engine) -> Box<dyn Store> {
        let single = VectorConfig::cosine(self.query.len());
        let multi = |distance| VectorConfig { distance, multi: true, ..single.clone() };
        let config = StoreConfig::new("single", single.clone())
            .with("cosine", multi(Distance::Cosine))
            .with("dot", multi(Distance::Dot))
            .with("euclidean", multi(Distance::Euclidean));
        let store = engine.create(&config);
        let row = |row: &FixtureRow| {
            let mut vectors = BTreeMap::new();
            vectors.extend(row.single.clone().map(|values| ("single".to_owned(), Vectors::Single(values))));
            for name in ["cosine", "dot", "euclidean"] {
                vectors.extend(row.multi.clone().map(|list| (name.to_owned(), Vectors::Multi(list))));
            }
            Row { vectors, ..Row::new(&row.id) }
        };
        store.upsert(&self.rows.iter().map(row).collect::<Vec<_>>()).unwrap();
        store
    }

    /// The queries whose results are expected, by the names of these.
    fn queries(&self) -> Vec<(String, Query)> {
        let nearest = Query::nearest("single", self.query.clone());
        let late = |name: &str| Query::max_sim(name, self.tokens.clone());
        let recommend = |name: &str| Query::recommend(name, self.positive.list(), self.negative.list());
        let over = Query::max_sim_over("dot", self.tokens.clone(), nearest.clone().k(self.candidates));
        let parts = [nearest.clone(), late("dot"), recommend("euclidean")];
        let parts: Vec<Query> = parts.into_iter().zip(self.depths).map(|(query, depth)| query.k(depth)).collect();
        let fusion = Query::fusion(parts.iter().map(|part| (1.0, part.clone())).collect());
        let weighted = self.weights.into_iter().zip(parts).collect();
        let weighted =
            Query { search: Search::Fusion { queries: weighted, constant: self.constant }, ..fusion.clone() };
        let mut queries = vec![
            ("nearest".to_owned(), nearest),
            ("recommend single".to_owned(), recommend("single")),
            ("max_sim over nearest".to_owned(), over),
            ("fusion".to_owned(), fusion),
            ("weighted fusion".to_owned(), weighted),
        ];
        for name in ["cosine", "dot", "euclidean"] {
            queries.push((format!("max_sim {name}"), late(name)));
            queries.push((format!("recommend {name}"), recommend(name)));
        }
        queries
    }
}

fn scores_and_order_are_those_of_numpy(engine: &dyn Engine) {
    let fixture = Fixture::read();
    let store = fixture.store(engine);
    let queries = fixture.queries();
    assert_eq!(queries.len(), fixture.expected.len());
    for (name, query) in queries {
        let Ranking { ids, scores } = &fixture.expected[&name];
        let hits = store.query(&query.k(fixture.rows.len())).unwrap().hits;
        assert!(ids.len() > 1 && hits.iter().map(|hit| &hit.id).eq(ids), "{name}: {hits:?}, expected {ids:?}");
        for (hit, score) in hits.iter().zip(scores) {
            assert!((hit.score - score).abs() < TOLERANCE, "{name}: {hit:?}, expected the score {score}");
        }
    }
}

on_each_engine!(scores_and_order_are_those_of_numpy);
