//! The folder that workers write to: what made it, and which shards are done.

use super::Lease;
use crate::{Error, Result, error::io_error, provenance::Provenance};
use mm_core::checkpoint::write_atomic;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What is known of a shard that is done, `shards/NAME.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord<T> {
    /// The file that was processed.
    pub file: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// What came of it.
    #[serde(flatten)]
    pub result: T,
}

/// A folder with the outputs of shards.
#[derive(Debug, Clone)]
pub struct ShardFolder(PathBuf);

impl ShardFolder {
    /// The folder at a path, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn record_file(&self, name: &str) -> PathBuf {
        self.0.join("shards").join(format!("{name}.json"))
    }

    fn provenance_file(&self) -> PathBuf {
        self.0.join("provenance.json")
    }

    /// The record of a shard; `None` where it is not done.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<ShardRecord<T>>> {
        let path = self.record_file(name);
        match std::fs::read(&path) {
            Ok(text) => {
                let invalid = |e| Error::file(&path, format!("is no record of a shard: {e}; delete it"));
                serde_json::from_slice(&text).map(Some).map_err(invalid)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error(&path)(e)),
        }
    }

    /// The records of the shards that are done, in order.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn records<T: DeserializeOwned>(&self, shards: &[(String, &PathBuf)]) -> Result<Vec<(String, ShardRecord<T>)>> {
        let mut found = Vec::new();
        for (name, _) in shards {
            if let Some(record) = self.record(name)? {
                found.push((name.clone(), record));
            }
        }
        Ok(found)
    }

    /// Whether a shard is done; one whose file has another size by now is not.
    pub(super) fn is_done(&self, name: &str, file: &Path) -> Result<bool> {
        let size = file.metadata().ok().map(|m| m.len());
        let record = self.record::<serde_json::Map<String, serde_json::Value>>(name)?;
        Ok(record.is_some_and(|record| size.is_none_or(|size| size == record.bytes)))
    }

    /// Writes the record of a shard, whose outputs are all written: with it the shard is done.
    pub(super) fn finish<T: Serialize>(&self, name: &str, file: &Path, lease: &Lease, result: T) -> Result<()> {
        let bytes = mm_data::local_copy(file)?.metadata().map_err(io_error(file))?.len();
        let record = ShardRecord { file: file.to_owned(), bytes, result };
        let path = self.record_file(name);
        let text = serde_json::to_vec_pretty(&record).map_err(|e| Error::file(&path, e))?;
        lease.write(&path, &text)
    }

    /// What made the folder; `None` where nothing did yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn provenance(&self) -> Result<Option<Provenance>> {
        let path = self.provenance_file();
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).map_err(io_error(&path))?;
        serde_json::from_slice(&text).map(Some).map_err(|e| Error::file(&path, e))
    }

    /// Makes the folder and `folders` in it, and refuses one with the outputs of another command, model or options.
    ///
    /// # Errors
    /// When it is of others, or cannot be written.
    pub fn prepare(&self, folders: &[&str], provenance: &Provenance) -> Result<()> {
        for folder in folders.iter().chain(&["shards"]).map(|name| self.0.join(name)) {
            std::fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        }
        let path = self.provenance_file();
        if !path.exists() {
            let text = serde_json::to_vec_pretty(provenance).map_err(|e| Error::file(&path, e))?;
            write_atomic(&path, &text)?;
        }
        let difference = self.provenance()?.and_then(|found| provenance.difference(&found));
        difference.map_or(Ok(()), |difference| Err(Error::file(&self.0, format!("{difference}; choose another --out"))))
    }
}

/// The name of a shard: `0001` of `data/0001.tar.gz`.
pub fn shard_name(file: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let at = name.find('.').filter(|at| *at > 0).unwrap_or(name.len());
    name[..at].to_owned()
}

/// The shards by name, in their order.
///
/// # Errors
/// When two have the same name.
pub fn name_shards(files: &[PathBuf]) -> Result<Vec<(String, &PathBuf)>> {
    let mut seen: BTreeMap<String, &PathBuf> = BTreeMap::new();
    let mut all = Vec::new();
    for file in files {
        let name = shard_name(file);
        if let Some(other) = seen.insert(name.clone(), file) {
            let found = format!("{} and {}", other.display(), file.display());
            return Err(Error::invalid("shards", found, "files whose names differ before the first dot"));
        }
        all.push((name, file));
    }
    Ok(all)
}
