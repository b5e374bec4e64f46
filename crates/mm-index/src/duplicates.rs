//! Groups of rows that are nearly the same.

use crate::{Distance, Error, OnProgress, Query, Result, Store, row::Vectors};
use rayon::prelude::*;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

/// Rows that are read at once.
const PAGE: usize = 256;

/// Neighbors that are looked at first; more where all of them are similar.
const NEIGHBORS: usize = 8;

/// By how much sums of rounded numbers may differ.
const ROUNDING: f64 = 1e-6;

/// Rows that are connected by pairs whose similarity is at least a threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DuplicateGroup {
    /// Their ids, in the order in which they were written: two or more.
    pub ids: Vec<String>,
    /// The least similarity of the pairs that connect them.
    pub similarity: f64,
}

/// Finds groups of rows whose vectors of this name are similar (connected components of the pairs with a score of at
/// least `threshold`), the largest groups first.
///
/// # Errors
/// When there is no such vector, rows may have several of it, or the store cannot be read.
pub fn duplicates(
    store: &dyn Store,
    vector: &str,
    threshold: f64,
    stop: &AtomicBool,
    on_progress: OnProgress<'_>,
) -> Result<Vec<DuplicateGroup>> {
    let config = store.config().vector(vector)?;
    let is_cosine = config.distance == Distance::Cosine;
    if threshold.is_nan() || (is_cosine && !(-1.0..=1.0).contains(&threshold)) {
        return Err(Error::invalid("threshold", threshold, "a similarity; of cosine, from -1 to 1"));
    }
    if config.multi {
        let expected = "a vector of which a row has one";
        return Err(Error::invalid(format!("vector `{vector}`"), "several vectors a row", expected));
    }
    let total = store.versions()?.len();
    let mut groups = Groups::default();
    let (mut cursor, mut done) = (None, 0);
    loop {
        on_progress(vector, done, total);
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped { done, total });
        }
        let page = store.page(cursor, PAGE)?;
        done += page.rows.len();
        let with_vector = page.rows.iter().filter_map(|row| match row.vectors.get(vector) {
            Some(Vectors::Single(values)) => Some((&row.id, values)),
            _ => None,
        });
        let rows: Vec<(&String, &Vec<f32>)> = with_vector.collect();
        for (id, _) in &rows {
            groups.index(id);
        }
        let similar = |(id, values): &(&String, &Vec<f32>)| {
            // Vectors that were rounded to 16 bits are not exactly of length 1.
            let length = if is_cosine { values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt() } else { 1.0 };
            let found = similar_rows(store, vector, values, threshold * length - ROUNDING)?;
            let limit = if is_cosine { 1.0 } else { f64::INFINITY };
            Ok((
                (*id).clone(),
                found.into_iter().map(|(id, score)| (id, (score / length).min(limit))).collect::<Vec<_>>(),
            ))
        };
        let pairs: Vec<_> = rows.par_iter().map(similar).collect::<Result<Vec<_>>>()?;
        for (id, neighbors) in pairs {
            neighbors
                .into_iter()
                .filter(|(other, _)| *other != id)
                .for_each(|(other, score)| groups.join(&id, &other, score));
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(groups.into_groups()),
        }
    }
}

/// The rows whose score is at least the threshold.
fn similar_rows(store: &dyn Store, vector: &str, values: &[f32], threshold: f64) -> Result<Vec<(String, f64)>> {
    let mut k = NEIGHBORS;
    loop {
        let hits = store.query(&Query::nearest(vector, values.to_vec()).k(k))?.hits;
        let is_complete = hits.len() < k || hits.last().is_none_or(|hit| hit.score < threshold);
        if is_complete {
            return Ok(hits.into_iter().filter(|hit| hit.score >= threshold).map(|hit| (hit.id, hit.score)).collect());
        }
        k *= 4;
    }
}

