//! Embedding of many files by many workers, which know nothing of each other.
//!
//! Each file (a shard) becomes arrays and a table of metadata, in the folders that clip-retrieval and autofaiss read.
//! A worker takes a shard that is neither done nor leased ([`super::lease`]), and waits at the end until the shards of
//! others are done, so that those of a worker that was killed are not lost.

use super::{
    embedder::Embedder,
    lease::{Lease, Leases},
    options::{EmbedOptions, io_error},
    parquet::metadata_bytes,
    values::{ValueVector, embed_values},
};
use crate::{Error, Result, provenance::Provenance};
use mm_core::{Modality, checkpoint::write_atomic};
use mm_data::{Manifest, Row};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Polling interval of the shards that other workers have.
const POLL: Duration = Duration::from_millis(500);

/// A row of a shard that has no vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its id.
    pub id: String,
    /// Its number in the shard, from 1.
    pub row: usize,
    /// The modality that it lacks, or whose value could not be read.
    pub modality: String,
    /// Why.
    pub reason: String,
}

/// What is known of a shard that is done, `shards/NAME.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// The file that was embedded.
    pub file: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Number of rows with vectors.
    pub vectors: usize,
    /// Dimension of the vectors of each modality.
    pub dims: BTreeMap<String, usize>,
    /// The rows without.
    pub left_out: Vec<LeftOut>,
    /// Number of values after the first of their row and modality, which are not embedded.
    pub further_values: usize,
}

/// The result of a worker.
#[derive(Debug, Default)]
pub struct ShardsSummary {
    /// Number of shards.
    pub shards: usize,
    /// Number that this worker embedded.
    pub embedded: usize,
    /// Vectors, rows that were left out, and further values of all shards.
    pub vectors: usize,
    /// Rows without vectors.
    pub left_out: usize,
    /// Values after the first of their row.
    pub further_values: usize,
    /// Shards that could not be read, and why.
    pub failed: Vec<(PathBuf, String)>,
    /// Whether it was stopped before the end.
    pub stopped: bool,
}

/// A folder with the embeddings of shards.
pub struct ShardFolder(pub(super) PathBuf);

impl ShardFolder {
    /// The folder at a path.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The array of a modality of a shard, `[vectors, dim]` float32.
    pub fn array(&self, modality: &Modality, name: &str) -> PathBuf {
        // As clip-retrieval names it.
        let prefix = if *modality == Modality::IMAGE { "img" } else { modality.name() };
        self.0.join(format!("{prefix}_emb")).join(format!("{prefix}_emb_{name}.npy"))
    }

    /// The table of the rows of the arrays of a shard.
    pub fn metadata(&self, name: &str) -> PathBuf {
        self.0.join("metadata").join(format!("metadata_{name}.parquet"))
    }

    fn record_file(&self, name: &str) -> PathBuf {
        self.0.join("shards").join(format!("{name}.json"))
    }

    /// The record of a shard; `None` where it is not done.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn record(&self, name: &str) -> Result<Option<ShardRecord>> {
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

    /// Whether a shard is done; one whose file has another size by now is not.
    fn is_done(&self, name: &str, file: &Path) -> Result<bool> {
        let size = file.metadata().ok().map(|m| m.len());
        Ok(self.record(name)?.is_some_and(|record| size.is_none_or(|size| size == record.bytes)))
    }

    /// Makes the folders, and refuses one that holds vectors of another model or of other options.
    fn prepare(&self, modalities: &[Modality], provenance: &Provenance) -> Result<()> {
        let folders = modalities.iter().filter_map(|m| self.array(m, "").parent().map(Path::to_owned));
        for folder in folders.chain([self.0.join("metadata"), self.0.join("shards")]) {
            std::fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        }
        let path = self.0.join("embed.json");
        if !path.exists() {
            let text = serde_json::to_vec_pretty(provenance).map_err(|e| Error::file(&path, e))?;
            write_atomic(&path, &text)?;
        }
        let text = std::fs::read(&path).map_err(io_error(&path))?;
        let found: Provenance = serde_json::from_slice(&text).map_err(|e| Error::file(&path, e))?;
        match provenance.difference(&found) {
            Some(difference) => Err(Error::file(&self.0, format!("{difference}; choose another --out"))),
            None => Ok(()),
        }
    }
}

