//! Memory-mapped files that tensors are views of.

use crate::{DType, Error, Result, Tensor};
use memmap2::{MmapMut, MmapOptions};
use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Keeps a file mapped as long as the program runs.
pub(super) fn retain(map: &Arc<MmapMut>) {
    let mut retained = RETAINED.lock().unwrap_or_else(PoisonError::into_inner);
    if !retained.iter().any(|m| Arc::ptr_eq(m, map)) {
        retained.push(map.clone());
    }
}

/// Files with tensors that are views of them stay mapped as long as the program runs, so that no tensor outlives its
/// file. Clean pages of a mapped file cost no memory that the system could not reclaim.
static RETAINED: Mutex<Vec<Arc<MmapMut>>> = Mutex::new(Vec::new());

/// Releases the memory of a tensor that is a view of a mapped file and will hardly be read again (its values were
/// packed elsewhere); if it is, they are read from the file. Modified values are kept.
pub(crate) fn release(tensor: &Tensor) {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let start = tensor.0.data_ptr() as usize;
        let end = start + tensor.numel() * tensor.dtype().map_or(0, DType::size);
        let retained = RETAINED.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |map: &Arc<MmapMut>| (map.as_ptr() as usize..=map.as_ptr() as usize + map.len()).contains(&end);
        let mapped = retained.iter().any(|map| map.as_ptr() as usize <= start && within(map));
        // Whole pages that belong to this tensor only.
        let (from, to) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
        if mapped && from < to {
            // Dropping unmodified pages is immediate and leaves them in the page cache, for the next start and for
            // other programs, but would undo modifications. Paging out does not, yet it skips pages that other programs
            // have mapped.
            let advice = if is_unmodified(from, to) { libc::MADV_DONTNEED } else { libc::MADV_PAGEOUT };
            // SAFETY: the memory stays mapped, and its contents do not change, since only pages that equal the file's
            // are dropped.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, advice) };
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

/// Maps a file into memory, copy-on-write.
pub(super) fn map_file(file: &Path) -> Result<MmapMut> {
    let handle = File::open(file).map_err(|e| Error::file(file, e))?;
    if handle.metadata().map_err(|e| Error::file(file, e))?.len() == 0 {
        return Err(Error::file(file, "the file is empty; download it again"));
    }
    // Copy on write: writing to a view changes a page of this process, never the file.
    // SAFETY: mm replaces files by renaming and never truncates one that is mapped.
    unsafe { MmapOptions::new().map_copy(&handle) }.map_err(|e| Error::file(file, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Checkpoint, Device,
        checkpoint::{release, save},
        no_grad,
    };

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
