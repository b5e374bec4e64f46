//! Vectors of some rows of a data set, in memory.

use super::{
    embedder::Embedder,
    options::{EmbedOptions, Entry},
    pipeline::Pipeline,
};
use crate::Result;
use mm_core::Modality;
use mm_data::Manifest;
use std::sync::atomic::AtomicBool;

/// The vector of a value of a row, or why there is none.
pub(crate) struct ValueVector {
    /// The index of the row in [`Manifest::rows`].
    pub(crate) row: usize,
    pub(crate) modality: Modality,
    pub(crate) vector: std::result::Result<Vec<f32>, String>,
}

/// Embeds every value of these modalities in some rows; the values of a modality follow each other in the order of the
/// rows. `None` when it was stopped.
pub(crate) fn embed_values(
    model: &dyn Embedder,
    manifest: &Manifest,
    rows: &[usize],
    modalities: &[Modality],
    options: &EmbedOptions,
    stop: &AtomicBool,
) -> Result<Option<Vec<ValueVector>>> {
    let mut entries = Vec::new();
    for modality in modalities {
        for row in rows {
            let count = manifest.rows[*row].values.get(modality).map_or(0, Vec::len);
            let entry = |value| Entry { row: *row, value: Some(value), modality: modality.clone() };
            entries.extend((0..count).map(entry));
        }
    }
    let mut vectors = Vec::with_capacity(entries.len());
    let pipeline = Pipeline { model, manifest, entries: &entries, options };
    let all: Vec<usize> = (0..entries.len()).collect();
    let stopped = pipeline.run(&all, stop, &mut |batch, results| {
        for (entry, vector) in batch.iter().zip(results) {
            let Entry { row, modality, .. } = &entries[*entry];
            vectors.push(ValueVector { row: *row, modality: modality.clone(), vector });
        }
        Ok(())
    })?;
    Ok((!stopped).then_some(vectors))
}