/// The name of a shard: `0001` of `data/0001.tar.gz`.
pub fn shard_name(file: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let at = name.find('.').filter(|at| *at > 0).unwrap_or(name.len());
    name[..at].to_owned()
}

/// The shards by name, in their order.
pub(super) fn named(files: &[PathBuf]) -> Result<Vec<(String, &PathBuf)>> {
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

/// What became of a shard that a worker wanted to embed.
enum Taken {
    Done,
    Embedded,
    ByAnother,
    Failed(String),
    Stopped,
}

/// What a worker embeds.
pub struct ShardJob<'a> {
    /// The model.
    pub model: &'a dyn Embedder,
    /// The shards.
    pub files: &'a [PathBuf],
    /// Reads a shard.
    pub open: &'a dyn Fn(&Path) -> Result<Manifest>,
    /// The modalities, the same in all shards.
    pub modalities: &'a [Modality],
    /// Further options.
    pub options: &'a EmbedOptions,
    /// The shard with which this worker begins, so that workers do not all try the same.
    pub first: usize,
}

impl ShardJob<'_> {
    /// Embeds shards into a folder until all are done, by this worker or by others. `on_progress(done, shards)` is
    /// called after each.
    ///
    /// # Errors
    /// When the folder is of another model or has other options, or cannot be written. A shard that cannot be read is in
    /// the summary.
    pub fn run(
        &self,
        out: &Path,
        stop: &AtomicBool,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ShardsSummary> {
        let (folder, shards) = (ShardFolder::new(out), named(self.files)?);
        folder.prepare(self.modalities, &self.provenance()?)?;
        let leases = Leases::open(out.join("leases"))?;
        let mut summary = ShardsSummary { shards: shards.len(), ..ShardsSummary::default() };
        let mut open: Vec<usize> = (0..shards.len()).collect();
        open.rotate_left(self.first % shards.len().max(1));
        while !open.is_empty() && !summary.stopped {
            let mut waiting = Vec::new();
            for (number, index) in open.iter().enumerate() {
                let (name, file) = &shards[*index];
                match self.take(&folder, &leases, name, file, stop)? {
                    Taken::Done => {}
                    Taken::Embedded => summary.embedded += 1,
                    Taken::ByAnother => waiting.push(*index),
                    Taken::Failed(reason) => summary.failed.push(((*file).clone(), reason)),
                    Taken::Stopped => {
                        summary.stopped = true;
                        break;
                    }
                }
                let left = open.len() - number - 1 + waiting.len();
                on_progress(shards.len() - left, shards.len());
            }
            open = waiting;
            if !open.is_empty() && !summary.stopped {
                std::thread::sleep(POLL);
                summary.stopped = stop.load(Ordering::Relaxed);
            }
        }
        if !summary.stopped {
            leases.sweep()?;
        }
        for (_, record) in records(&folder, &shards)? {
            summary.vectors += record.vectors;
            summary.left_out += record.left_out.len();
            summary.further_values += record.further_values;
        }
        Ok(summary)
    }

    /// Embeds a shard that is neither done nor leased by another worker.
    fn take(&self, folder: &ShardFolder, leases: &Leases, name: &str, file: &Path, stop: &AtomicBool) -> Result<Taken> {
        if stop.load(Ordering::Relaxed) {
            return Ok(Taken::Stopped);
        }
        if folder.is_done(name, file)? {
            return Ok(Taken::Done);
        }
        let Some(lease) = leases.take(name)? else { return Ok(Taken::ByAnother) };
        // It may have been done between the check and the lease.
        if folder.is_done(name, file)? {
            return Ok(Taken::Done);
        }
        let embedded = self.embed(folder, name, file, &lease, stop);
        mm_data::release_copy(file);
        match embedded {
            Ok(true) => Ok(Taken::Embedded),
            Ok(false) => Ok(Taken::Stopped),
            Err(error @ (Error::Data(_) | Error::Invalid { .. })) => Ok(Taken::Failed(error.to_string())),
            Err(error) => Err(error),
        }
    }

    fn provenance(&self) -> Result<Provenance> {
        let names: Vec<&str> = self.modalities.iter().map(Modality::name).collect();
        let options = [
            ("modalities".to_owned(), serde_json::json!(names)),
            ("pooling".to_owned(), serde_json::json!(self.options.pooling)),
            ("normalize".to_owned(), serde_json::json!(self.options.normalize)),
        ];
        let options = options.into_iter().collect();
        let model = self.model.fingerprint()?;
        Ok(Provenance { command: "embed --shards".into(), model, options, table: String::new() })
    }

    /// Embeds a shard; false when it was stopped.
    fn embed(&self, folder: &ShardFolder, name: &str, file: &Path, lease: &Lease, stop: &AtomicBool) -> Result<bool> {
        let manifest = (self.open)(file)?;
        let rows: Vec<usize> = (0..manifest.rows.len()).collect();
        let Some(found) = embed_first_values(self, &manifest, &rows, stop)? else { return Ok(false) };
        let (vectors, mut left_out) = by_row(&manifest, found);
        if self.options.fail_on_error
            && let Some(first) = left_out.first()
        {
            let found = format!("{}: {}", first.id, first.reason);
            return Err(Error::invalid(format!("a value of {}", first.modality), found, "one that can be read"));
        }
        let mut complete = Vec::new();
        for row in rows {
            let missing = self.modalities.iter().find(|m| !vectors.contains_key(&(row, (*m).clone())));
            let Some(modality) = missing else {
                complete.push(row);
                continue;
            };
            let Row { id, number, .. } = &manifest.rows[row];
            if !left_out.iter().any(|l| l.row == *number) {
                let reason = format!("the row has no {modality}");
                left_out.push(LeftOut { id: id.clone(), row: *number, modality: modality.to_string(), reason });
            }
        }
        left_out.sort_by_key(|l| l.row);
        let mut dims = BTreeMap::new();
        for modality in self.modalities {
            let values: Vec<&Vec<f32>> = complete.iter().map(|row| &vectors[&(*row, modality.clone())]).collect();
            let dim = values.first().map_or(0, |v| v.len());
            let mut bytes = mm_data::npy_header("<f4", &[values.len(), dim]);
            values.iter().flat_map(|v| v.iter()).for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
            lease.write(&folder.array(modality, name), &bytes)?;
            dims.insert(modality.to_string(), dim);
        }
        let metadata = folder.metadata(name);
        lease.write(&metadata, &metadata_bytes(&manifest, &complete).map_err(|e| Error::file(&metadata, e))?)?;
        let values = |row: &Row, m: &Modality| row.values.get(m).map_or(0, Vec::len);
        let further =
            manifest.rows.iter().flat_map(|row| self.modalities.iter().map(|m| values(row, m).saturating_sub(1)));
        let record = ShardRecord {
            file: file.to_owned(),
            bytes: mm_data::local_copy(file)?.metadata().map_err(io_error(file))?.len(),
            vectors: complete.len(),
            dims,
            left_out,
            further_values: further.sum(),
        };
        // The record last: a shard with one is complete.
        let path = folder.record_file(name);
        let text = serde_json::to_vec_pretty(&record).map_err(|e| Error::file(&path, e))?;
        lease.write(&path, &text)?;
        Ok(true)
    }
}

