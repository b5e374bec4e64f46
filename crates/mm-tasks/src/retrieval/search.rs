//! Search among the data of a run: each split is embedded once, into a store of mm-index in the run folder, and embedded
//! again when its values or the run's weights have changed.

use super::{embed::EmbeddedSplit, model::Retrieval};
use crate::{Error, ProgressFn, Result, embedding::run_fingerprint, error::io_error, indexing::add_values};
use mm_core::{Checkpoint, Modality, Source, Tensor, checkpoint::write_atomic};
use mm_data::{Manifest, Split};
use mm_index::{OptimizeOptions, Payload, Query, Row, Store, StoreConfig, VectorConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// Rows that are written together.
const BATCH: usize = 4096;

/// A value that was found.
#[derive(Debug, Clone)]
pub struct FoundValue {
    /// The cosine to the query.
    pub score: f64,
    /// Its row in [`Manifest::rows`].
    pub row: usize,
    /// The split of the row.
    pub split: Split,
    /// The value.
    pub source: Source,
    /// The language, if the manifest states it.
    pub language: Option<String>,
}

/// Where and how much is searched.
#[derive(Debug, Clone)]
pub struct SearchOptions {
    /// The splits.
    pub splits: Vec<Split>,
    /// The modalities; each has results of its own.
    pub modalities: Vec<Modality>,
    /// The number of results of a modality.
    pub k: usize,
}

/// What a store was made of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Hash of the values and the weights.
    key: String,
    /// Values that could not be read.
    failed: usize,
}

/// The file with the [`Record`].
const RECORD: &str = "record.json";

/// The file with the vectors of 32 bits.
const VECTORS: &str = "vectors.safetensors";

/// Candidates beyond those that are wanted and half as many again: vectors that 16 bits cannot tell apart.
const MORE_CANDIDATES: usize = 100;

/// The folder of the stores in a run folder.
const FOLDER: &str = "search";

impl Retrieval {
    /// The values of each modality that are nearest to a vector `[embed_dim]`, best first. Values of a split that was
    /// not searched before are embedded first; `on_left_out(split, n)` receives how many of them cannot be read. What was
    /// embedded is kept in the folder `search` of the run, unless that may not be written.
    ///
    /// # Errors
    /// When the data cannot be embedded, or the disk is full.
    pub fn search(
        &self,
        manifest: &Manifest,
        vector: &[f32],
        options: &SearchOptions,
        on_left_out: &mut dyn FnMut(Split, usize),
        on_progress: ProgressFn<'_>,
    ) -> Result<BTreeMap<Modality, Vec<FoundValue>>> {
        let mut found: BTreeMap<Modality, Vec<FoundValue>> = BTreeMap::new();
        for split in &options.splits {
            let Some(index) = self.index_split(manifest, *split, on_progress)? else { continue };
            if index.failed > 0 {
                on_left_out(*split, index.failed);
            }
            let has = |m: &&Modality| index.store.config().vectors.contains_key(m.name());
            for modality in options.modalities.iter().filter(has) {
                let list = found.entry(modality.clone()).or_default();
                for (payload, score) in index.nearest(modality, vector, options.k)? {
                    list.push(value_of(manifest, modality, *split, &payload, score)?);
                }
            }
        }
        for list in found.values_mut() {
            list.sort_by(|a, b| b.score.total_cmp(&a.score));
            list.truncate(options.k);
        }
        Ok(found)
    }

    /// The store of a split, made where there is none; `None` where the split has no values.
    fn index_split(
        &self,
        manifest: &Manifest,
        split: Split,
        on_progress: ProgressFn<'_>,
    ) -> Result<Option<SplitIndex>> {
        let folder = self.index_folder(split)?;
        let key = self.index_key(manifest, split)?;
        if let Some(index) = SplitIndex::open(&folder, &key)? {
            return Ok(Some(index));
        }
        let processors = self.prepare(manifest, &AtomicBool::new(false), on_progress)?;
        let mut failed = Vec::new();
        let embedded = self.embed_split_with(manifest, split, &processors, &mut failed)?;
        if embedded.is_empty() {
            return Ok(None);
        }
        let record = Record { key, failed: failed.len() };
        let kept = self.keeps_index && is_writable(&folder)?;
        let temporary = (!kept).then(tempfile::tempdir).transpose().map_err(io_error(&std::env::temp_dir()))?;
        let folder = temporary.as_ref().map_or(folder, |temporary| temporary.path().join(split.to_string()));
        SplitIndex::create(&folder, &embedded, &record)?;
        let index = SplitIndex::open(&folder, &record.key)?;
        Ok(index.map(|index| SplitIndex { _temporary: temporary, ..index }))
    }

    /// The folder of a split of this run.
    fn index_folder(&self, split: Split) -> Result<PathBuf> {
        let run = self.run.as_deref().ok_or_else(|| Error::invalid("model", "no run folder", "a trained run"))?;
        Ok(run.join(FOLDER).join(split.to_string()))
    }

