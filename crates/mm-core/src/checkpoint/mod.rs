//! Checkpoints: named tensors in files that are memory-mapped, checked, and never executed.
//!
//! Reads safetensors (one file, or sharded behind an `index.json`) and `PyTorch`'s pickles (`.bin`, `.pt`, `.pth`, zipped or
//! legacy) through a reader that knows tensors and nothing else. Writes safetensors so that a crash at any instant leaves either
//! the old file or the new one.

mod objects;
mod pickle;

pub use objects::{Array, Object, read_pickle};

use crate::{Adapter, DType, Error, Result, Tensor};
use memmap2::{MmapMut, MmapOptions};
use safetensors::{Dtype as StDtype, SafeTensors, View};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Where one tensor's numbers lie.
#[derive(Clone)]
struct Location {
    map: Arc<MmapMut>,
    /// First byte in the file.
    start: usize,
    /// Bytes from there that the tensor may touch.
    bytes: usize,
    shape: Vec<i64>,
    /// Strides in elements, where the numbers do not lie in order.
    strides: Option<Vec<i64>>,
    dtype: DType,
}

/// Named tensors of a file or folder, cheap to clone. Opening reads only names and shapes; numbers are read when asked for.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Location>,
    metadata: BTreeMap<String, String>,
    /// What is added to some of its weights as they are read.
    pub(crate) adapter: Option<Arc<Adapter>>,
}

impl Checkpoint {
    /// Opens a `.safetensors`, `.index.json`, `.bin`, `.pt` or `.pth` file, or a folder that holds one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = if path.is_dir() { find(path)? } else { path.to_owned() };
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".index.json") {
            return sharded(&file);
        }
        let map = Arc::new(map(&file)?);
        let (tensors, metadata) = if is_pickle(&name, &map) {
            (pickle::read(&file, &map)?, BTreeMap::new())
        } else {
            read_safetensors(&file, &map)?
        };
        Ok(Self { path: file, tensors, metadata, adapter: None })
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|l| l.shape.as_slice())
    }

    /// Type of a tensor's numbers, if it is there.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.tensors.get(name).map(|l| l.dtype)
    }

    /// Texts stored beside the tensors (safetensors' `__metadata__`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// A tensor by name that is a view of the mapped file, where it lies there in order and aligned; a copy otherwise. The file stays
    /// mapped for as long as the program runs.
    pub fn view(&self, name: &str) -> Result<Tensor> {
        let location = self.tensors.get(name).ok_or_else(|| Error::unknown("tensor", name, self.names()))?;
        let aligned = (location.map.as_ptr() as usize + location.start).is_multiple_of(location.dtype.size());
        let changed = self.adapter.as_ref().is_some_and(|a| a.touches(name));
        if changed || location.strides.is_some() || !aligned || location.bytes == 0 {
            return self.get(name);
        }
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.iter().any(|map| Arc::ptr_eq(map, &location.map)) {
            kept.push(location.map.clone());
        }
        drop(kept);
        // SAFETY: the bytes lie within the mapping, which now lives as long as the program, and are private to it.
        unsafe { Tensor::from_memory(location.map.as_ptr().add(location.start), &location.shape, location.dtype) }
    }

    /// Puts a tensor of another checkpoint in the place of one of this.
    pub(crate) fn take(&mut self, name: &str, other: &Self, theirs: &str) {
        if let Some(location) = other.tensors.get(theirs) {
            self.tensors.insert(name.to_owned(), location.clone());
        }
    }

    /// A tensor by name, on the processor, as it is stored (with what an adapter adds).
    pub fn get(&self, name: &str) -> Result<Tensor> {
        let plain = self.plain(name)?;
        match &self.adapter {
            Some(adapter) => adapter.merge(name, &plain),
            None => Ok(plain),
        }
    }

    fn plain(&self, name: &str) -> Result<Tensor> {
        let location = self.tensors.get(name).ok_or_else(|| Error::unknown("tensor", name, self.names()))?;
        let bytes = &location.map[location.start..location.start + location.bytes];
        let Some(strides) = &location.strides else {
            return Tensor::from_bytes(bytes, &location.shape, location.dtype);
        };
        let flat = Tensor::from_bytes(bytes, &[(location.bytes / location.dtype.size()) as i64], location.dtype)?;
        let strided = flat.as_tch().f_as_strided(&location.shape, strides, 0);
        let strided = strided.map_err(|e| Error::file(&self.path, format!("{name}: {e}")))?;
        Tensor::from_tch(strided).contiguous()
    }
}

