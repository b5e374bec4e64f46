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
mod read;
mod row_list;
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
pub use row_list::RowList;
pub use rows::{VectorRow, copy_rows, read_rows, rows_file};
pub use shards::{EmbeddedShard, LeftOut, ShardJob, ShardsSummary, embedded_modalities};
#[cfg(feature = "parquet")]
pub(crate) use shards::{array_file, metadata_file};
pub(crate) use values::{ValueVector, embed_values};

use crate::{Error, Result};
use mm_core::Modality;
use pipeline::Pipeline;
use row_list::unread;
use state::{State, WorkDir};
use std::{path::Path, sync::atomic::AtomicBool};
use write::EmbeddingTable;

/// Rows without a value that a summary lists.
const MAX_EXAMPLES: usize = 20;

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
#[derive(Debug, Clone, Default)]
pub struct EmbedSummary {
    /// Number of vectors in the file.
    pub vectors: usize,
    /// Number of these that an earlier call computed.
    pub resumed: usize,
    /// Dimension of a vector.
    pub dim: usize,
    /// The values that could not be embedded.
    pub failed: Vec<FailedValue>,
    /// Number of rows without a value of a modality, whose vectors are missing as well.
    pub missing: usize,
    /// The first of them.
    pub missing_examples: Vec<FailedValue>,
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
/// When no modality is in both model and data set, `out.part` is of another model or data set, the data set was changed
/// since it was listed, or no value can be embedded.
pub fn embed_all(
    model: &dyn Embedder,
    list: &RowList,
    out: &Path,
    options: &EmbedOptions,
    stop: &AtomicBool,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<EmbedSummary> {
    let format = OutputFormat::from_path(out)?;
    let modalities = choose_modalities(model, list, format, options)?;
    let provenance = state::provenance(model, &list.data, &modalities, options)?;
    let hash = provenance.table.clone();
    let mut work = WorkDir::open(out, provenance)?;
    let resumed = if work.state.done > 0 { summarize(list, &modalities, &work.state)?.vectors } else { 0 };
    let total: usize = modalities.iter().map(|modality| list.entries_of(modality)).sum();
    let open = work.state.open_entries();
    let stopped = Pipeline { model, options }.run(
        |batches| list.give_values(&modalities, &open, batches),
        stop,
        &mut |modality, batch, vectors| {
            work.add(modality, batch, vectors)?;
            on_progress(work.state.done, total);
            Ok(())
        },
    )?;
    let summary = EmbedSummary { resumed, stopped, ..summarize(list, &modalities, &work.state)? };
    if stopped {
        return Ok(summary);
    }
    if summary.vectors == 0 {
        let reason = summary.failed.first().map(|f| format!(" ({}: {})", f.id, f.reason)).unwrap_or_default();
        let found = format!("no value of {total} that can be embedded{reason}");
        return Err(Error::invalid("data", found, "at least one"));
    }
    if state::table_hash(&list.data)? != hash {
        let folder = with_suffix(out, ".part");
        let reason = format!(
            "was changed while it was embedded, so that the vectors may be of two versions; delete {} and embed it again",
            folder.display()
        );
        return Err(Error::file(list.data.path(), reason));
    }
    let table = EmbeddingTable { list, modalities: &modalities, work: &work };
    table.write(out, format)?;
    work.finish()?;
    Ok(summary)
}

/// What is saved, and what is not there.
fn summarize(list: &RowList, modalities: &[Modality], state: &State) -> Result<EmbedSummary> {
    let mut summary = EmbedSummary { dim: state.dim, ..EmbedSummary::default() };
    for entry in list.entries(modalities) {
        let entry = entry.map_err(unread)?;
        let without_vector = |reason| FailedValue { id: entry.id.clone(), modality: entry.modality.clone(), reason };
        if entry.value.is_none() {
            summary.missing += 1;
            if summary.missing <= MAX_EXAMPLES {
                summary.missing_examples.push(without_vector(entry.absence()));
            }
        } else if let Some(reason) = state.failed.get(&entry.index) {
            summary.failed.push(without_vector(reason.clone()));
        } else if entry.index < state.done {
            summary.vectors += 1;
        }
    }
    Ok(summary)
}

fn names<'a>(modalities: impl IntoIterator<Item = &'a Modality>) -> String {
    modalities.into_iter().map(Modality::name).collect::<Vec<_>>().join(", ")
}

/// The modalities to embed.
fn choose_modalities(
    model: &dyn Embedder,
    list: &RowList,
    format: OutputFormat,
    options: &EmbedOptions,
) -> Result<Vec<Modality>> {
    let (of_model, of_data) = (model.modalities(), list.present());
    let chosen: Vec<Modality> = if options.modalities.is_empty() {
        of_model.iter().filter(|m| of_data.contains(m)).cloned().collect()
    } else {
        options.modalities.clone()
    };
    let both = || {
        let (of_model, of_data) = (names(&of_model), names(of_data));
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

#[cfg(test)]
mod tests;
