//! A graph of nearest neighbors (HNSW) in memory, and its file.
//!
//! Source: *Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs*
//! (Malkov, Yashunin, 2016), by usearch.

use super::selection::Narrowed;
use crate::{
    Quantization, SearchSettings,
    config::{Distance, VectorConfig},
};
use half::{f16, slice::HalfFloatSliceExt as _};
use std::{
    cell::Cell,
    fs::File,
    path::Path,
    sync::{Condvar, Mutex, PoisonError},
};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind, f16 as UsearchHalf};

/// What usearch reports, as text.
pub(super) type GraphResult<T> = Result<T, String>;

/// Searches of one graph at the same time; further ones wait. usearch refuses more than it has reserved.
const SEARCHES: usize = 64;

/// Candidates that usearch keeps at least: as many as a search wants, which is how each search sets their number.
const LEAST_EXPANSION: usize = 1;

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
    /// An empty graph, for so many rows. `scale` is that of 8-bit values: see [`scale_for`].
    pub(super) fn new(config: &VectorConfig, settings: &SearchSettings, rows: usize, scale: f32) -> GraphResult<Self> {
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
            connectivity: settings.links(rows),
            expansion_add: settings.expansion_add,
            expansion_search: LEAST_EXPANSION,
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
        self.index.change_expansion_search(LEAST_EXPANSION);
        self.reserve(self.index.size(), SEARCHES)
    }

    /// Writes a file, in place: usearch does not replace it atomically, and does not flush it.
    pub(super) fn save(&self, path: &Path) -> GraphResult<()> {
        self.index.save(utf8(path)?).map_err(|e| e.to_string())
    }

    /// The size of the file that [`Graph::save`] writes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.index.serialized_length() as u64
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

    /// About the `count` nearest rows to a prepared vector, nearest first: as many are kept while the graph is walked. None
    /// where selected rows are rarer near the vector than elsewhere: the walk would end at the first of them that it
    /// meets far away, which need not be the nearest.
    pub(super) fn search(
        &self,
        query: &[f32],
        count: usize,
        selection: Option<&Narrowed>,
    ) -> GraphResult<Option<Vec<i64>>> {
        let _permit = self.permits.take();
        // Beyond the range of 16-bit floats distances would be infinite.
        let limit = f16::MAX.to_f32();
        let query: &[f32] = &query.iter().map(|v| v.clamp(-limit, limit)).collect::<Vec<_>>();
        let sampled = Sampled::new(selection.map_or(1.0, |s| s.in_graph as f64 / self.len().max(1) as f64));
        let wanted = |key: u64| selection.is_none_or(|s| sampled.take(s.rows.contains(key.cast_signed())));
        let found = match (self.quantization, selection) {
            (Quantization::F16, None) => self.index.search(query, count),
            (Quantization::F16, Some(_)) => self.index.filtered_search(query, count, wanted),
            (Quantization::I8, None) => self.index.search(&self.quantize(query.iter().copied()), count),
            (Quantization::I8, Some(_)) => {
                self.index.filtered_search(&self.quantize(query.iter().copied()), count, wanted)
            }
        };
        let keys = found.map_err(|e| e.to_string())?.keys;
        Ok((!sampled.is_rare()).then(|| keys.into_iter().map(u64::cast_signed).collect()))
    }

    /// Whether it has a row.
    pub(super) fn contains(&self, number: i64) -> bool {
        self.index.contains(number.cast_unsigned())
    }

    /// Whether it holds vectors as they are stored.
    pub(super) fn has_stored_vectors(&self) -> bool {
        self.quantization == Quantization::F16
    }

    /// Replaces `values` by the stored vector of a row, where the graph holds it as it is stored; false otherwise.
    pub(super) fn vector(&self, number: i64, values: &mut Vec<f16>) -> bool {
        if !self.has_stored_vectors() {
            return false;
        }
        values.resize(self.index.dimensions(), f16::ZERO);
        let bits: &mut [i16] = bytemuck::cast_slice_mut(values.reinterpret_cast_mut());
        matches!(self.index.get(number.cast_unsigned(), UsearchHalf::from_mut_i16s(bits)), Ok(1))
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

/// How often the rows that a walk comes near to are selected ones.
struct Sampled {
    /// The fraction of selected rows among all.
    fraction: f64,
    /// The number of rows at which it is told again whether the selected ones are rarer near the vector.
    next: Cell<usize>,
    rows: Cell<usize>,
    selected: Cell<usize>,
    is_rare: Cell<bool>,
}

impl Sampled {
    /// Selected rows that are expected when it is told the first time.
    const FIRST: f64 = 10.0;
    /// Standard deviations below the expected number that are no accident.
    const DEVIATIONS: f64 = 3.5;

    fn new(fraction: f64) -> Self {
        let next = Cell::new((Self::FIRST / fraction) as usize);
        Self { fraction, next, rows: Cell::new(0), selected: Cell::new(0), is_rare: Cell::new(false) }
    }

    /// Counts a row. Returns whether the walk takes it: once it has failed, it takes every row to come to its end.
    fn take(&self, is_selected: bool) -> bool {
        self.rows.set(self.rows.get() + 1);
        self.selected.set(self.selected.get() + usize::from(is_selected));
        if self.rows.get() == self.next.get() {
            self.next.set(2 * self.next.get());
            self.is_rare.set(self.is_rare());
        }
        is_selected || self.is_rare.get()
    }

    /// Whether selected rows are rarer near the vector than among all rows.
    fn is_rare(&self) -> bool {
        let expected = self.rows.get() as f64 * self.fraction;
        let deviation = (expected * (1.0 - self.fraction).max(0.0)).sqrt();
        self.is_rare.get() || (self.selected.get() as f64) < expected - Self::DEVIATIONS * deviation
    }
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
