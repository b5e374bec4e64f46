//! The folder with the vectors of an unfinished embedding.

use super::{
    embedder::Embedder,
    options::{EmbedOptions, with_suffix},
    pipeline::{ValueKey, VectorResult},
};
use crate::{Error, Result, error::io_error, provenance::Provenance};
use mm_core::{
    Modality,
    checkpoint::{self, FolderLock},
};
use mm_data::ManifestPieces;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
};

/// Progress of embedding a data set.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Only the embedding of the same data set by the same model with the same options is continued.
    provenance: Provenance,
    /// Dimension of the vectors; 0 before the first.
    pub(super) dim: usize,
    /// The first entries, as many as were tried.
    pub(super) done: usize,
    /// Entries that could not be embedded, and why.
    pub(super) failed: BTreeMap<usize, String>,
}

/// The provenance of an embedding.
pub(super) fn provenance(
    model: &dyn Embedder,
    data: &ManifestPieces,
    modalities: &[Modality],
    options: &EmbedOptions,
) -> Result<Provenance> {
    let columns = &data.columns().modalities;
    let modalities: BTreeMap<&str, _> = modalities.iter().map(|m| (m.name(), columns.get(m.name()))).collect();
    let serde_json::Value::Object(mut options) = serde_json::json!({
        "modalities": modalities,
        "id": data.columns().id,
        "pooling": options.pooling,
        "normalize": options.normalize,
    }) else {
        unreachable!("an object is written above")
    };
    // How cells are read, where it is given: embeddings that were begun without these options have no such keys.
    let config = data.config();
    let given = [
        ("encoding", config.encoding.as_ref().map(|name| serde_json::json!(name))),
        ("missing_values", config.missing_values.as_ref().map(|texts| serde_json::json!(texts))),
        ("fetch_urls", config.fetch_urls.then(|| serde_json::json!(true))),
    ];
    options.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(Provenance { command: "embed".to_owned(), model: model.fingerprint()?, options, table: table_hash(data)? })
}

/// The hash of a table's files.
pub(super) fn table_hash(data: &ManifestPieces) -> Result<String> {
    let mut table = blake3::Hasher::new();
    for path in mm_data::existing_files(data.path())? {
        table.update_reader(mm_data::open_file(&path)?).map_err(io_error(&path))?;
    }
    Ok(table.finalize().to_hex().to_string())
}

impl State {
    /// Which entries are still to be embedded: the rest, and those that failed before.
    pub(super) fn open_entries(&self) -> OpenEntries {
        OpenEntries { done: self.done, failed: self.failed.keys().copied().collect() }
    }
}

/// The entries that an embedding begins with, of those that have a value.
pub(super) struct OpenEntries {
    done: usize,
    failed: BTreeSet<usize>,
}

impl OpenEntries {
    pub(super) fn contains(&self, entry: usize) -> bool {
        entry >= self.done || self.failed.contains(&entry)
    }

    /// Whether there are any among these.
    pub(super) fn are_in(&self, entries: Range<usize>) -> bool {
        entries.end > self.done.max(entries.start) || self.failed.range(entries).next().is_some()
    }
}

/// The folder of an unfinished embedding, locked while it is open.
pub(super) struct WorkDir {
    lock: FolderLock,
    state_file: PathBuf,
    /// The vectors as float32, one after the other.
    pub(super) vectors_file: PathBuf,
    vectors: File,
    pub(super) state: State,
}

impl WorkDir {
    /// Opens or creates the folder of an output file.
    ///
    /// # Errors
    /// When another process uses it, or it is of another embedding.
    pub(super) fn open(out: &Path, provenance: Provenance) -> Result<Self> {
        let path = with_suffix(out, ".part");
        let lock = FolderLock::acquire(&path)?;
        let state_file = path.join("state.json");
        let state = match std::fs::read(&state_file) {
            Ok(text) => {
                let invalid = |e| Error::file(&state_file, format!("cannot be read: {e}; delete {}", path.display()));
                serde_json::from_slice::<State>(&text).map_err(invalid)?
            }
            Err(_) => State { provenance: provenance.clone(), ..State::default() },
        };
        if let Some(difference) = provenance.difference(&state.provenance) {
            let reason = format!("{difference}; delete it to start again, or choose another --out");
            return Err(Error::file(path, reason));
        }
        let vectors_file = path.join("vectors.f32");
        let vectors = File::options().create(true).truncate(false).read(true).write(true).open(&vectors_file);
        let vectors = vectors.map_err(io_error(&vectors_file))?;
        Ok(Self { lock, state_file, vectors_file, vectors, state })
    }

    /// Saves the vectors of a batch of entries of a modality, then the state.
    pub(super) fn add(&mut self, modality: &Modality, batch: &[ValueKey], vectors: Vec<VectorResult>) -> Result<()> {
        for (ValueKey { entry, id }, vector) in batch.iter().zip(vectors) {
            match vector {
                Ok(vector) => {
                    let dim = vector.len();
                    if self.state.dim != 0 && self.state.dim != dim {
                        let expected = format!("{} as before", self.state.dim);
                        return Err(Error::invalid(
                            format!("{modality} of {id}"),
                            format!("{dim} dimensions"),
                            expected,
                        )
                        .with_hint("choose one modality with --modality"));
                    }
                    self.state.dim = dim;
                    let failed = io_error(&self.vectors_file);
                    self.vectors.seek(SeekFrom::Start((entry * dim * size_of::<f32>()) as u64)).map_err(&failed)?;
                    let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                    self.vectors.write_all(&bytes).map_err(&failed)?;
                    self.state.failed.remove(entry);
                }
                Err(reason) => {
                    self.state.failed.insert(*entry, reason);
                }
            }
            self.state.done = self.state.done.max(entry + 1);
        }
        // The vectors are synced to disk before the state that counts them.
        self.vectors.sync_data().map_err(io_error(&self.vectors_file))?;
        let state = serde_json::to_vec(&self.state).map_err(|e| Error::file(&self.state_file, e))?;
        Ok(checkpoint::write_atomic(&self.state_file, &state)?)
    }

    /// Deletes the folder, unless values failed, which the next call tries again.
    pub(super) fn finish(self) -> Result<()> {
        if self.state.failed.is_empty() {
            drop(self.vectors);
            self.lock.remove_folder()?;
        }
        Ok(())
    }
}
