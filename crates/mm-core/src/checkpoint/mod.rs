//! Checkpoints: named tensors in files that are memory-mapped, checked, and never executed.
//!
//! Reads safetensors (one file, or shards with an `index.json`) and, with the feature `pickle`, `PyTorch`'s pickles
//! (`.bin`, `.pt`, `.pth`, zipped or legacy) by a reader that knows tensors and nothing else. Writes safetensors such
//! that a crash at any time leaves either the old file or the new one.

mod location;
mod lock;
mod mmap;
#[cfg(feature = "pickle")]
mod pickle;
mod safetensors;
mod save;

pub use lock::{FolderLock, lock_file};
pub(crate) use mmap::release;
#[cfg(feature = "pickle")]
pub use pickle::{Array, Object, read_pickle};
pub use save::{save, save_sharded, shared_tempfile, write_atomic};

use crate::{DType, Error, Result, Tensor};
use location::Location;
use mmap::MappedFile;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A change of some tensors of a checkpoint as they are read (a low-rank adapter).
pub(crate) trait TensorOverlay: Send + Sync {
    /// Whether the tensor of this name is changed.
    fn changes(&self, name: &str) -> bool;

    /// The changed tensor, of the same shape and type.
    fn apply(&self, name: &str, tensor: &Tensor) -> Result<Tensor>;
}

/// Named tensors of a file or folder, cheap to clone. Opening reads names and shapes only; values are read on demand.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Location>,
    metadata: BTreeMap<String, String>,
    /// Types of the tensors that cannot be read (eight-bit floats), which is an error once one is asked for.
    unsupported: BTreeMap<String, String>,
    overlay: Option<Arc<dyn TensorOverlay>>,
}

impl Checkpoint {
    /// Opens a `.safetensors`, `.index.json`, `.bin`, `.pt` or `.pth` file, or a folder that holds one.
    ///
    /// # Errors
    /// If the file is missing, incomplete, or of another format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = if path.is_dir() { find_weights(path)? } else { path.to_owned() };
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".index.json") {
            return open_sharded(&file);
        }
        let map = Arc::new(MappedFile::open(&file)?);
        let (tensors, metadata, unsupported) = if is_pickle(&name, &map) {
            (read_pickled(&file, &map)?, BTreeMap::new(), BTreeMap::new())
        } else {
            safetensors::read(&file, &map)?
        };
        Ok(Self { path: file, tensors, metadata, unsupported, overlay: None })
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, if there is one of this name.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|l| l.shape.as_slice())
    }

    /// Type of a tensor, if there is one of this name.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.tensors.get(name).map(|l| l.dtype)
    }

    /// Metadata next to the tensors (`__metadata__` of safetensors).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// A tensor by name, on the CPU, as it is stored (with the changes of an adapter).
    ///
    /// # Errors
    /// If there is no tensor of this name, or if the file has changed since it was opened.
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let stored = self.read(name)?;
        match &self.overlay {
            Some(overlay) => overlay.apply(name, &stored),
            None => Ok(stored),
        }
    }

    /// A tensor by name as a view of the mapped file, where it is stored contiguously and aligned; a copy otherwise. It
    /// may be changed in place, which changes neither the file nor other views. The file must not be changed in place
    /// while the tensor lives: values that were not read yet would change with it, or end the process where the file
    /// was shortened. To replace it by renaming another over it, as mm does, is safe.
    ///
    /// # Errors
    /// If there is no tensor of this name, or if the file has changed since it was opened.
    pub fn view(&self, name: &str) -> Result<Tensor> {
        let location = self.location(name)?;
        let changed = self.overlay.as_ref().is_some_and(|o| o.changes(name));
        if changed || location.strides.is_some() || location.bytes == 0 {
            return self.get(name);
        }
        let view = location.file.view(location.start, location.bytes, &location.shape, location.dtype)?;
        view.map_or_else(|| self.get(name), Ok)
    }

    /// The checkpoint with changes applied to its tensors as they are read.
    pub(crate) fn with_overlay(self, overlay: Arc<dyn TensorOverlay>) -> Self {
        Self { overlay: Some(overlay), ..self }
    }

    /// Replaces a tensor by one of another checkpoint.
    pub(crate) fn replace(&mut self, name: &str, other: &Self, other_name: &str) {
        if let Some(location) = other.tensors.get(other_name) {
            self.tensors.insert(name.to_owned(), location.clone());
        }
    }

    /// The type of a tensor of this name that cannot be read.
    pub(crate) fn unsupported_type(&self, name: &str) -> Option<&str> {
        self.unsupported.get(name).map(String::as_str)
    }

    fn location(&self, name: &str) -> Result<&Location> {
        if let Some(kind) = self.unsupported_type(name) {
            return Err(Error::file(&self.path, format!("{name} is of type {kind}, which is not supported")));
        }
        self.tensors.get(name).ok_or_else(|| Error::unknown("tensor", name, self.names()))
    }

    fn read(&self, name: &str) -> Result<Tensor> {
        let location = self.location(name)?;
        let read = |shape: &[i64]| {
            Tensor::from_reader(shape, location.dtype, |bytes| location.file.read(location.start, bytes))
        };
        let Some(strides) = &location.strides else { return read(&location.shape) };
        let flat = read(&[(location.bytes / location.dtype.size()) as i64])?;
        let strided = flat.as_tch().f_as_strided(&location.shape, strides, 0);
        let strided = strided.map_err(|e| Error::file(&self.path, format!("{name}: {e}")))?;
        Tensor::from_tch(strided).contiguous()
    }
}

