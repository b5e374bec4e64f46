//! Example queries of a retrieval report, from good to bad, each with its first results.

use super::{super::EmbeddedSplit, gallery::Shown};
use crate::Result;
use mm_core::{Modality, seed::Rng};
use serde::Serialize;
use std::collections::BTreeMap;

/// Queries of a direction.
const NUM_QUERIES: usize = 6;
/// Results of a query.
const NUM_HITS: usize = 5;
/// Queries that are ranked to choose the examples from, at most.
const MAX_RANKED: usize = 1000;

#[derive(Serialize)]
struct Hit {
    value: Shown,
    is_match: bool,
    score: String,
}

#[derive(Serialize)]
struct Query {
    value: Shown,
    /// Rank of the first match, from 1.
    rank: usize,
    hits: Vec<Hit>,
    /// The first match, where it is not among the hits.
    expected: Option<Shown>,
}

#[derive(Serialize)]
pub(super) struct Example {
    direction: String,
    gallery_size: usize,
    queries: Vec<Query>,
}

/// A query with the order of its results.
struct Ranked {
    index: usize,
    /// Rank of the first match, from 0.
    rank: usize,
    /// Entries of the gallery with their scores: the first results, and the first match.
    hits: Vec<(usize, f64)>,
    first_match: usize,
}

/// Queries of every direction to images and text. Those of a direction are sorted by the rank of their first match, and
/// one is taken in the middle of each sixth, so that they are as good and as bad as the direction is.
pub(super) fn examples(embedded: &BTreeMap<Modality, EmbeddedSplit>) -> Result<Vec<Example>> {
    let mut random = Rng::new(&[2025]);
    let mut out = Vec::new();
    for to in [Modality::IMAGE, Modality::TEXT] {
        let Some(gallery) = embedded.get(&to) else { continue };
        let mut others: Vec<_> = embedded.iter().filter(|(from, _)| **from != to).collect();
        // Queries that can be read come before those that can only be heard.
        others.sort_by_key(|(from, _)| **from != Modality::TEXT);
        for (from, queries) in others {
            let mut indices: Vec<usize> = (0..queries.entries.len()).collect();
            random.shuffle(&mut indices);
            indices.truncate(MAX_RANKED);
            let mut ranked = Vec::new();
            for index in indices {
                ranked.extend(rank(index, queries, gallery)?);
            }
            ranked.sort_by_key(|r| r.rank);
            let chosen = quantiles(ranked.len()).into_iter().map(|n| show(&ranked[n], queries, gallery)).collect();
            let direction = format!("{from}_to_{to}");
            out.push(Example { direction, gallery_size: gallery.entries.len(), queries: chosen });
        }
    }
    Ok(out)
}

/// The middle of each sixth of the indices below `count`; all of them where there are no more than six.
fn quantiles(count: usize) -> Vec<usize> {
    let chosen = count.min(NUM_QUERIES);
    (0..chosen).map(|n| (2 * n + 1) * count / (2 * chosen)).collect()
}

/// The results of a query; `None` where nothing in the gallery matches it.
fn rank(index: usize, queries: &EmbeddedSplit, gallery: &EmbeddedSplit) -> Result<Option<Ranked>> {
    let query = queries.vectors.select(0, index as i64)?;
    let scores = gallery.vectors.matmul(&query.unsqueeze(1)?)?.squeeze(1)?.to_vec::<f64>()?;
    let item = &queries.entries[index].item;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let Some(rank) = order.iter().position(|n| gallery.entries[*n].item == *item) else { return Ok(None) };
    let hits = order.iter().take(NUM_HITS).map(|n| (*n, scores[*n])).collect();
    Ok(Some(Ranked { index, rank, hits, first_match: order[rank] }))
}

fn show(ranked: &Ranked, queries: &EmbeddedSplit, gallery: &EmbeddedSplit) -> Query {
    let entry = &queries.entries[ranked.index];
    let hit = |(hit, score): &(usize, f64)| {
        let found = &gallery.entries[*hit];
        Hit { value: Shown::of(found), is_match: found.item == entry.item, score: format!("{score:.2}") }
    };
    let expected = (ranked.rank >= NUM_HITS).then(|| Shown::of(&gallery.entries[ranked.first_match]));
    let hits = ranked.hits.iter().map(hit).collect();
    Query { value: Shown::of(entry), rank: ranked.rank + 1, hits, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::Entry;
    use mm_core::{Source, Tensor};

    #[test]
    fn one_query_is_in_the_middle_of_each_sixth() {
        assert_eq!(quantiles(0), [0; 0]);
        assert_eq!(quantiles(3), [0, 1, 2]);
        assert_eq!(quantiles(12), [1, 3, 5, 7, 9, 11]);
    }

    #[test]
    fn a_query_has_the_rank_of_its_match() {
        // Text n points at angle 0.1 n and image n at 0.3 n: texts are ever nearer to the images of smaller items.
        let split = |step: f32, modality: &str| {
            let vectors: Vec<f32> = (0..10).flat_map(|n| [(step * n as f32).cos(), (step * n as f32).sin()]).collect();
            let entry = |n: usize| Entry {
                row: n,
                value: 0,
                item: n.to_string(),
                text: String::new(),
                language: None,
                source: Source::Text(format!("{modality} {n}")),
            };
            let vectors = Tensor::from_slice(&vectors).unwrap().reshape(&[10, 2]).unwrap();
            EmbeddedSplit { vectors, entries: (0..10).map(entry).collect() }
        };
        let embedded = BTreeMap::from([(Modality::TEXT, split(0.1, "text")), (Modality::IMAGE, split(0.3, "image"))]);
        let examples = examples(&embedded).unwrap();
        let directions: Vec<&str> = examples.iter().map(|e| e.direction.as_str()).collect();
        assert_eq!(directions, ["text_to_image", "image_to_text"]);
        let first = &examples[0];
        assert_eq!((first.gallery_size, first.queries.len()), (10, 6));
        let ranks: Vec<usize> = first.queries.iter().map(|q| q.rank).collect();
        assert!(ranks.is_sorted() && ranks[0] == 1 && ranks[5] > 5, "{ranks:?}");
        for query in &first.queries {
            let is_hit = query.hits.iter().position(|h| h.is_match);
            assert_eq!(is_hit, (query.rank <= 5).then(|| query.rank - 1));
            assert_eq!(query.expected.is_some(), query.rank > 5);
        }
    }
}
