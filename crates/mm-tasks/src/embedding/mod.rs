//! Embedding of whole data sets into a file.
//!
//! Values are decoded ahead of the model, an interrupted embedding continues where it stopped, values that cannot be
//! read are missing from the result and are tried again by the next call, and memory does not grow with the number of
//! rows.

#[cfg(feature = "arrow")]
mod arrow;
mod embedder;
mod merge;
mod options;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(not(feature = "parquet"))]
#[path = "parquet_disabled.rs"]
mod parquet;
mod pipeline;
mod rows;
mod shards;
mod state;
mod values;
mod write;

#[cfg(feature = "arrow")]
pub use arrow::{StreamSummary, embed_stream};
pub use embedder::Embedder;
pub(crate) use embedder::run_fingerprint;
pub use merge::merge_shards;
pub use options::{EmbedOptions, OutputFormat, with_suffix};
#[cfg(feature = "parquet")]
pub(crate) use parquet::{ROW_GROUP_SIZE, write_optional, write_values};
pub use rows::{VectorRow, copy_rows, read_rows, rows_file};
pub use shards::{EmbeddedShard, LeftOut, ShardJob, ShardsSummary, embedded_modalities};
pub(crate) use values::{ValueVector, embed_values};

use crate::{Error, Result};
use mm_core::Modality;
use mm_data::Manifest;
use options::Entry;
use pipeline::Pipeline;
use state::WorkDir;
use std::{path::Path, sync::atomic::AtomicBool};
use write::EmbeddingTable;

/// A value that has no vector: it could not be embedded, or its row has none.
#[derive(Debug, Clone)]
pub struct FailedValue {
    /// The id of its row.
    pub id: String,
    /// The modality.
    pub modality: Modality,
    /// What is wrong.
    pub reason: String,
}

/// The result of an embedding.
#[derive(Debug, Clone)]
pub struct EmbedSummary {
    /// Number of vectors in the file.
    pub vectors: usize,
    /// Number of these that an earlier call computed.
    pub resumed: usize,
    /// Dimension of a vector.
    pub dim: usize,
    /// The values that could not be embedded.
    pub failed: Vec<FailedValue>,
    /// The rows without a value of a modality, whose vectors are missing as well.
    pub missing: Vec<FailedValue>,
    /// Whether it was stopped before the end.
    pub stopped: bool,
}

/// Embeds every value of a data set into `out`; `on_progress(done, total)` is called after each batch.
///
/// Rows keep their order. A row without a value of a modality, and a value that cannot be read, has one missing vector
/// (NaN, or null in Parquet). So the arrays of two modalities with at most one value a row correspond row by row.
///
/// Until all values are embedded, vectors are saved in the folder `out.part`; called again, it embeds what is missing.
/// `stop` stops it after the current batch. Except for Parquet, the row of each vector is written to `out` with the
/// extension `rows.jsonl`.
///
/// # Errors
/// When no modality is in both model and data set, `out.part` is of another model or data set, or no value can be
/// embedded.
pub fn embed_all(
    model: &dyn Embedder,
    manifest: &Manifest,
    out: &Path,
    options: &EmbedOptions,
    stop: &AtomicBool,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<EmbedSummary> {
    let format = OutputFormat::from_path(out)?;
    let modalities = choose_modalities(model, manifest, format, options)?;
    let entries = list_entries(manifest, &modalities);
    let mut work = WorkDir::open(out, state::provenance(model, manifest, &modalities, options)?)?;
    let resumed = work.state.num_vectors(&entries);
    let to_embed = work.state.to_embed(&entries);
    let pipeline = Pipeline { model, manifest, entries: &entries, options };
    let stopped = pipeline.run(&to_embed, stop, &mut |batch, vectors| {
        work.add(batch, vectors, |entry| (&manifest.rows[entries[entry].row].id, &entries[entry].modality))?;
        on_progress(work.state.done, entries.len());
        Ok(())
    })?;
    let without_vector = |entry: &Entry, reason: String| {
        let id = manifest.rows[entry.row].id.clone();
        FailedValue { id, modality: entry.modality.clone(), reason }
    };
    let failed = work.state.failed.iter().map(|(n, reason)| without_vector(&entries[*n], reason.clone())).collect();
    let absent = entries.iter().filter(|e| e.value.is_none());
    let missing = absent.map(|entry| without_vector(entry, entry.absence())).collect();
    let (vectors, dim) = (work.state.num_vectors(&entries), work.state.dim);
    let summary = EmbedSummary { vectors, resumed, dim, failed, missing, stopped };
    if stopped {
        return Ok(summary);
    }
    if summary.vectors == 0 {
        let reason = summary.failed.first().map(|f| format!(" ({}: {})", f.id, f.reason)).unwrap_or_default();
        let found = format!("no value of {} that can be embedded{reason}", entries.len());
        return Err(Error::invalid("data", found, "at least one"));
    }
    let table = EmbeddingTable { manifest, entries: &entries, work: &work };
    table.write(out, format, &modalities)?;
    work.finish()?;
    Ok(summary)
}

fn names<'a>(modalities: impl IntoIterator<Item = &'a Modality>) -> String {
    modalities.into_iter().map(Modality::name).collect::<Vec<_>>().join(", ")
}

/// The modalities to embed.
fn choose_modalities(
    model: &dyn Embedder,
    manifest: &Manifest,
    format: OutputFormat,
    options: &EmbedOptions,
) -> Result<Vec<Modality>> {
    let (of_model, of_data) = (model.modalities(), manifest.modalities());
    let chosen: Vec<Modality> = if options.modalities.is_empty() {
        of_model.iter().filter(|m| of_data.contains(m)).cloned().collect()
    } else {
        options.modalities.clone()
    };
    let both = || {
        let (of_model, of_data) = (names(&of_model), names(&of_data));
        format!("one of both (the model takes {of_model}, the data set has {of_data})")
    };
    if let Some(unknown) = chosen.iter().find(|m| !of_data.contains(m) || !of_model.contains(m)) {
        return Err(Error::invalid("modality", unknown, both()));
    }
    if chosen.is_empty() {
        let hint = "`mm inspect` shows which column is which modality";
        return Err(Error::invalid("modality", "none in common", both()).with_hint(hint));
    }
    if format == OutputFormat::Npy && chosen.len() > 1 {
        let hint = "choose one with --modality, or write .safetensors or .parquet";
        return Err(Error::invalid("modality", names(&chosen), "one modality for a .npy file").with_hint(hint));
    }
    Ok(chosen)
}

/// All values of these modalities, and for each row without a value its absence.
fn list_entries(manifest: &Manifest, modalities: &[Modality]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for modality in modalities {
        for (row, sample) in manifest.rows.iter().enumerate() {
            let count = sample.values.get(modality).map_or(0, Vec::len);
            let values = (0..count).map(Some).chain((count == 0).then_some(None));
            entries.extend(values.map(|value| Entry { row, value, modality: modality.clone() }));
        }
    }
    entries
}
