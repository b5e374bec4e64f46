//! The rows of a store in memory, and what each kind of query finds among them: nothing but the definitions.

mod cases;

pub use cases::{Case, Operation, case, operation};

use half::f16;
use mm_index::{Distance, Example, Filter, Hit, Quantization, Row, StoreConfig, VectorConfig, Vectors};
use std::collections::BTreeMap;

pub const DIM: usize = 4;

/// Largest difference of scores: vectors are stored as 16-bit floats.
const TOLERANCE: f64 = 2e-3;

/// The constant of BM25's term frequency, and that of the length of a text: those of FTS5.
const BM25: (f64, f64) = (1.2, 0.75);

/// Scores by id.
pub type Scores = BTreeMap<String, f64>;

/// Named vectors of each distance, and one of several vectors a row.
pub fn config(quantization: Quantization) -> StoreConfig {
    let plain = VectorConfig { quantization, ..VectorConfig::cosine(DIM) };
    StoreConfig::new("cosine", plain.clone())
        .with("dot", VectorConfig { distance: Distance::Dot, ..plain.clone() })
        .with("euclidean", VectorConfig { distance: Distance::Euclidean, ..plain.clone() })
        .with("tokens", VectorConfig { multi: true, ..plain })
}

/// The rows by id.
#[derive(Default)]
pub struct Model {
    pub rows: BTreeMap<String, Row>,
}

/// Whether vectors of a name are compared by cosine.
fn is_cosine(name: &str) -> bool {
    matches!(name, "cosine" | "tokens")
}

/// The values of a vector as it is compared.
fn prepared(name: &str, values: &[f32]) -> Vec<f64> {
    let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    if is_cosine(name) { normalized(&values) } else { values }
}

fn normalized(values: &[f64]) -> Vec<f64> {
    let norm = norm(values);
    values.iter().map(|v| v / norm).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v.powi(2)).sum::<f64>().sqrt()
}

/// The values of a vector as it is stored: prepared as 32-bit floats, and rounded to 16 bits.
fn stored(name: &str, values: &[f32]) -> Vec<f64> {
    prepared(name, values).into_iter().map(|v| f64::from(f16::from_f32(v as f32).to_f32())).collect()
}

fn similarity(name: &str, query: &[f64], stored: &[f64]) -> f64 {
    let pairs = query.iter().zip(stored);
    match name {
        "euclidean" => -pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        _ => pairs.map(|(a, b)| a * b).sum(),
    }
}

/// The sum over tokens, which are prepared, of the similarity to the most similar vector of a row.
fn max_sim(name: &str, tokens: &[Vec<f64>], vectors: &Vectors) -> f64 {
    let vectors: Vec<Vec<f64>> = vectors.iter().map(|v| stored(name, v)).collect();
    let best = |token: &Vec<f64>| vectors.iter().map(|v| similarity(name, token, v)).fold(f64::NEG_INFINITY, f64::max);
    tokens.iter().map(best).sum()
}

impl Model {
    fn selected<'a>(&'a self, filter: Option<&'a Filter>) -> impl Iterator<Item = &'a Row> {
        self.rows.values().filter(move |row| filter.is_none_or(|f| f.matches(&row.payload)))
    }

    /// Rows that have a named vector, by their ids.
    pub fn ids_with(&self, name: &str) -> Vec<&String> {
        self.rows.iter().filter(|(_, row)| row.vectors.contains_key(name)).map(|(id, _)| id).collect()
    }

    /// Of one vector the rows nearest to it, of several late interaction.
    pub fn nearest(&self, name: &str, tokens: &[Vec<f32>], filter: Option<&Filter>) -> Scores {
        let tokens: Vec<Vec<f64>> = tokens.iter().map(|token| prepared(name, token)).collect();
        self.nearest_to(name, &tokens, filter)
    }

    fn nearest_to(&self, name: &str, tokens: &[Vec<f64>], filter: Option<&Filter>) -> Scores {
        let score = |row: &Row| Some((row.id.clone(), max_sim(name, tokens, row.vectors.get(name)?)));
        self.selected(filter).filter_map(score).collect()
    }

    /// The rows nearest to twice the mean of the positive examples minus that of the negative ones, without the examples.
    /// None where that has hardly a length, which is divided by for cosine.
    pub fn recommend(
        &self,
        name: &str,
        [positive, negative]: [&[Example]; 2],
        filter: Option<&Filter>,
    ) -> Option<Scores> {
        const LEAST_LENGTH: f64 = 0.1;
        let (wanted, unwanted) = (self.mean(name, positive)?, self.mean(name, negative));
        let unwanted = unwanted.unwrap_or_else(|| wanted.clone());
        let mut target: Vec<f64> = wanted.iter().zip(&unwanted).map(|(p, n)| 2.0 * p - n).collect();
        if is_cosine(name) {
            if norm(&target) < LEAST_LENGTH {
                return None;
            }
            target = normalized(&target);
        }
        let mut scores = self.nearest_to(name, &[target], filter);
        for example in positive.iter().chain(negative) {
            if let Example::Id(id) = example {
                scores.remove(id);
            }
        }
        Some(scores)
    }

    /// The mean of all vectors of examples; none without an example.
    fn mean(&self, name: &str, examples: &[Example]) -> Option<Vec<f64>> {
        let vectors: Vec<Vec<f64>> = examples
            .iter()
            .flat_map(|example| match example {
                Example::Id(id) => self.rows[id].vectors[name].iter().map(|v| stored(name, v)).collect::<Vec<_>>(),
                Example::Values(values) => vec![prepared(name, values)],
            })
            .collect();
        let mean = |index: usize| vectors.iter().map(|v| v[index]).sum::<f64>() / vectors.len() as f64;
        (!vectors.is_empty()).then(|| (0..DIM).map(mean).collect())
    }

    /// Of some rows those that have a named vector, by late interaction.
    pub fn rescored<'a>(
        &self,
        name: &str,
        tokens: &[Vec<f32>],
        candidates: impl IntoIterator<Item = &'a String>,
    ) -> Scores {
        let scores = self.nearest(name, tokens, None);
        candidates.into_iter().filter_map(|id| Some((id.clone(), *scores.get(id)?))).collect()
    }

    /// BM25 as FTS5 defines it: https://www.sqlite.org/fts5.html#the_bm25_function.
    pub fn words(&self, words: &[&str], filter: Option<&Filter>) -> Scores {
        let (k1, b) = BM25;
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

/// The sum of reciprocal ranks of rows in some lists, each with its weight.
pub fn fused(lists: &[(f64, Vec<Hit>)]) -> Scores {
    let mut scores = Scores::new();
    for (weight, hits) in lists {
        for (index, hit) in hits.iter().enumerate() {
            *scores.entry(hit.id.clone()).or_default() += weight / (mm_index::RRF_CONSTANT + 1.0 + index as f64);
        }
    }
    scores
}

/// Asserts that hits are the `k` best of these scores, best first.
pub fn assert_best(hits: &[Hit], scores: &Scores, k: usize, what: &str) {
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