    /// Changes with the weights, and with the values of a split: files by path, size and time of change.
    fn index_key(&self, manifest: &Manifest, split: Split) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(run_fingerprint(self.run.as_deref())?.as_bytes());
        for index in manifest.rows_in_split(split) {
            hasher.update(&index.to_le_bytes());
            let row = &manifest.rows[index];
            row.values.keys().for_each(|modality| add_values(&mut hasher, modality, row));
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// Whether the folder that holds this one is there, or could be made: it cannot where a run is read-only.
fn is_writable(folder: &Path) -> Result<bool> {
    let parent = folder.parent().unwrap_or(folder);
    match std::fs::create_dir_all(parent).and_then(|()| tempfile::tempfile_in(parent)) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => Ok(false),
        Err(e) => Err(io_error(parent)(e)),
    }
}

/// The embedded values of a split.
struct SplitIndex {
    store: Box<dyn Store>,
    /// The vectors of each modality as they were computed, `[values, embed_dim]`.
    vectors: Checkpoint,
    failed: usize,
    /// Where the store is, if it is not kept.
    _temporary: Option<tempfile::TempDir>,
}

impl SplitIndex {
    /// The store in a folder if it is of this key.
    fn open(folder: &Path, key: &str) -> Result<Option<Self>> {
        let Ok(text) = std::fs::read(folder.join(RECORD)) else { return Ok(None) };
        match serde_json::from_slice::<Record>(&text) {
            Ok(record) if record.key == key => {
                // What cannot be opened is made again, as it holds nothing that is not computed.
                let store = mm_index::open(&folder.join("store")).ok();
                let vectors = Checkpoint::open(folder.join(VECTORS)).ok();
                let both = store.zip(vectors);
                Ok(both.map(|(store, vectors)| Self { store, vectors, failed: record.failed, _temporary: None }))
            }
            _ => Ok(None),
        }
    }

    /// The payloads and scores of the values nearest to a vector. The store has vectors of 16 bits and finds more than are
    /// wanted, which are scored by those of 32 bits.
    fn nearest(&self, modality: &Modality, vector: &[f32], k: usize) -> Result<Vec<(Payload, f64)>> {
        let candidates = k.saturating_add(k / 2).saturating_add(MORE_CANDIDATES);
        let hits = self.store.query(&Query::nearest(modality.name(), vector.to_vec()).k(candidates))?.hits;
        let numbers = hits.iter().map(|hit| number(&hit.payload, "number").unwrap_or_default() as i64);
        let numbers = Tensor::from_slice(&numbers.collect::<Vec<i64>>())?;
        let exact = self.vectors.view(modality.name())?.index_select(0, &numbers)?;
        let query = Tensor::from_slice(vector)?;
        let scores = exact.matmul(&query.unsqueeze(1)?)?.to_vec::<f64>()?;
        Ok(hits.into_iter().map(|hit| hit.payload).zip(scores).collect())
    }

    /// Writes the store next to the folder, which it replaces: another process sees one of both.
    fn create(folder: &Path, embedded: &BTreeMap<Modality, EmbeddedSplit>, record: &Record) -> Result<()> {
        let parent = folder.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(io_error(parent))?;
        let new = tempfile::tempdir_in(parent).map_err(io_error(parent))?;
        write_store(&new.path().join("store"), embedded)?;
        let vectors = embedded.iter().map(|(modality, split)| (modality.name().to_owned(), split.vectors.clone()));
        mm_core::checkpoint::save(&new.path().join(VECTORS), &vectors.collect::<Vec<_>>(), &[])?;
        let record_file = new.path().join(RECORD);
        let json = serde_json::to_vec(record).map_err(|error| Error::file(&record_file, error))?;
        write_atomic(&record_file, &json)?;
        if folder.exists() {
            // Renamed first, so that no process opens what is being deleted.
            let old = tempfile::tempdir_in(parent).map_err(io_error(parent))?;
            std::fs::rename(folder, old.path().join("old")).map_err(io_error(folder))?;
        }
        std::fs::rename(new.path(), folder).map_err(io_error(folder))?;
        // Its folder is not a temporary one any more.
        let _ = new.keep();
        Ok(())
    }
}

fn write_store(folder: &Path, embedded: &BTreeMap<Modality, EmbeddedSplit>) -> Result<()> {
    let mut config = StoreConfig::default();
    for (modality, split) in embedded {
        config = config.with(modality.name(), VectorConfig::cosine(split.vectors.size(-1)? as usize));
    }
    let store = mm_index::create(folder, &config)?;
    for (modality, EmbeddedSplit { vectors, entries }) in embedded {
        let dim = vectors.size(-1)? as usize;
        let values = vectors.to_vec::<f32>()?;
        let rows = entries.iter().zip(values.chunks(dim)).enumerate().map(|(number, (entry, vector))| {
            let row = Row::new(format!("{modality}/{number}")).with_vector(modality.name(), vector.to_vec());
            let row = row.with_field("row", entry.row).with_field("value", entry.value);
            let row = row.with_field("number", number);
            match &entry.language {
                Some(language) => row.with_field("language", language.clone()),
                None => row,
            }
        });
        let rows: Vec<Row> = rows.collect();
        rows.chunks(BATCH).try_for_each(|batch| store.upsert(batch))?;
    }
    store.optimize(&OptimizeOptions { stop: &AtomicBool::new(false), rebuild: false }, &mut |_, _, _| {})?;
    Ok(())
}

fn number(payload: &Payload, field: &str) -> Option<usize> {
    payload.get(field).and_then(Value::as_u64).map(|number| number as usize)
}

/// The value of a row of a store.
fn value_of(
    manifest: &Manifest,
    modality: &Modality,
    split: Split,
    payload: &Payload,
    score: f64,
) -> Result<FoundValue> {
    let found = number(payload, "row").zip(number(payload, "value"));
    let source = found.and_then(|(row, value)| manifest.rows.get(row)?.values.get(modality)?.get(value));
    let (Some((row, _)), Some(source)) = (found, source) else {
        let expected = "a value of the data; delete the folder `search` of the run";
        return Err(Error::invalid("a search result", Value::Object(payload.clone()), expected));
    };
    let language = payload.get("language").and_then(Value::as_str).map(ToOwned::to_owned);
    Ok(FoundValue { score, row, split, source: source.clone(), language })
}