#[cfg(feature = "pickle")]
use pickle::read_tensors as read_pickled;

#[cfg(not(feature = "pickle"))]
fn read_pickled(file: &Path, _: &Arc<MappedFile>) -> Result<BTreeMap<String, Location>> {
    let reason = "found a PyTorch pickle, expected safetensors; build with the feature `pickle` of mm-core to read it";
    Err(Error::file(file, reason))
}

/// Whether a file is a pickle, by its contents rather than its name.
fn is_pickle(name: &str, map: &[u8]) -> bool {
    // Safetensors starts with a length and JSON, a zip archive with "PK", a pickle with its protocol opcode. A length
    // of 640 starts with the same two bytes as a pickle, so JSON is looked for first.
    if map.get(8) == Some(&b'{') {
        return false;
    }
    let extension = Path::new(name).extension().is_some_and(|e| ["bin", "pt", "pth", "ckpt"].iter().any(|k| e == *k));
    extension
        || map.starts_with(b"PK\x03\x04")
        || (map.first() == Some(&0x80) && map.get(1).is_some_and(|v| (2..=5).contains(v)))
}

/// The weight file of a folder.
fn find_weights(folder: &Path) -> Result<PathBuf> {
    const NAMES: [&str; 4] =
        ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];
    if let Some(found) = NAMES.iter().map(|n| folder.join(n)).find(|p| p.exists()) {
        return Ok(found);
    }
    let listing = std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))?;
    let mut found: Vec<PathBuf> = listing
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| ["safetensors", "pth", "pt", "bin"].iter().any(|k| e == *k)))
        .collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::file(folder, format!("no weights found, expected one of {}", NAMES.join(", ")))),
        many => Err(Error::file(folder, format!("found {} weight files and no index; name one of them", many.len()))),
    }
}

/// The tensors of all shards that an index names.
fn open_sharded(index: &Path) -> Result<Checkpoint> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|e| Error::file(index, e))?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|e| Error::file(index, format!("not a shard index: {e}")))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    let mut shards: HashMap<&str, Checkpoint> = HashMap::new();
    let (mut tensors, mut unsupported) = (BTreeMap::new(), BTreeMap::new());
    for (name, shard) in &weight_map {
        if Path::new(shard).components().count() != 1 {
            return Err(Error::file(index, format!("shard `{shard}` is outside the folder")));
        }
        if !shards.contains_key(shard.as_str()) {
            let path = folder.join(shard);
            if !path.exists() {
                return Err(Error::file(index, format!("shard {shard} is missing; download the checkpoint again")));
            }
            shards.insert(shard, Checkpoint::open(path)?);
        }
        if let Some(kind) = shards[shard.as_str()].unsupported_type(name) {
            unsupported.insert(name.clone(), kind.to_owned());
            continue;
        }
        let location = shards[shard.as_str()].tensors.get(name);
        let location = location.ok_or_else(|| Error::file(index, format!("shard {shard} has no tensor {name}")))?;
        tensors.insert(name.clone(), location.clone());
    }
    Ok(Checkpoint { path: index.to_owned(), tensors, metadata: BTreeMap::new(), unsupported, overlay: None })
}
