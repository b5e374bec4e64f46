//! The folder that workers write to: what made it, and which shards are done.

use super::{
    Lease,
    lease::{self, unfinished, worker_name},
};
use crate::{Error, Result, error::io_error, provenance::Provenance};
use mm_data::{OutputFolder, open_output_folder};
use rayon::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
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

/// A folder with the outputs of shards, which may lie in an object store.
#[derive(Clone)]
pub struct ShardFolder {
    path: PathBuf,
    files: Arc<dyn OutputFolder>,
}

/// What made the folder.
const PROVENANCE: &str = "provenance.json";

/// The folder of records.
const RECORDS: &str = "shards";

/// The folder that lists the shards that failed, `failed/NAME.json`.
const FAILURES: &str = "failed";

/// A shard that could not be processed.
#[derive(Serialize)]
struct FailureRecord<'a> {
    file: &'a Path,
    reason: &'a str,
}

fn record_file(name: &str) -> String {
    format!("{RECORDS}/{name}.json")
}

impl ShardFolder {
    /// The folder at a path or URL, which need not exist.
    ///
    /// # Errors
    /// When the program cannot write to the URL.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), files: open_output_folder(path)?.into() })
    }

    /// Its path or URL.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn files(&self) -> &dyn OutputFolder {
        &*self.files
    }

    /// The error of a file of the folder.
    pub(super) fn failed(&self, name: &str) -> impl Fn(io::Error) -> Error + use<> {
        io_error(&self.path.join(name))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.files.read(name).map_err(self.failed(name))
    }

    /// The record of a shard; `None` where it is not done.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<ShardRecord<T>>> {
        let file = record_file(name);
        let Some(text) = self.read(&file)? else { return Ok(None) };
        let invalid = |e| Error::file(self.path.join(&file), format!("is no record of a shard: {e}; delete it"));
        serde_json::from_slice(&text).map(Some).map_err(invalid)
    }

    /// The records of the shards that are done, in order.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn records<T: DeserializeOwned + Send>(
        &self,
        shards: &[(String, &PathBuf)],
    ) -> Result<Vec<(String, ShardRecord<T>)>> {
        let read = |(name, _): &(String, &PathBuf)| Ok(self.record(name)?.map(|record| (name.clone(), record)));
        shards.par_iter().filter_map(|shard| read(shard).transpose()).collect()
    }

    /// The names of the shards that have a record, from one listing: a worker that begins late does not ask for each of
    /// them.
    pub(super) fn recorded(&self) -> Result<BTreeSet<String>> {
        self.names_in(RECORDS)
    }

    /// The names of the files `NAME.json` in a folder.
    fn names_in(&self, folder: &str) -> Result<BTreeSet<String>> {
        let names = self.files.list(folder).map_err(self.failed(folder))?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")).map(ToOwned::to_owned).collect())
    }

    /// Lists a shard among those that failed.
    pub(super) fn add_failure(&self, name: &str, file: &Path, lease: &Lease, reason: &str) -> Result<()> {
        let path = format!("{FAILURES}/{name}.json");
        let text = serde_json::to_vec_pretty(&FailureRecord { file, reason });
        lease.write(&path, &text.map_err(|e| Error::file(self.path.join(&path), e))?)
    }

    /// Removes the shards from the list of those that failed that are done by now.
    pub(super) fn remove_done_failures(&self) -> Result<()> {
        let failures = self.names_in(FAILURES)?;
        if failures.is_empty() {
            return Ok(());
        }
        for name in failures.intersection(&self.recorded()?) {
            let path = format!("{FAILURES}/{name}.json");
            self.files.remove(&path).map_err(self.failed(&path))?;
        }
        Ok(())
    }

    /// Whether a shard is done; one whose file has another size by now is not.
    pub(super) fn is_done(&self, name: &str, file: &Path) -> Result<bool> {
        let size = file.metadata().ok().map(|m| m.len());
        let record = self.record::<serde_json::Map<String, serde_json::Value>>(name)?;
        Ok(record.is_some_and(|record| size.is_none_or(|size| size == record.bytes)))
    }

    /// Writes the record of a shard, whose outputs are all written: with it the shard is done.
    pub(super) fn finish<T: Serialize>(&self, name: &str, file: &Path, lease: &Lease, result: T) -> Result<()> {
        let bytes = mm_data::file_size(file)?;
        let record = ShardRecord { file: file.to_owned(), bytes, result };
        let path = record_file(name);
        let text = serde_json::to_vec_pretty(&record).map_err(|e| Error::file(self.path.join(&path), e))?;
        lease.write(&path, &text)
    }

    /// What made the folder; `None` where nothing did yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn provenance(&self) -> Result<Option<Provenance>> {
        let Some(text) = self.read(PROVENANCE)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|e| Error::file(self.path.join(PROVENANCE), e))
    }

    /// Says what makes the folder, and refuses one with the outputs of another command, model or options.
    ///
    /// # Errors
    /// When it is of others, or cannot be written.
    pub fn prepare(&self, provenance: &Provenance) -> Result<()> {
        if self.provenance()?.is_none() {
            let text = serde_json::to_vec_pretty(provenance).map_err(|e| Error::file(self.path.join(PROVENANCE), e))?;
            let written = self.files.write(PROVENANCE, &text, &unfinished(lease::PROVENANCE, &worker_name()));
            written.map_err(self.failed(PROVENANCE))?;
        }
        let difference = self.provenance()?.and_then(|found| provenance.difference(&found));
        let refused = |difference| Err(Error::file(&self.path, format!("{difference}; choose another --out")));
        difference.map_or(Ok(()), refused)
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