fn is_pickle(name: &str, map: &MmapMut) -> bool {
    // What a file is counts, not what it is called: safetensors begins with a length and then JSON, a zip with "PK", a pickle with
    // its protocol opcode. (A length of 640 begins with the same two bytes as a pickle, so JSON is looked for first.)
    if map.get(8) == Some(&b'{') {
        return false;
    }
    let ending = Path::new(name).extension().is_some_and(|e| ["bin", "pt", "pth", "ckpt"].iter().any(|k| e == *k));
    ending
        || map.starts_with(b"PK\x03\x04")
        || (map.first() == Some(&0x80) && map.get(1).is_some_and(|v| (2..=5).contains(v)))
}

/// The files that tensors are views of stay mapped for as long as the program runs, so that no tensor can outlive its file. Clean
/// pages of a mapped file cost no memory that the system could not take back.
static KEPT: Mutex<Vec<Arc<MmapMut>>> = Mutex::new(Vec::new());

/// Gives back the memory of a tensor that is a view of a file and will hardly be looked at again (its numbers were laid out anew
/// elsewhere); they come from the file when they are. What was written to stays.
pub(crate) fn release(tensor: &Tensor) {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let start = tensor.0.data_ptr() as usize;
        let end = start + tensor.numel() * tensor.dtype().map_or(0, DType::size);
        let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |map: &Arc<MmapMut>| (map.as_ptr() as usize..=map.as_ptr() as usize + map.len()).contains(&end);
        let mapped = kept.iter().any(|map| map.as_ptr() as usize <= start && within(map));
        // Whole pages that are this tensor's alone.
        let (from, to) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        if mapped && from < to {
            // To let go of the file's own pages is at once and leaves them in the system's cache, for the next start and for other programs, but it
            // would undo what was written. Paging out does not, yet leaves alone what other programs have mapped as well.
            let advice = if is_the_files(from, to) { libc::MADV_DONTNEED } else { libc::MADV_PAGEOUT };
            // SAFETY: memory that stays mapped; what it holds does not change, for only pages that equal the file's are let go.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, advice) };
        }
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let _ = tensor;
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const PAGE: usize = 4096;

/// Whether nothing was written between two addresses of a private mapping: every page that is there is the file's own. No where the system
/// does not tell.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn is_the_files(from: usize, to: usize) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    // Of each page, in Linux's Documentation/admin-guide/mm/pagemap.rst.
    const FILE: u64 = 1 << 61;
    const SWAPPED: u64 = 1 << 62;
    const PRESENT: u64 = 1 << 63;
    let mut entries = vec![0; (to - from) / PAGE * 8];
    let told = File::open("/proc/self/pagemap").and_then(|mut pages| {
        pages.seek(SeekFrom::Start((from / PAGE * 8) as u64))?;
        pages.read_exact(&mut entries)
    });
    let own = |entry: &[u8]| {
        let entry = entry.try_into().map_or(SWAPPED, u64::from_ne_bytes);
        entry & (PRESENT | SWAPPED) == 0 || (entry & PRESENT != 0 && entry & FILE != 0)
    };
    told.is_ok() && entries.chunks_exact(8).all(own)
}

fn map(file: &Path) -> Result<MmapMut> {
    let handle = File::open(file).map_err(|e| Error::file(file, e))?;
    if handle.metadata().map_err(|e| Error::file(file, e))?.len() == 0 {
        return Err(Error::file(file, "the file is empty; fetch it again"));
    }
    // Copy on write: whoever writes into a view changes a page of this process, never the file.
    // SAFETY: what mm writes replaces files by renaming and never truncates one that is mapped.
    unsafe { MmapOptions::new().map_copy(&handle) }.map_err(|e| Error::file(file, e))
}

