//! Clusters of similar values: k-means over the vectors of a store.

mod kmeans;

use crate::{Error, Result};
use kmeans::Points;
use mm_core::seed::Rng;
use mm_index::{Distance, Hit, OnProgress, Row, Store, Vectors};
use std::sync::atomic::{AtomicBool, Ordering};

/// Centroids are computed from so many rows a cluster at most, sampled uniformly; more change them little.
const SAMPLES_PER_CLUSTER: usize = 256;

/// Rows that are read and scored at once.
const PAGE: usize = 1000;

/// Options for clustering.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Number of clusters.
    pub k: usize,
    /// Seed of the sample and the first centroids.
    pub seed: u64,
    /// Rows nearest to its centroid that are returned of each cluster.
    pub examples: usize,
}

/// One cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Number of vectors; rows may have several.
    pub vectors: usize,
    /// Mean score of its vectors with its centroid: the cosine, or the negative distance.
    pub score: f64,
    /// The rows of the vectors nearest to its centroid, the nearest first, each once.
    pub examples: Vec<Hit>,
}

/// The cluster of a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The id of its row.
    pub id: String,
    /// Its number among the row's vectors.
    pub value: usize,
    /// The number of its cluster.
    pub cluster: usize,
    /// Its score with the centroid.
    pub score: f64,
}

/// Clusters, the largest first, and the cluster of each vector.
#[derive(Debug, Clone, Default)]
pub struct Clustering {
    /// The clusters.
    pub clusters: Vec<Cluster>,
    /// The vectors in the order in which their rows were written.
    pub assignments: Vec<Assignment>,
}

/// Clusters the vectors of one name of a store. In memory are 256 vectors a cluster at most, the ids, and 128 MB of what is
/// computed from them at once.
///
/// # Errors
/// When there are fewer than `k` of these vectors, or the store cannot be read;
/// [`mm_index::Error::Stopped`] when it was stopped.
pub fn cluster(
    store: &dyn Store,
    vector: &str,
    options: &ClusterOptions,
    stop: &AtomicBool,
    on_progress: OnProgress<'_>,
) -> Result<Clustering> {
    let config = store.config().vector(vector)?;
    let (dim, is_cosine) = (config.dim, config.distance == Distance::Cosine);
    let mut random = Rng::new(&[options.seed]);
    let capacity = options.k.saturating_mul(SAMPLES_PER_CLUSTER);
    let (mut sample, mut count) = (Vec::new(), 0);
    for_each_page(store, vector, stop, &mut |done, total| on_progress("sampling", done, total), |rows| {
        for (_, _, values) in rows {
            // Every vector is in the sample with the same probability.
            let place = if count < capacity { count } else { random.below(count + 1) };
            count += 1;
            match place * dim {
                start if start == sample.len() => sample.extend_from_slice(values),
                start if place < capacity => sample[start..start + dim].copy_from_slice(values),
                _ => {}
            }
        }
        Ok(())
    })?;
    if count == 0 {
        let expected = format!("at least {}, one a cluster; `mm index build` or `add` writes them", options.k.max(1));
        return Err(Error::invalid(format!("vectors `{vector}` of the store"), "none", expected));
    }
    if options.k == 0 || count < options.k {
        let expected = format!("1 to {count}, the vectors {vector} of the store");
        return Err(Error::invalid("k", options.k, expected));
    }
    let points = Points::new(sample, dim, is_cosine);
    let centroids = points.centroids(options.k, &mut random, stop, on_progress)?;
    let mut clusters = vec![Cluster { vectors: 0, score: 0.0, examples: Vec::new() }; options.k];
    let mut assignments = Vec::with_capacity(count);
    for_each_page(store, vector, stop, &mut |done, total| on_progress("assigning", done, total), |rows| {
        let values = rows.iter().flat_map(|(_, _, values)| values.iter().copied()).collect();
        let nearest = Points::new(values, dim, is_cosine).nearest(&centroids, stop)?;
        for ((row, value, _), (index, score)) in rows.iter().zip(nearest) {
            let cluster = &mut clusters[index];
            cluster.vectors += 1;
            cluster.score += score;
            let at = cluster.examples.partition_point(|hit| hit.score >= score);
            if let Some(same) = cluster.examples.iter().position(|hit| hit.id == row.id) {
                if same >= at {
                    cluster.examples[same].score = score;
                    cluster.examples[at..=same].rotate_right(1);
                }
            } else if at < options.examples {
                let (id, payload, text) = (row.id.clone(), row.payload.clone(), row.text.clone());
                cluster.examples.insert(at, Hit { id, score, payload, text, contributions: Vec::new() });
                cluster.examples.truncate(options.examples);
            }
            assignments.push(Assignment { id: row.id.clone(), value: *value, cluster: index, score });
        }
        Ok(())
    })?;
    for cluster in &mut clusters {
        cluster.score /= cluster.vectors.max(1) as f64;
    }
    Ok(by_size(clusters, assignments))
}

