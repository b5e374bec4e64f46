//! A cache of tensors on disk.

use crate::{Error, Result, truncation::take_truncated};
use mm_core::{Checkpoint, ProcessContext, Processor, Source, Tensor, checkpoint::shared_tempfile};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Identifies a cached tensor: a hash of the raw value and of everything that is done to it. A file is identified by
/// its path, length and modification time, bytes by their hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    key: String,
    seed: u64,
}

impl CacheKey {
    /// The key of `source` processed as `fingerprint` describes.
    ///
    /// # Errors
    /// When the source is a file that cannot be read.
    pub fn new(fingerprint: &str, source: &Source) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(fingerprint.as_bytes()).update(&[0]);
        // A data set that is copied elsewhere keeps its random numbers: of a file, the folder and the time do not
        // count.
        let mut seed = hasher.clone();
        match source {
            Source::Text(text) => {
                hasher.update(b"text").update(text.as_bytes());
            }
            Source::Bytes(file) => {
                hasher.update(b"bytes").update(file.digest());
            }
            Source::Image(image) => {
                hasher.update(b"image").update(image.digest());
            }
            Source::Samples(audio) => {
                hasher.update(b"samples").update(audio.digest());
            }
            Source::Path(path) => {
                let metadata =
                    std::fs::metadata(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
                let modified = metadata.modified().ok();
                let modified = modified.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
                hasher.update(b"file").update(path.as_os_str().as_encoded_bytes());
                hasher.update(&metadata.len().to_le_bytes()).update(&modified.as_nanos().to_le_bytes());
                seed.update(path.file_name().unwrap_or_default().as_encoded_bytes());
                seed.update(&metadata.len().to_le_bytes());
            }
            other => match other.json() {
                Some(value) => drop(hasher.update(b"value").update(value.to_string().as_bytes())),
                None => drop(hasher.update(b"other").update(format!("{other:?}").as_bytes())),
            },
        }
        let key = hasher.finalize().to_hex()[..40].to_owned();
        let seed = if matches!(source, Source::Path(_)) { seed.finalize() } else { hasher.finalize() };
        let seed = seed.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(Self { key, seed })
    }

    /// A seed for random numbers that belong to this entry, such as those of an augmented view.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// A folder of tensors by key. Several processes may use it at once; entries are written atomically.
#[derive(Debug, Clone)]
pub struct TensorCache {
    folder: PathBuf,
}

impl TensorCache {
    /// A cache in `folder`, which is created if it does not exist.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
        Ok(Self { folder })
    }

    /// The cache in `folder`, relative to `base`; mm's own cache when it is absent.
    pub fn open_or_default(base: &Path, folder: Option<&Path>) -> Result<Self> {
        Self::open(folder.map_or_else(|| mm_core::cache_dir().join("samples"), |c| base.join(c)))
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(&key.key[..2]).join(format!("{}.safetensors", &key.key[2..]))
    }

    /// The tensor under a key; `None` when there is none or its file is damaged.
    pub fn get(&self, key: &CacheKey) -> Option<Tensor> {
        Some(self.get_noted(key)?.0)
    }

    /// The tensor under a key, and what its sample was truncated to, if it was.
    fn get_noted(&self, key: &CacheKey) -> Option<(Tensor, Option<String>)> {
        let entry = Checkpoint::open(self.path(key)).ok()?;
        Some((entry.get("x").ok()?, entry.metadata().get(TRUNCATED).cloned()))
    }

    /// Stores a tensor under a key. It is not flushed to disk: what a crash loses is computed again.
    pub fn put(&self, key: &CacheKey, tensor: &Tensor) -> Result<()> {
        self.put_noted(key, tensor, None)
    }

    fn put_noted(&self, key: &CacheKey, tensor: &Tensor, truncated: Option<&str>) -> Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let bad = |e: std::io::Error| Error::file(&path, format!("could not be written: {e}"));
        let mut file = shared_tempfile(folder, &path).map_err(bad)?;
        file.write_all(&to_safetensors(tensor, truncated)?).map_err(bad)?;
        file.persist(&path).map_err(|e| bad(e.error))?;
        Ok(())
    }
}

/// A processor whose decoded samples are stored in a [`TensorCache`], before [`Processor::augment`], which is applied
/// again each time. Where a processor augments while decoding ([`Processor::augments_while_decoding`]: random crops of
/// images), training reads the files themselves.
pub struct CachedProcessor {
    inner: Arc<dyn Processor>,
    cache: TensorCache,
    /// How many samples from the cache were truncated when they were computed, and to what.
    truncated: Mutex<(usize, String)>,
}

impl CachedProcessor {
    /// `inner`, with its samples stored in `cache`.
    pub fn new(inner: Arc<dyn Processor>, cache: TensorCache) -> Self {
        Self { inner, cache, truncated: Mutex::default() }
    }
}