fn find(folder: &Path) -> Result<PathBuf> {
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
        [] => Err(Error::file(folder, format!("no weights here; wanted one of {}", NAMES.join(", ")))),
        many => Err(Error::file(folder, format!("{} weight files and no index; name one of them", many.len()))),
    }
}

fn sharded(index: &Path) -> Result<Checkpoint> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|e| Error::file(index, e))?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|e| Error::file(index, format!("not an index: {e}")))?;
    let folder = index.parent().unwrap_or(Path::new("."));
    let mut shards: HashMap<&str, Checkpoint> = HashMap::new();
    let mut tensors = BTreeMap::new();
    for (name, shard) in &weight_map {
        if Path::new(shard).components().count() != 1 {
            return Err(Error::file(index, format!("shard `{shard}` lies outside the folder")));
        }
        if !shards.contains_key(shard.as_str()) {
            let path = folder.join(shard);
            if !path.exists() {
                return Err(Error::file(index, format!("shard {shard} is missing; fetch the checkpoint again")));
            }
            shards.insert(shard, Checkpoint::open(path)?);
        }
        let location = shards[shard.as_str()].tensors.get(name);
        let location = location.ok_or_else(|| Error::file(index, format!("shard {shard} lacks {name}")))?;
        tensors.insert(name.clone(), location.clone());
    }
    Ok(Checkpoint { path: index.to_owned(), tensors, metadata: BTreeMap::new(), adapter: None })
}

type Parsed = (BTreeMap<String, Location>, BTreeMap<String, String>);

fn read_safetensors(file: &Path, map: &Arc<MmapMut>) -> Result<Parsed> {
    let bad =
        |reason: String| Error::file(file, format!("not a whole safetensors file: {reason}; fetch or save it again"));
    let (_, header) = SafeTensors::read_metadata(map).map_err(|e| bad(e.to_string()))?;
    let parsed = SafeTensors::deserialize(map).map_err(|e| bad(e.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in parsed.iter() {
        let dtype = match view.dtype() {
            StDtype::F32 => DType::F32,
            StDtype::F64 => DType::F64,
            StDtype::F16 => DType::F16,
            StDtype::BF16 => DType::BF16,
            StDtype::I64 => DType::I64,
            StDtype::I32 => DType::I32,
            StDtype::I16 => DType::I16,
            StDtype::I8 => DType::I8,
            StDtype::U8 => DType::U8,
            StDtype::BOOL => DType::Bool,
            other => return Err(bad(format!("{name} is of type {other:?}, which mm does not read"))),
        };
        let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
        let shape = view.shape().iter().map(|s| *s as i64).collect();
        tensors.insert(
            name.to_owned(),
            Location { map: map.clone(), start, bytes: view.data().len(), shape, strides: None, dtype },
        );
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((tensors, metadata))
}

struct Stored<'a>(&'a Tensor, StDtype, Vec<usize>);

impl View for &Stored<'_> {
    fn dtype(&self) -> StDtype {
        self.1
    }
    fn shape(&self) -> &[usize] {
        &self.2
    }
    fn data(&self) -> Cow<'_, [u8]> {
        // The tensor was checked below to be of a type that has bytes.
        Cow::Owned(self.0.to_bytes().unwrap_or_default())
    }
    fn data_len(&self) -> usize {
        self.2.iter().product::<usize>() * (self.1.bitsize() / 8)
    }
}