/// Numbers clusters by their size, the largest first; empty ones (of vectors that are all the same) are left out.
fn by_size(clusters: Vec<Cluster>, mut assignments: Vec<Assignment>) -> Clustering {
    let mut number = vec![0; clusters.len()];
    let mut kept: Vec<(usize, Cluster)> = clusters.into_iter().enumerate().filter(|(_, c)| c.vectors > 0).collect();
    kept.sort_by_key(|(_, cluster)| std::cmp::Reverse(cluster.vectors));
    kept.iter().enumerate().for_each(|(new, (old, _))| number[*old] = new);
    assignments.iter_mut().for_each(|row| row.cluster = number[row.cluster]);
    Clustering { clusters: kept.into_iter().map(|(_, cluster)| cluster).collect(), assignments }
}

/// Calls `each` with the vectors of the rows of a page: the row, the number among its vectors, the vector.
fn for_each_page(
    store: &dyn Store,
    vector: &str,
    stop: &AtomicBool,
    on_progress: &mut dyn FnMut(usize, usize),
    mut each: impl FnMut(&[(&Row, usize, &[f32])]) -> Result<()>,
) -> Result<()> {
    let (total, mut done, mut cursor) = (store.stats()?.rows, 0, None);
    loop {
        on_progress(done, total);
        if stop.load(Ordering::Relaxed) {
            return Err(mm_index::Error::Stopped { done, total }.into());
        }
        let page = store.page(cursor, PAGE)?;
        done += page.rows.len();
        let mut rows: Vec<(&Row, usize, &[f32])> = Vec::new();
        for row in &page.rows {
            let vectors = row.vectors.get(vector).into_iter().flat_map(Vectors::iter);
            rows.extend(vectors.enumerate().map(|(value, vector)| (row, value, vector)));
        }
        if !rows.is_empty() {
            each(&rows)?;
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_index::{SqliteStore, StoreConfig, VectorConfig};

    fn store(folder: &std::path::Path, distance: Distance) -> SqliteStore {
        let config = VectorConfig { distance, ..VectorConfig::cosine(3) };
        let store = SqliteStore::create(folder, &StoreConfig::new("v", config)).unwrap();
        // 60 rows around the first axis, 30 around the second, 10 around the third, and one without a vector.
        let mut random = Rng::new(&[7]);
        let mut rows = vec![Row::new("none")];
        for n in 0..100 {
            let axis = usize::from(n >= 60) + usize::from(n >= 90);
            let mut vector: Vec<f32> = (0..3).map(|_| random.uniform_range(-0.2, 0.2) as f32).collect();
            vector[axis] += 1.0;
            rows.push(Row::new(format!("{axis}-{n}")).with_vector("v", vector));
        }
        store.upsert(&rows).unwrap();
        store
    }

    fn run(store: &SqliteStore, k: usize, stop: bool) -> Result<Clustering> {
        let options = ClusterOptions { k, seed: 1, examples: 4 };
        cluster(store, "v", &options, &AtomicBool::new(stop), &mut |_, _, _| {})
    }

    #[test]
    fn every_vector_of_a_row_is_clustered_and_the_row_shown_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = VectorConfig { multi: true, ..VectorConfig::cosine(2) };
        let store = SqliteStore::create(&folder.path().join("s"), &StoreConfig::new("v", config)).unwrap();
        let row = |id: &str, vectors: &[[f32; 2]]| Row {
            vectors: [("v".to_owned(), Vectors::Multi(vectors.iter().map(|v| v.to_vec()).collect()))].into(),
            ..Row::new(id)
        };
        let rows = [row("a", &[[1.0, 0.1], [1.0, 0.0], [0.0, 1.0]]), row("b", &[[1.0, -0.1], [0.1, 1.0]])];
        store.upsert(&rows).unwrap();
        let found = run(&store, 2, false).unwrap();
        assert_eq!(found.clusters.iter().map(|c| c.vectors).collect::<Vec<_>>(), [3, 2]);
        let assigned: Vec<_> = found.assignments.iter().map(|a| (a.id.as_str(), a.value, a.cluster)).collect();
        assert_eq!(assigned, [("a", 0, 0), ("a", 1, 0), ("a", 2, 1), ("b", 0, 0), ("b", 1, 1)]);
        for cluster in &found.clusters {
            let mut ids: Vec<&str> = cluster.examples.iter().map(|hit| hit.id.as_str()).collect();
            assert!(cluster.examples[0].score >= cluster.examples[1].score, "{:?}", cluster.examples);
            ids.sort_unstable();
            assert_eq!(ids, ["a", "b"]);
        }
        // The best vector of the row counts.
        assert!(found.clusters[0].examples[0].id == "a" && found.clusters[0].examples[0].score > 0.999);
    }

    #[test]
    fn it_is_stopped_in_every_step() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder.path().join("s"), Distance::Cosine);
        for wanted in ["sampling", "choosing", "iterating", "assigning"] {
            let (stop, mut last) = (AtomicBool::new(false), String::new());
            let options = ClusterOptions { k: 3, seed: 1, examples: 4 };
            let stopped = cluster(&store, "v", &options, &stop, &mut |step, _, _| {
                last = step.to_owned();
                stop.store(step == wanted, Ordering::Relaxed);
            });
            assert!(stopped.unwrap_err().to_string().contains("stopped"), "{wanted}");
            assert_eq!(last, wanted);
        }
    }

    #[test]
    fn rows_around_three_axes_are_three_clusters() {
        for distance in [Distance::Cosine, Distance::Euclidean, Distance::Dot] {
            let folder = tempfile::tempdir().unwrap();
            let store = store(&folder.path().join("s"), distance);
            let found = run(&store, 3, false).unwrap();
            assert_eq!(found.clusters.iter().map(|c| c.vectors).collect::<Vec<_>>(), [60, 30, 10], "{distance:?}");
            assert_eq!(found.assignments.len(), 100);
            for row in &found.assignments {
                assert!(row.id.starts_with(&format!("{}-", row.cluster)), "{distance:?} {row:?}");
            }
            for (number, cluster) in found.clusters.iter().enumerate() {
                let scores: Vec<f64> = cluster.examples.iter().map(|hit| hit.score).collect();
                assert!(scores.len() == 4 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
                let of_cluster = found.assignments.iter().filter(|row| row.cluster == number);
                let best = of_cluster.clone().map(|row| row.score).fold(f64::NEG_INFINITY, f64::max);
                let mean = of_cluster.clone().map(|row| row.score).sum::<f64>() / of_cluster.count() as f64;
                assert!(scores[0] == best && (cluster.score - mean).abs() < 1e-12);
            }
            // The same seed gives the same clusters.
            assert_eq!(run(&store, 3, false).unwrap().assignments, found.assignments);
            assert_eq!(run(&store, 100, false).unwrap().clusters.len(), 100);
            let refused = |k| run(&store, k, false).unwrap_err().to_string();
            assert!(refused(0).contains("found 0, expected 1 to 100") && refused(101).contains("found 101"));
            assert!(run(&store, 3, true).unwrap_err().to_string().contains("stopped"));
        }
    }
}
