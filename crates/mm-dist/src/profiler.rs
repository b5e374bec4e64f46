//! Traces of what a process computes and sends.

use crate::{Error, Result, backend};
use std::{
    marker::PhantomData,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether a thread of this process records: the profiler has one recording.
static IS_ACTIVE: AtomicBool = AtomicBool::new(false);

/// PyTorch's profiler: records when each operation of this thread, and of the backward passes that it starts, begins and
/// ends, and those of the process group. [`Profiler::save`] writes a Chrome trace, which <https://ui.perfetto.dev>,
/// `chrome://tracing` and TensorBoard's PyTorch profiler show. Recording makes small operations slower.
///
/// ```
/// use mm_core::{Device, Tensor};
/// use mm_dist::Profiler;
///
/// # #[cfg(feature = "c10d")] {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("rank-0.pt.trace.json");
/// let profiler = Profiler::start()?;
/// let x = Tensor::new([1f32, 2.0], Device::Cpu)?;
/// x.mul(&x)?;
/// profiler.save(&path)?;
/// assert!(std::fs::read_to_string(&path)?.contains("aten::mul"));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Profiler {
    /// The recording belongs to the thread.
    _thread: PhantomData<*const ()>,
}

impl Profiler {
    /// Starts to record.
    ///
    /// # Errors
    /// When another recording of this process has not ended; without the feature `c10d`.
    pub fn start() -> Result<Self> {
        if IS_ACTIVE.swap(true, Ordering::AcqRel) {
            return Err(Error::Profiler("another recording of this process has not ended".into()));
        }
        backend::start_profiler().map(|()| Self { _thread: PhantomData }).map_err(|reason| {
            IS_ACTIVE.store(false, Ordering::Release);
            Error::Profiler(reason)
        })
    }

    /// Ends the recording, and writes it to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(self, path: &Path) -> Result<()> {
        let failed = |reason: String| Error::Profiler(format!("{}: {reason}", path.display()));
        // libtorch reports no file that it cannot write.
        std::fs::File::create(path).map_err(|e| failed(e.to_string()))?;
        let text = path.to_str().ok_or_else(|| failed("the path is not UTF-8".into()))?;
        std::mem::forget(self);
        let saved = backend::stop_profiler(Some(text));
        IS_ACTIVE.store(false, Ordering::Release);
        saved.map_err(failed)
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        let _ = backend::stop_profiler(None);
        IS_ACTIVE.store(false, Ordering::Release);
    }
}
