//! A graph of nearest neighbors (HNSW) in memory, and its file.
//!
//! Source: *Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs*
//! (Malkov, Yashunin, 2016), by usearch.

use super::filter::{Selection, is_selected};
use crate::{
    Quantization, SearchSettings,
    config::{Distance, VectorConfig},
};
use half::f16;
use std::{
    fs::File,
    path::Path,
    sync::{Condvar, Mutex, PoisonError},
};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind, f16 as UsearchHalf};

/// What usearch reports, as text.
pub(super) type GraphResult<T> = Result<T, String>;

/// Searches of one graph at the same time; further ones wait. usearch refuses more than it has reserved.
const SEARCHES: usize = 64;

/// Largest value of an 8-bit vector.
const I8_MAX: f32 = 127.0;

/// A graph whose keys are the numbers of rows.
pub(super) struct Graph {
    index: Index,
    quantization: Quantization,
    /// What an 8-bit value is multiplied with to be a 32-bit one; 1 for 16-bit floats.
    scale: f32,
    permits: Permits,
}

impl Graph {
    /// An empty graph. `scale` is that of 8-bit values: see [`scale_for`].
    pub(super) fn new(config: &VectorConfig, settings: &SearchSettings, scale: f32) -> GraphResult<Self> {
        let options = IndexOptions {
            dimensions: config.dim,
            // Cosine vectors are of unit length.
            metric: match config.distance {
                Distance::Cosine | Distance::Dot => MetricKind::IP,
                Distance::Euclidean => MetricKind::L2sq,
            },
            quantization: match config.quantization {
                Quantization::F16 => ScalarKind::F16,
                Quantization::I8 => ScalarKind::I8,
            },
            connectivity: settings.connectivity,
            expansion_add: settings.expansion_add,
            expansion_search: settings.candidates(0),
            multi: false,
        };
        let index = Index::new(&options).map_err(|e| e.to_string())?;
        Ok(Self { index, quantization: config.quantization, scale, permits: Permits::new(SEARCHES) })
    }

    /// Makes room for rows, which are added by at most `threads` threads at a time.
    pub(super) fn reserve(&self, capacity: usize, threads: usize) -> GraphResult<()> {
        self.index.reserve_capacity_and_threads(capacity, threads.max(SEARCHES)).map_err(|e| e.to_string())
    }

    /// Reads a file that [`Graph::save`] wrote; the caller has compared its hash.
    pub(super) fn load(&self, path: &Path, settings: &SearchSettings) -> GraphResult<()> {
        self.index.load(utf8(path)?).map_err(|e| e.to_string())?;
        self.index.change_expansion_add(settings.expansion_add);
        self.index.change_expansion_search(settings.candidates(self.index.size()));
        self.reserve(self.index.size(), SEARCHES)
    }

    /// Writes a file, in place: usearch does not replace it atomically, and does not flush it.
    pub(super) fn save(&self, path: &Path) -> GraphResult<()> {
        self.index.save(utf8(path)?).map_err(|e| e.to_string())
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.index.size()
    }

    /// Adds a row; several threads may.
    pub(super) fn add(&self, number: i64, stored: &[f16]) -> GraphResult<()> {
        let key = number.cast_unsigned();
        let added = match self.quantization {
            Quantization::F16 => {
                let bits: Vec<i16> = stored.iter().map(|v| v.to_bits().cast_signed()).collect();
                self.index.add(key, UsearchHalf::from_i16s(&bits))
            }
            Quantization::I8 => self.index.add(key, &self.quantize(stored.iter().map(|v| v.to_f32()))),
        };
        added.map_err(|e| e.to_string())
    }

    fn quantize(&self, values: impl Iterator<Item = f32>) -> Vec<i8> {
        values.map(|v| (v / self.scale).round().clamp(-I8_MAX, I8_MAX) as i8).collect()
    }

    /// About the `count` nearest rows to a prepared vector, nearest first.
    pub(super) fn search(&self, query: &[f32], count: usize, selection: Option<&Selection>) -> GraphResult<Vec<i64>> {
        let _permit = self.permits.take();
        // Beyond the range of 16-bit floats distances would be infinite.
        let limit = f16::MAX.to_f32();
        let query: &[f32] = &query.iter().map(|v| v.clamp(-limit, limit)).collect::<Vec<_>>();
        let wanted = |key: u64| selection.is_none_or(|s| is_selected(s, key.cast_signed()));
        let found = match (self.quantization, selection) {
            (Quantization::F16, None) => self.index.search(query, count),
            (Quantization::F16, Some(_)) => self.index.filtered_search(query, count, wanted),
            (Quantization::I8, None) => self.index.search(&self.quantize(query.iter().copied()), count),
            (Quantization::I8, Some(_)) => {
                self.index.filtered_search(&self.quantize(query.iter().copied()), count, wanted)
            }
        };
        Ok(found.map_err(|e| e.to_string())?.keys.into_iter().map(u64::cast_signed).collect())
    }

    /// Appends the stored vector of a row, where the graph holds it as it is stored; false otherwise. `bits` is memory to
    /// work in.
    pub(super) fn vector(&self, number: i64, bits: &mut Vec<i16>, values: &mut Vec<f16>) -> bool {
        if self.quantization != Quantization::F16 {
            return false;
        }
        bits.resize(self.index.dimensions(), 0);
        let found = self.index.get(number.cast_unsigned(), UsearchHalf::from_mut_i16s(bits));
        if !matches!(found, Ok(1)) {
            return false;
        }
        values.extend(bits.iter().map(|b| f16::from_bits(b.cast_unsigned())));
        true
    }
}

/// The scale of 8-bit values for vectors whose greatest absolute value is `largest`.
pub(super) fn scale_for(quantization: Quantization, largest: f32) -> f32 {
    match quantization {
        Quantization::I8 if largest > 0.0 => largest / I8_MAX,
        _ => 1.0,
    }
}

/// The blake3 hash of a file.
pub(super) fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn utf8(path: &Path) -> GraphResult<&str> {
    path.to_str().ok_or_else(|| format!("{}: expected a path in UTF-8, which usearch needs", path.display()))
}

/// Lets a number of threads pass at a time.
struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
}

struct Permit<'a>(&'a Permits);

impl Permits {
    fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), returned: Condvar::new() }
    }

    /// Waits until one is free; it is returned when dropped.
    fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.returned.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}