/// Writes tensors as one safetensors file: to a temporary file beside it, flushed to the disk, then renamed over it.
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, String)]) -> Result<()> {
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = match tensor.dtype()? {
            DType::F32 => StDtype::F32,
            DType::F64 => StDtype::F64,
            DType::F16 => StDtype::F16,
            DType::BF16 => StDtype::BF16,
            DType::I64 => StDtype::I64,
            DType::I32 => StDtype::I32,
            DType::I16 => StDtype::I16,
            DType::I8 => StDtype::I8,
            DType::U8 => StDtype::U8,
            DType::Bool => StDtype::BOOL,
        };
        let shape = tensor.shape().iter().map(|s| usize::try_from(*s).unwrap_or(0)).collect();
        stored.push((name.as_str(), Stored(tensor, dtype, shape)));
    }
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    replace_file(path, |temporary| {
        safetensors::serialize_to_file(stored.iter().map(|(n, s)| (*n, s)), metadata, temporary)
            .map_err(|e| e.to_string())
    })
}

/// Writes tensors into a folder as `model-0000N-of-0000M.safetensors` of at most `shard_bytes` each, with their index; as one
/// `model.safetensors` when one shard holds them all.
pub fn save_sharded(folder: &Path, tensors: &[(String, Tensor)], shard_bytes: usize) -> Result<()> {
    let mut shards: Vec<Vec<(String, Tensor)>> = vec![Vec::new()];
    let (mut filled, mut total) = (0, 0);
    for (name, tensor) in tensors {
        let bytes = tensor.numel() * tensor.dtype()?.size();
        if filled > 0 && filled + bytes > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        total += bytes;
        if let Some(last) = shards.last_mut() {
            last.push((name.clone(), tensor.clone()));
        }
    }
    if let [only] = shards.as_slice() {
        return save(&folder.join("model.safetensors"), only, &[("format", "pt".into())]);
    }
    let mut weight_map = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        save(&folder.join(&file), shard, &[("format", "pt".into())])?;
        weight_map.extend(shard.iter().map(|(n, _)| (n.clone(), file.clone())));
    }
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    write_atomic(&folder.join("model.safetensors.index.json"), index.to_string().as_bytes())
}

/// Writes a file so that a crash at any instant leaves either the old one or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_file(path, |temporary| std::fs::write(temporary, bytes).map_err(|e| e.to_string()))
}

fn replace_file(path: &Path, write: impl FnOnce(&Path) -> Result<(), String>) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let bad = |e: String| Error::file(path, format!("could not be written: {e}; what was there before is untouched"));
    let temporary = tempfile::Builder::new()
        .prefix(".mm-")
        .suffix(".partial")
        .tempfile_in(folder)
        .map_err(|e| bad(e.to_string()))?;
    write(temporary.path()).map_err(bad)?;
    File::open(temporary.path()).and_then(|f| f.sync_all()).map_err(|e| bad(e.to_string()))?;
    temporary.persist(path).map_err(|e| bad(e.error.to_string()))?;
    // The rename itself must reach the disk too; not every file system lets a folder be synced.
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, no_grad};

    #[test]
    fn what_was_written_into_a_view_of_a_file_outlives_its_release() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        let ones = Tensor::ones(&[64, 1024], DType::F32, Device::Cpu).unwrap();
        save(&file, &[("left".into(), ones.clone()), ("written".into(), ones)], &[]).unwrap();
        let checkpoint = Checkpoint::open(&file).unwrap();
        let [left, written] = ["left", "written"].map(|name| checkpoint.view(name).unwrap());
        let row = Tensor::full(&[1, 1024], 3.0, DType::F32, Device::Cpu).unwrap();
        no_grad(|| written.narrow(0, 30, 1)?.copy_(&row)).unwrap();
        let sum = |t: &Tensor| t.sum().unwrap().to_f64().unwrap();
        for _ in 0..2 {
            assert_eq!((sum(&left), sum(&written)), (65_536.0, 65_536.0 + 2048.0));
            release(&left);
            release(&written);
        }
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        {
            let pages = |t: &Tensor| {
                let start = (t.0.data_ptr() as usize).next_multiple_of(PAGE);
                (start, start + 32 * PAGE)
            };
            let ((from, to), (first, last)) = (pages(&left), pages(&written));
            assert!(is_the_files(from, to) && !is_the_files(first, last));
        }
    }
}
