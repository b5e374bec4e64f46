//! Samples kept on disk under a key that changes when the source or anything that makes the numbers does.

use crate::{Error, Result};
use mm_core::{Checkpoint, ProcessContext, Processor, Source, Tensor};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A folder of tensors by key. Several processes may share it; a half-written entry is never seen.
#[derive(Debug, Clone)]
pub struct TensorCache {
    folder: PathBuf,
}

impl TensorCache {
    /// A cache in `folder`, which is made if it is not there.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
        Ok(Self { folder })
    }

    /// The cache that a config names, relative to `base`; mm's own where it names none.
    pub fn open_or_default(base: &Path, named: Option<&Path>) -> Result<Self> {
        Self::open(named.map_or_else(|| mm_core::cache_dir().join("samples"), |c| base.join(c)))
    }

    /// The key of one source under a fingerprint of what is done to it: a file counts by path, length and time of change.
    pub fn key(fingerprint: &str, source: &Source) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(fingerprint.as_bytes()).update(&[0]);
        match source {
            Source::Text(text) => {
                hasher.update(b"text").update(text.as_bytes());
            }
            Source::Value(value) => {
                hasher.update(b"value").update(value.to_string().as_bytes());
            }
            Source::Path(path) => {
                let about = std::fs::metadata(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
                let changed = about
                    .modified()
                    .ok()
                    .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
                    .unwrap_or_default();
                hasher.update(b"file").update(path.as_os_str().as_encoded_bytes());
                hasher.update(&about.len().to_le_bytes()).update(&changed.as_nanos().to_le_bytes());
            }
        }
        Ok(hasher.finalize().to_hex()[..40].to_owned())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(&key[..2]).join(format!("{}.safetensors", &key[2..]))
    }

    /// What is kept under a key; a broken entry counts as none.
    pub fn get(&self, key: &str) -> Option<Tensor> {
        Checkpoint::open(self.path(key)).ok()?.get("x").ok()
    }

    /// Keeps a tensor under a key. Not flushed to the disk: what a crash loses is made again.
    pub fn put(&self, key: &str, tensor: &Tensor) -> Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let bad = |e: std::io::Error| Error::file(&path, format!("could not be written: {e}"));
        let mut file = tempfile::Builder::new().suffix(".partial").tempfile_in(folder).map_err(bad)?;
        file.write_all(&encode(tensor)?).map_err(bad)?;
        file.persist(&path).map_err(|e| bad(e.error))?;
        Ok(())
    }
}

/// A processor whose numbers are kept in a [`TensorCache`]: as they are before augmentation, which is drawn anew each time.
pub struct CachedProcessor {
    inner: Arc<dyn Processor>,
    cache: TensorCache,
}

impl CachedProcessor {
    /// `inner` with its numbers kept in `cache`.
    pub fn new(inner: Arc<dyn Processor>, cache: TensorCache) -> Self {
        Self { inner, cache }
    }
}

impl Processor for CachedProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let key = TensorCache::key(&self.inner.fingerprint(), source)?;
        let plain = if let Some(found) = self.cache.get(&key) {
            found
        } else {
            let made = self.inner.process(source, &mut ProcessContext::eval())?;
            self.cache.put(&key, &made)?;
            made
        };
        self.inner.augment(plain, context)
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

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        self.inner.augment(sample, context)
    }
}

/// One tensor as a safetensors file in memory.
fn encode(tensor: &Tensor) -> Result<Vec<u8>> {
    let bytes = tensor.to_bytes()?;
    let dtype = format!("{:?}", tensor.dtype()?).to_uppercase();
    let header = format!(
        "{{\"x\":{{\"dtype\":\"{dtype}\",\"shape\":{:?},\"data_offsets\":[0,{}]}}}}",
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
    fn the_key_changes_with_the_transform_and_the_file_and_entries_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TensorCache::open(folder.path().join("c")).unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "1").unwrap();
        let source = Source::Path(file.clone());
        let first = TensorCache::key("t1", &source).unwrap();
        assert_ne!(first, TensorCache::key("t2", &source).unwrap());
        std::fs::write(&file, "22").unwrap();
        assert_ne!(first, TensorCache::key("t1", &source).unwrap());
        let tensor = Tensor::from_vec(&[1f32, 2.0, 3.0], &[3, 1]).unwrap();
        assert!(cache.get(&first).is_none());
        cache.put(&first, &tensor).unwrap();
        let found = cache.get(&first).unwrap();
        assert_eq!((found.shape(), found.to_vec::<f32>().unwrap()), (vec![3, 1], vec![1.0, 2.0, 3.0]));
        cache.put(&first, &Tensor::from_slice(&[7i64, -1]).unwrap()).unwrap();
        assert_eq!(cache.get(&first).unwrap().dtype().unwrap(), mm_core::DType::I64);
        std::fs::write(cache.path(&first), "broken").unwrap();
        assert!(cache.get(&first).is_none());
    }
}
