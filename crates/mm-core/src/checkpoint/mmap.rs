//! Memory-mapped files that tensors are views of.

use crate::{DType, Error, Result, Tensor};
use memmap2::{Mmap, MmapMut, MmapOptions};
use std::{
    collections::BTreeMap,
    ffi::c_void,
    fs::File,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// A file that is read by position, and mapped where its structure is parsed.
///
/// Values are copied by reading, so that a file that was shortened meanwhile is an error. The mapping serves parsing
/// and the arrays of a pickle; its bytes are undefined if another program changes the file in place, which
/// [`Self::check`] notices afterwards. mm itself replaces files by renaming, which leaves a mapped one as it is.
pub(super) struct MappedFile {
    path: PathBuf,
    file: File,
    map: Mmap,
    modified: Option<SystemTime>,
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path.display(), self.map.len())
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl MappedFile {
    /// Opens and maps a file.
    ///
    /// # Errors
    /// If it cannot be read or is empty.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Error::file(path, e);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.len() == 0 {
            return Err(Error::file(path, "the file is empty; download it again"));
        }
        // SAFETY: see the type's documentation.
        let map = unsafe { MmapOptions::new().map(&file) }.map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, map, modified: metadata.modified().ok() })
    }

    /// An error if the file has changed since it was opened.
    pub(super) fn check(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|e| Error::file(&self.path, e))?;
        if now.len() == self.map.len() as u64 && now.modified().ok() == self.modified {
            return Ok(());
        }
        let reason =
            "the file was changed in place while it was in use; load it again, and replace such files by renaming";
        Err(Error::file(&self.path, reason))
    }

    /// Reads bytes from a position into `to`.
    pub(super) fn read(&self, start: usize, to: &mut [u8]) -> Result<()> {
        self.check()?;
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_exact_at(&self.file, to, start as u64)
            .map_err(|e| Error::file(&self.path, e));
        #[cfg(not(unix))]
        {
            to.copy_from_slice(&self.map[start..start + to.len()]);
            Ok(())
        }
    }

    /// A tensor over bytes of the file that are aligned for its type, in a mapping of its own that ends with the
    /// tensor; none where the system cannot map them. Writing to the tensor changes a page of this process, never the
    /// file.
    pub(super) fn view(&self, start: usize, bytes: usize, shape: &[i64], dtype: DType) -> Result<Option<Tensor>> {
        self.check()?;
        // SAFETY: a private mapping that only the tensor refers to. Pages that were not written to show a later change
        // of the file in place, which the documentation of `Checkpoint::view` rules out.
        let map = unsafe { MmapOptions::new().offset(start as u64).len(bytes).map_copy(&self.file) };
        let Ok(mut map) = map else { return Ok(None) };
        let memory = map.as_mut_ptr();
        if !(memory as usize).is_multiple_of(dtype.size()) {
            return Ok(None);
        }
        views().insert(memory as usize, bytes);
        let context = Box::into_raw(Box::new(View { map })).cast::<c_void>();
        // SAFETY: the mapping holds that many values, aligned and writable, until the tensor calls `drop_view`.
        let tensor = unsafe { Tensor::from_memory(memory, shape, dtype, context, drop_view) };
        if tensor.is_none() {
            // SAFETY: no tensor was made that would call it.
            unsafe { drop_view(memory.cast(), context) };
        }
        Ok(tensor)
    }
}

/// The mapping of one tensor.
struct View {
    map: MmapMut,
}

impl Drop for View {
    fn drop(&mut self) {
        views().remove(&(self.map.as_ptr() as usize));
    }
}

/// Ends a mapping when the last tensor that refers to it is dropped.
unsafe extern "C" fn drop_view(_: *mut c_void, context: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `MappedFile::view`; libtorch calls this once.
    drop(unsafe { Box::from_raw(context.cast::<View>()) });
}

