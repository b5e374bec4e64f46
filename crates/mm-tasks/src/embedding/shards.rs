//! Embedding of many files by many workers ([`crate::shards`]).
//!
//! Each file (a shard) becomes arrays and a table of metadata, in the folders that clip-retrieval and autofaiss read.

use super::{
    embedder::Embedder,
    options::EmbedOptions,
    parquet::metadata_bytes,
    values::{ValueVector, embed_values},
};
use crate::{
    Error, Result,
    provenance::Provenance,
    shards::{Shard, ShardFolder, ShardOutcome, ShardRecord, ShardWork, WorkerSummary, name_shards, run_worker},
};
use mm_core::Modality;
use mm_data::{Manifest, Row};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

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

/// What is recorded of a shard that was embedded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddedShard {
    /// Number of rows with vectors.
    pub vectors: usize,
    /// Dimension of the vectors of each modality.
    pub dims: BTreeMap<String, usize>,
    /// The rows without.
    pub left_out: Vec<LeftOut>,
    /// Number of values after the first of their row and modality, which are not embedded.
    pub further_values: usize,
}

/// The result of a worker, and what all shards hold together.
#[derive(Debug, Default)]
pub struct ShardsSummary {
    /// What this worker did.
    pub worker: WorkerSummary,
    /// Number of rows with vectors.
    pub vectors: usize,
    /// Rows without vectors.
    pub left_out: usize,
    /// Values after the first of their row.
    pub further_values: usize,
}

/// The prefix of a modality's folder and files, as clip-retrieval names them.
fn prefix(modality: &Modality) -> &str {
    if *modality == Modality::IMAGE { "img" } else { modality.name() }
}

/// The array of a modality of a shard, `[vectors, dim]` float32, in its folder.
pub(crate) fn array_file(modality: &Modality, name: &str) -> String {
    let prefix = prefix(modality);
    format!("{prefix}_emb/{prefix}_emb_{name}.npy")
}

/// The table of the rows of the arrays of a shard, in its folder.
pub(crate) fn metadata_file(name: &str) -> String {
    format!("metadata/metadata_{name}.parquet")
}

/// The command that a folder of embeddings names as its origin.
const COMMAND: &str = "embed --shards";

/// The modalities of the vectors that a folder holds; none where it holds none yet.
///
/// # Errors
/// When the folder says what made it and that cannot be read.
pub fn embedded_modalities(folder: &Path) -> Result<Vec<Modality>> {
    let Some(provenance) = ShardFolder::open(folder)?.provenance()? else { return Ok(Vec::new()) };
    let names = provenance.options.get("modalities").and_then(|names| names.as_array()).cloned().unwrap_or_default();
    Ok(names.iter().filter_map(|name| name.as_str()).map(Modality::from).collect())
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
    /// How the tables are read, by the names of the options: part of the provenance.
    pub table: &'a Map<String, Value>,
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
        let (folder, shards) = (ShardFolder::open(out)?, name_shards(self.files)?);
        folder.prepare(&self.provenance()?)?;
        let (first, mut work) = (self.first, EmbedWork(self));
        let worker = run_worker(&folder, &shards, first, &mut work, stop, on_progress)?;
        let mut summary = ShardsSummary { worker, ..ShardsSummary::default() };
        for (_, ShardRecord { result, .. }) in folder.records::<EmbeddedShard>(&shards)? {
            summary.vectors += result.vectors;
            summary.left_out += result.left_out.len();
            summary.further_values += result.further_values;
        }
        Ok(summary)
    }

    fn provenance(&self) -> Result<Provenance> {
        let names: Vec<&str> = self.modalities.iter().map(Modality::name).collect();
        let options = [
            ("modalities".to_owned(), serde_json::json!(names)),
            ("pooling".to_owned(), serde_json::json!(self.options.pooling)),
            ("normalize".to_owned(), serde_json::json!(self.options.normalize)),
        ];
        let options = options.into_iter().chain(self.table.clone()).collect();
        let model = self.model.fingerprint()?;
        Ok(Provenance { command: COMMAND.into(), model, options, table: String::new() })
    }

    /// Embeds a shard; `None` when it was stopped.
    fn embed(&self, shard: &Shard<'_>) -> Result<Option<EmbeddedShard>> {
        let manifest = (self.open)(shard.file)?;
        let rows: Vec<usize> = (0..manifest.rows.len()).collect();
        let Some(found) = embed_first_values(self, &manifest, &rows, shard.stop)? else { return Ok(None) };
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
        let dims = self.write(shard, &manifest, &complete, &vectors)?;
        let values = |row: &Row, m: &Modality| row.values.get(m).map_or(0, Vec::len);
        let further =
            manifest.rows.iter().flat_map(|row| self.modalities.iter().map(|m| values(row, m).saturating_sub(1)));
        let further_values = further.sum();
        Ok(Some(EmbeddedShard { vectors: complete.len(), dims, left_out, further_values }))
    }

    /// Writes the arrays and the table of the rows with all vectors, and returns the dimension of each modality. Of a shard
    /// without any there are no files: embedding-reader passes over an empty array but not over its table, and would give
    /// each later array the table of another shard.
    fn write(
        &self,
        shard: &Shard<'_>,
        manifest: &Manifest,
        complete: &[usize],
        vectors: &BTreeMap<(usize, Modality), Vec<f32>>,
    ) -> Result<BTreeMap<String, usize>> {
        let mut dims = BTreeMap::new();
        if complete.is_empty() {
            return Ok(dims);
        }
        let Shard { name, lease, .. } = *shard;
        for modality in self.modalities {
            let values: Vec<&Vec<f32>> = complete.iter().map(|row| &vectors[&(*row, modality.clone())]).collect();
            let dim = values[0].len();
            let mut bytes = mm_data::npy_header("<f4", &[values.len(), dim]);
            values.iter().flat_map(|v| v.iter()).for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
            lease.write(&array_file(modality, name), &bytes)?;
            dims.insert(modality.to_string(), dim);
        }
        let metadata = metadata_file(name);
        lease.write(&metadata, &metadata_bytes(manifest, complete).map_err(|e| Error::file(&metadata, e))?)?;
        Ok(dims)
    }
}

/// The embedding of shards into a folder.
struct EmbedWork<'a, 'b>(&'a ShardJob<'b>);

impl ShardWork for EmbedWork<'_, '_> {
    type Record = EmbeddedShard;
    type Error = Error;

    fn process(&mut self, shard: &Shard<'_>) -> Result<ShardOutcome<EmbeddedShard>> {
        match self.0.embed(shard) {
            Ok(Some(record)) => Ok(ShardOutcome::Done(record)),
            Ok(None) => Ok(ShardOutcome::Stopped),
            Err(error @ (Error::Data(_) | Error::Invalid { .. })) => Ok(ShardOutcome::Failed(error.to_string())),
            Err(error) => Err(error),
        }
    }
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
        row.values.iter_mut().for_each(|(_, values)| values.truncate(1));
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