/// Connected components: a forest whose roots stand for their groups (union-find).
#[derive(Default)]
struct Groups {
    indices: HashMap<String, usize>,
    ids: Vec<String>,
    parents: Vec<usize>,
    /// At a root: the least similarity that joined its group.
    similarities: Vec<f64>,
}

impl Groups {
    fn index(&mut self, id: &str) -> usize {
        if let Some(index) = self.indices.get(id) {
            return *index;
        }
        let index = self.ids.len();
        self.indices.insert(id.to_owned(), index);
        self.ids.push(id.to_owned());
        self.parents.push(index);
        self.similarities.push(f64::INFINITY);
        index
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.parents[index] != index {
            self.parents[index] = self.parents[self.parents[index]];
            index = self.parents[index];
        }
        index
    }

    fn join(&mut self, a: &str, b: &str, similarity: f64) {
        let (a, b) = (self.index(a), self.index(b));
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            let (first, second) = (a.min(b), a.max(b));
            self.parents[second] = first;
            self.similarities[first] = self.similarities[first].min(self.similarities[second]).min(similarity);
        }
    }

    fn into_groups(mut self) -> Vec<DuplicateGroup> {
        let mut groups: BTreeMap<usize, DuplicateGroup> = BTreeMap::new();
        for index in 0..self.ids.len() {
            let root = self.root(index);
            let similarity = self.similarities[root];
            let group = groups.entry(root).or_insert_with(|| DuplicateGroup { ids: Vec::new(), similarity });
            group.ids.push(self.ids[index].clone());
        }
        let mut groups: Vec<DuplicateGroup> = groups.into_values().filter(|group| group.ids.len() > 1).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.ids.len()));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Row, SqliteStore, StoreConfig, VectorConfig};

    #[test]
    fn chains_of_similar_rows_are_one_group() {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig::new("v", VectorConfig::cosine(2));
        let store = SqliteStore::create(folder.path(), &config).unwrap();
        let angle = |degrees: f32| vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
        // Neighbors of 10° in a chain of 12, a pair, and one alone.
        let mut rows: Vec<Row> =
            (0..12u8).map(|n| Row::new(format!("c{n}")).with_vector("v", angle(10.0 * f32::from(n)))).collect();
        rows.extend([200.0, 201.0].map(|d| Row::new(format!("p{d}")).with_vector("v", angle(d))));
        rows.push(Row::new("alone").with_vector("v", angle(300.0)));
        rows.push(Row::new("without"));
        store.upsert(&rows).unwrap();
        let found = duplicates(&store, "v", 0.98, &AtomicBool::new(false), &mut |_, _, _| {}).unwrap();
        let sizes: Vec<usize> = found.iter().map(|group| group.ids.len()).collect();
        assert_eq!(sizes, [12, 2], "{found:?}");
        assert_eq!(found[1].ids, ["p200", "p201"]);
        assert!((found[0].similarity - 10f64.to_radians().cos()).abs() < 1e-3, "{found:?}");
        assert!(found[1].similarity > 0.999);
    }

    #[test]
    fn equal_vectors_are_found_at_every_threshold() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(folder.path(), &StoreConfig::new("v", VectorConfig::cosine(3))).unwrap();
        let row = |id: &str, vector: [f32; 3]| Row::new(id).with_vector("v", vector.to_vec());
        store.upsert(&[row("a", [0.3, 0.7, -0.2]), row("b", [0.3, 0.7, -0.2]), row("c", [0.31, 0.7, -0.2])]).unwrap();
        let find = |threshold| duplicates(&store, "v", threshold, &AtomicBool::new(false), &mut |_, _, _| {});
        let found = find(1.0).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].ids, ["a", "b"]);
        assert!((found[0].similarity - 1.0).abs() < 1e-6 && found[0].similarity <= 1.0, "{found:?}");
        for threshold in [1.1, f64::NAN] {
            assert!(find(threshold).unwrap_err().to_string().contains("from -1 to 1"));
        }
    }
}
