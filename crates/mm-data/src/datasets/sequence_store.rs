//! Stores the feature sequences of all rows of a data set, one `.npy` file for each modality.
// Only pickles and HDF5 files hold such sequences.
#![cfg_attr(not(any(feature = "hdf5", feature = "pickle")), allow(dead_code))]

use crate::{Error, Result, npy_header};
use mm_core::Tensor;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// An array `[lines, dim]` that is written line by line.
struct ArrayWriter {
    path: PathBuf,
    /// The absolute path, for the manifest.
    absolute_path: String,
    file: BufWriter<File>,
    dim: usize,
    count: usize,
}

/// The size of the header, which is written last, when the number of lines is known.
const HEADER_BYTES: usize = 128;

impl ArrayWriter {
    fn new(path: PathBuf, dim: usize) -> Result<Self> {
        let mut file = BufWriter::new(File::create(&path).map_err(|e| Error::file(&path, e))?);
        file.write_all(&[0; HEADER_BYTES]).map_err(|e| Error::file(&path, e))?;
        let absolute_path = super::absolute(&path)?;
        Ok(Self { path, absolute_path, file, dim, count: 0 })
    }

    /// Appends lines and returns the manifest's reference to them.
    fn push(&mut self, values: &[f32]) -> Result<Value> {
        let length = values.len() / self.dim.max(1);
        for value in values {
            self.file.write_all(&value.to_le_bytes()).map_err(|e| Error::file(&self.path, e))?;
        }
        let from = self.count;
        self.count += length;
        Ok(json!({"array": self.absolute_path, "from": from, "length": length}))
    }

    fn finish(mut self) -> Result<()> {
        let header = npy_header("<f4", &[self.count, self.dim]);
        if header.len() != HEADER_BYTES {
            return Err(Error::file(
                &self.path,
                format!("found {} lines, more than fit in a header of {HEADER_BYTES} bytes", self.count),
            ));
        }
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&header));
        written.and_then(|()| self.file.flush()).map_err(|e| Error::file(&self.path, e))
    }
}

/// The arrays of all modalities, next to the manifest. Each row of the manifest refers to its own lines.
pub(super) struct SequenceStore<'a> {
    manifest: &'a Path,
    arrays: BTreeMap<String, ArrayWriter>,
}

impl<'a> SequenceStore<'a> {
    pub(super) fn new(manifest: &'a Path) -> Self {
        Self { manifest, arrays: BTreeMap::new() }
    }

    /// Appends a sequence `[length, dim]` to the array of a modality and returns the manifest's reference to it.
    pub(super) fn push(&mut self, modality: &str, dim: usize, values: &[f32]) -> Result<Value> {
        if !self.arrays.contains_key(modality) {
            let stem = self.manifest.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let path = self.manifest.with_file_name(format!("{stem}-{modality}.npy"));
            self.arrays.insert(modality.to_owned(), ArrayWriter::new(path, dim)?);
        }
        let missing = || Error::file(self.manifest, format!("no array for {modality}"));
        let array = self.arrays.get_mut(modality).ok_or_else(missing)?;
        if array.dim != dim {
            let reason = format!("{modality}: found {dim} features, expected {} as in the rows before", array.dim);
            return Err(Error::file(self.manifest, reason));
        }
        array.push(values)
    }

    /// Writes the headers.
    pub(super) fn finish(self) -> Result<()> {
        self.arrays.into_values().try_for_each(ArrayWriter::finish)
    }
}

/// The value, unless it is infinite or not a number.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// A sequence `[steps, dim]` without its zero padding (before or after it), and its dim; `None` where nothing is left.
///
/// `length` is the number of steps where the data set states it.
pub(super) fn trim_padding(steps: &Tensor, length: Option<usize>) -> Result<Option<(Vec<f32>, usize)>> {
    let shape = steps.shape();
    let (padded, dim) = if let [dim] = shape[..] { (1, dim as usize) } else { (shape[0] as usize, shape[1] as usize) };
    let mut values: Vec<f32> = steps.to_vec()?;
    // The published arrays hold infinities where silence was divided by a standard deviation of 0.
    values.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = 0.0);
    let is_filled: Vec<bool> = values.chunks(dim.max(1)).map(|step| step.iter().any(|v| *v != 0.0)).collect();
    let Some(first) = is_filled.iter().position(|f| *f) else { return Ok(None) };
    let last = is_filled.iter().rposition(|f| *f).unwrap_or(first);
    // A stated length counts from the end that is not padded.
    let (from, to) = match length {
        Some(length) if length < padded && first > 0 && last + 1 == padded => (padded - length, padded),
        Some(length) if length <= padded => (0, length),
        _ => (first, last + 1),
    };
    Ok((to > from && dim > 0).then(|| (values[from * dim..to * dim].to_vec(), dim)))
}