/// The records of the shards that are done, in order.
pub(super) fn records(folder: &ShardFolder, shards: &[(String, &PathBuf)]) -> Result<Vec<(String, ShardRecord)>> {
    let mut found = Vec::new();
    for (name, _) in shards {
        if let Some(record) = folder.record(name)? {
            found.push((name.clone(), record));
        }
    }
    Ok(found)
}

/// The vectors of the first values of rows.
fn embed_first_values(
    job: &ShardJob<'_>,
    manifest: &Manifest,
    rows: &[usize],
    stop: &AtomicBool,
) -> Result<Option<Vec<ValueVector>>> {
    let mut first = manifest.clone();
    for row in &mut first.rows {
        row.values.values_mut().for_each(|values| values.truncate(1));
    }
    embed_values(job.model, &first, rows, job.modalities, job.options, stop)
}

/// Vectors by row and modality, and the values without.
fn by_row(manifest: &Manifest, found: Vec<ValueVector>) -> (BTreeMap<(usize, Modality), Vec<f32>>, Vec<LeftOut>) {
    let (mut vectors, mut left_out) = (BTreeMap::new(), Vec::new());
    for ValueVector { row, modality, vector } in found {
        match vector {
            Ok(vector) => {
                vectors.insert((row, modality), vector);
            }
            Err(reason) => {
                let Row { id, number, .. } = &manifest.rows[row];
                left_out.push(LeftOut { id: id.clone(), row: *number, modality: modality.to_string(), reason });
            }
        }
    }
    (vectors, left_out)
}