/// Start and length in bytes of the mappings of tensors.
static VIEWS: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn views() -> MutexGuard<'static, BTreeMap<usize, usize>> {
    VIEWS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Releases the memory of a tensor that is a view of a mapped file and will hardly be read again (its values were
/// packed elsewhere); if it is, they are read from the file. Modified values are kept.
pub(crate) fn release(tensor: &Tensor) {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let start = tensor.0.data_ptr() as usize;
        let end = start + tensor.numel() * tensor.dtype().map_or(0, DType::size);
        // Locked until the end, so that the mapping stays.
        let views = views();
        let mapped = views.range(..=start).next_back().is_some_and(|(first, bytes)| end <= first + bytes);
        // Whole pages that belong to this tensor only.
        let (from, to) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        if mapped && from < to {
            // Dropping unmodified pages is immediate and leaves them in the page cache, for the next start and for
            // other programs, but would undo modifications. Paging out does not, yet it skips pages that other programs
            // have mapped.
            let advice = if is_unmodified(from, to) { libc::MADV_DONTNEED } else { libc::MADV_PAGEOUT };
            // SAFETY: the memory stays mapped, and its contents do not change, since only pages that equal the file's
            // are dropped.
            unsafe { libc::madvise(from as *mut c_void, to - from, advice) };
        }
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let _ = tensor;
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const PAGE: usize = 4096;

/// Whether nothing was written between two addresses of a private mapping: every present page is the file's own. False
/// where the system does not report it.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn is_unmodified(from: usize, to: usize) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    // Bits of a page's entry (Linux, Documentation/admin-guide/mm/pagemap.rst).
    const FILE: u64 = 1 << 61;
    const SWAPPED: u64 = 1 << 62;
    const PRESENT: u64 = 1 << 63;
    let mut entries = vec![0; (to - from) / PAGE * 8];
    let read = File::open("/proc/self/pagemap").and_then(|mut pages| {
        pages.seek(SeekFrom::Start((from / PAGE * 8) as u64))?;
        pages.read_exact(&mut entries)
    });
    let unmodified = |entry: &[u8]| {
        let entry = entry.try_into().map_or(SWAPPED, u64::from_ne_bytes);
        entry & (PRESENT | SWAPPED) == 0 || (entry & PRESENT != 0 && entry & FILE != 0)
    };
    read.is_ok() && entries.chunks_exact(8).all(unmodified)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Checkpoint, Device,
        checkpoint::{release, save},
        no_grad,
    };

    fn write(path: &Path, value: f64) {
        let tensor = Tensor::full(&[64, 1024], value, DType::F32, Device::Cpu).unwrap();
        save(path, &[("w".into(), tensor)], &[]).unwrap();
    }

    #[test]
    fn a_mapping_is_of_one_tensor_and_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        // Of a size that no other test maps: an address may be used again by another thread.
        let ones = Tensor::ones(&[61, 1024], DType::F32, Device::Cpu).unwrap();
        save(&file, &[("w".into(), ones)], &[]).unwrap();
        let is_mapped = |address: &usize| views().get(address) == Some(&(61 * 4096));
        let checkpoint = Checkpoint::open(&file).unwrap();
        let [one, other] = [(); 2].map(|()| checkpoint.view("w").unwrap());
        let addresses = [&one, &other].map(|t| t.0.data_ptr() as usize);
        assert!(addresses.iter().all(is_mapped));
        one.mul_scalar_(5.0).unwrap();
        for untouched in [other, checkpoint.get("w").unwrap()] {
            assert_eq!(untouched.max().unwrap().to_f64().unwrap(), 1.0);
        }
        // The checkpoint may be dropped before its views, and a part of a view after it.
        drop(checkpoint);
        let part = one.narrow(0, 3, 1).unwrap();
        drop(one);
        assert_eq!(part.min().unwrap().to_f64().unwrap(), 5.0);
        drop(part);
        assert!(!addresses.iter().any(is_mapped));
    }

    #[test]
    fn files_that_are_replaced_stay_readable_and_changed_ones_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        write(&file, 1.0);
        let checkpoint = Checkpoint::open(&file).unwrap();
        write(&file, 2.0);
        for read in [checkpoint.get("w"), checkpoint.view("w")] {
            assert_eq!(read.unwrap().max().unwrap().to_f64().unwrap(), 1.0);
        }
        let checkpoint = Checkpoint::open(&file).unwrap();
        File::options().write(true).open(&file).unwrap().set_len(5000).unwrap();
        for read in [checkpoint.get("w"), checkpoint.view("w")] {
            assert!(read.unwrap_err().to_string().contains("changed in place"));
        }
    }

    #[test]
    fn modifications_of_a_view_survive_its_release() {
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
            assert!(is_unmodified(from, to) && !is_unmodified(first, last));
        }
    }
}
