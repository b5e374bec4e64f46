//! Groups of rows that are nearly the same.

use crate::{Distance, Error, OnProgress, Query, Result, Store, row::Vectors};
use rayon::prelude::*;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

/// Rows that are read at once, whose neighbors are in memory together.
const PAGE: usize = 256;

/// Nearest rows that are looked at of every row.
const FIRST_NEIGHBORS: usize = 32;

/// Nearest rows that are looked at of a row at most.
const MAX_NEIGHBORS: usize = 1024;

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
/// Of every row the 32 nearest ones are looked at, and more, up to 1024, as long as all of them are similar and some of
/// them were not in its group before. So groups may stay apart that are connected only by rows of which each has more
/// similar rows in its own group. In memory are the ids of all rows, and of 256 rows their neighbors: up to 30 MB of ids of
/// usual length.
///
/// # Errors
/// When there is no such vector, rows may have several of it, the threshold is no similarity, or the store cannot be read.
pub fn duplicates(
    store: &dyn Store,
    vector: &str,
    threshold: f64,
    stop: &AtomicBool,
    on_progress: OnProgress<'_>,
) -> Result<Vec<DuplicateGroup>> {
    let config = store.config().vector(vector)?;
    let is_cosine = config.distance == Distance::Cosine;
    if !threshold.is_finite() || (is_cosine && !(-1.0..=1.0).contains(&threshold)) {
        return Err(Error::invalid("threshold", threshold, "a similarity; of cosine, from -1 to 1"));
    }
    if config.multi {
        let expected = "a vector of which a row has one";
        return Err(Error::invalid(format!("vector `{vector}`"), "several vectors a row", expected));
    }
    let total = store.stats()?.rows;
    let mut groups = Groups::default();
    let (mut cursor, mut done) = (None, 0);
    loop {
        on_progress(vector, done, total);
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped { done, total });
        }
        let page = store.page(cursor, PAGE)?;
        done += page.rows.len();
        let rows = page.rows.iter().filter_map(|row| match row.vectors.get(vector) {
            Some(Vectors::Single(values)) => Some(Wanted::new(&row.id, values, threshold, is_cosine)),
            _ => None,
        });
        let rows: Vec<Wanted<'_>> = rows.collect();
        for row in &rows {
            groups.index(row.id);
        }
        join_similar(store, vector, rows, &mut groups)?;
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(groups.into_groups()),
        }
    }
}

/// A row whose similar rows are wanted.
struct Wanted<'a> {
    id: &'a str,
    values: &'a [f32],
    /// Vectors that were rounded to 16 bits are not exactly of length 1.
    length: f64,
    /// The greatest similarity that there is.
    limit: f64,
    /// The least score of a similar row.
    least: f64,
}

impl<'a> Wanted<'a> {
    fn new(id: &'a str, values: &'a [f32], threshold: f64, is_cosine: bool) -> Self {
        let norm = || values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let (length, limit) = if is_cosine { (norm(), 1.0) } else { (1.0, f64::INFINITY) };
        Self { id, values, length, limit, least: threshold * length - ROUNDING }
    }

    /// The similar ones of the `k` nearest rows, and whether all of them are: there may be more.
    fn similar(&self, store: &dyn Store, vector: &str, k: usize) -> Result<(Vec<(String, f64)>, bool)> {
        let hits = store.query(&Query::nearest(vector, self.values.to_vec()).k(k))?.hits;
        let is_full = hits.len() == k && hits.last().is_some_and(|hit| hit.score >= self.least);
        let similar = hits.into_iter().filter(|hit| hit.score >= self.least && hit.id != self.id);
        Ok((similar.map(|hit| (hit.id, (hit.score / self.length).min(self.limit))).collect(), is_full))
    }
}

/// Joins some rows with those that are similar to them, looking at more of them as long as that joins any.
fn join_similar(store: &dyn Store, vector: &str, mut rows: Vec<Wanted<'_>>, groups: &mut Groups) -> Result<()> {
    let mut k = FIRST_NEIGHBORS;
    while !rows.is_empty() {
        let found: Vec<_> = rows.par_iter().map(|row| row.similar(store, vector, k)).collect::<Result<_>>()?;
        let mut unfinished = Vec::new();
        for (row, (similar, is_full)) in rows.into_iter().zip(found) {
            let mut has_joined = false;
            for (other, similarity) in similar {
                has_joined |= groups.join(row.id, &other, similarity);
            }
            if is_full && has_joined && k < MAX_NEIGHBORS {
                unfinished.push(row);
            }
        }
        rows = unfinished;
        k = (4 * k).min(MAX_NEIGHBORS);
    }
    Ok(())
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

    /// Joins the groups of two rows; false where they were one.
    fn join(&mut self, a: &str, b: &str, similarity: f64) -> bool {
        let (a, b) = (self.index(a), self.index(b));
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return false;
        }
        let (first, second) = (a.min(b), a.max(b));
        self.parents[second] = first;
        self.similarities[first] = self.similarities[first].min(self.similarities[second]).min(similarity);
        true
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
        for threshold in [1.1, -1.1, f64::NAN, f64::NEG_INFINITY] {
            assert!(find(threshold).unwrap_err().to_string().contains("from -1 to 1"));
        }
    }

    /// Each row has more similar ones than are looked at.
    #[test]
    fn many_similar_rows_are_one_group_without_looking_at_all_pairs() {
        const ROWS: usize = 3 * MAX_NEIGHBORS;
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(folder.path(), &StoreConfig::new("v", VectorConfig::cosine(2))).unwrap();
        let equal = |n: usize| Row::new(format!("{n}")).with_vector("v", vec![0.6, 0.8]);
        store.upsert(&(0..ROWS).map(equal).collect::<Vec<_>>()).unwrap();
        let find = |threshold| duplicates(&store, "v", threshold, &AtomicBool::new(false), &mut |_, _, _| {}).unwrap();
        let found = find(0.99);
        assert_eq!(found.iter().map(|group| group.ids.len()).collect::<Vec<_>>(), [ROWS]);
        // All pairs are similar enough.
        let apart = |n: usize| {
            let angle = n as f32;
            Row::new(format!("{n}")).with_vector("v", vec![angle.cos(), angle.sin()])
        };
        store.upsert(&(0..ROWS).map(apart).collect::<Vec<_>>()).unwrap();
        let found = find(-1.0);
        assert_eq!(found.iter().map(|group| group.ids.len()).collect::<Vec<_>>(), [ROWS]);
    }
}