impl Processor for CachedProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        if context.train && self.inner.augments_while_decoding() {
            return self.inner.process(source, context);
        }
        let key = CacheKey::new(&self.inner.fingerprint(), source)?;
        let sample = if let Some((cached, truncated)) = self.cache.get_noted(&key) {
            if let Some(limit) = truncated {
                let mut counted = self.truncated.lock().unwrap_or_else(PoisonError::into_inner);
                *counted = (counted.0 + 1, limit);
            }
            cached
        } else {
            take_truncated();
            let computed = self.inner.process(source, &mut ProcessContext::eval())?;
            self.cache.put_noted(&key, &computed, take_truncated().as_deref())?;
            computed
        };
        self.inner.augment(sample, context)
    }

    fn pad_value(&self) -> f64 {
        self.inner.pad_value()
    }

    fn is_sequence(&self) -> bool {
        self.inner.is_sequence()
    }

    fn pad_to_multiple_of(&self) -> i64 {
        self.inner.pad_to_multiple_of()
    }

    fn token_names(&self, source: &Source) -> mm_core::Result<Vec<String>> {
        self.inner.token_names(source)
    }

    fn truncated(&self) -> Option<(usize, String)> {
        let cached = self.truncated.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.inner.truncated() {
            Some((computed, limit)) => Some((computed + cached.0, limit)),
            None => (cached.0 > 0).then_some(cached),
        }
    }

    fn augments_while_decoding(&self) -> bool {
        self.inner.augments_while_decoding()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        self.inner.augment(sample, context)
    }
}

/// The metadata of an entry whose sample was truncated: to what.
const TRUNCATED: &str = "truncated";

/// A safetensors file with one tensor, in memory.
fn to_safetensors(tensor: &Tensor, truncated: Option<&str>) -> Result<Vec<u8>> {
    let bytes = tensor.to_bytes()?;
    let dtype = format!("{:?}", tensor.dtype()?).to_uppercase();
    let note = |limit: &str| format!("\"__metadata__\":{},", serde_json::json!({ TRUNCATED: limit }));
    let metadata = truncated.map(note).unwrap_or_default();
    let header = format!(
        "{{{metadata}\"x\":{{\"dtype\":\"{dtype}\",\"shape\":{:?},\"data_offsets\":[0,{}]}}}}",
        tensor.shape(),
        bytes.len()
    );
    let padded = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    Ok([&(padded.len() as u64).to_le_bytes()[..], padded.as_bytes(), &bytes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_depends_on_fingerprint_and_file_and_entries_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TensorCache::open(folder.path().join("c")).unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "1").unwrap();
        let source = Source::Path(file.clone());
        let key = CacheKey::new("t1", &source).unwrap();
        assert_ne!(key, CacheKey::new("t2", &source).unwrap());
        std::fs::write(&file, "22").unwrap();
        assert_ne!(key, CacheKey::new("t1", &source).unwrap());
        let tensor = Tensor::from_vec(&[1f32, 2.0, 3.0], &[3, 1]).unwrap();
        assert!(cache.get(&key).is_none());
        cache.put(&key, &tensor).unwrap();
        let found = cache.get(&key).unwrap();
        assert_eq!((found.shape(), found.to_vec::<f32>().unwrap()), (vec![3, 1], vec![1.0, 2.0, 3.0]));
        cache.put(&key, &Tensor::from_slice(&[7i64, -1]).unwrap()).unwrap();
        assert_eq!(cache.get(&key).unwrap().dtype().unwrap(), mm_core::DType::I64);
        std::fs::write(cache.path(&key), "damaged").unwrap();
        assert!(cache.get(&key).is_none());
    }

    /// Counts its calls: zeros, augmented to ones while decoding, and truncated.
    #[derive(Default)]
    struct Counting(std::sync::atomic::AtomicUsize);

    impl Processor for Counting {
        fn process(&self, _source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            crate::note_truncated("2 seconds".into());
            Tensor::from_vec(&[if context.train { 1f32 } else { 0.0 }], &[1])
        }

        fn is_sequence(&self) -> bool {
            false
        }

        fn augments_while_decoding(&self) -> bool {
            true
        }

        fn truncated(&self) -> Option<(usize, String)> {
            let count = self.0.load(std::sync::atomic::Ordering::Relaxed);
            (count > 0).then(|| (count, "2 seconds".into()))
        }

        fn fingerprint(&self) -> String {
            "counting".into()
        }
    }

    #[test]
    fn caching_keeps_augmentation_and_counts_of_truncated_samples() {
        let folder = tempfile::tempdir().unwrap();
        let cached = || {
            let cache = TensorCache::open(folder.path()).unwrap();
            CachedProcessor::new(Arc::new(Counting::default()), cache)
        };
        let source = Source::Text("a".into());
        let value = |processor: &CachedProcessor, train: bool| {
            let mut context = ProcessContext { train, ..ProcessContext::eval() };
            processor.process(&source, &mut context).unwrap().to_vec::<f32>().unwrap()[0]
        };
        let first = cached();
        assert_eq!((value(&first, false), value(&first, true), value(&first, false)), (0.0, 1.0, 0.0));
        assert_eq!(first.truncated(), Some((3, "2 seconds".into())));
        // A later run computes nothing again, and still reports that the sample was truncated.
        let second = cached();
        assert_eq!((second.truncated(), value(&second, false)), (None, 0.0));
        assert_eq!((second.inner.truncated(), second.truncated()), (None, Some((1, "2 seconds".into()))));
    }

    #[test]
    fn a_copied_file_has_another_key_and_the_same_seed() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = |folder: &Path, name: &str| {
            std::fs::write(folder.join(name), "abc").unwrap();
            CacheKey::new("view 1", &Source::Path(folder.join(name))).unwrap()
        };
        let (a, b, c) = (key(one.path(), "a.png"), key(two.path(), "a.png"), key(one.path(), "b.png"));
        assert!(a != b && a.seed() == b.seed() && a.seed() != c.seed());
    }
}
