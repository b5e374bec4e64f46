//! Vectors of some rows of a data set, in memory.

use super::{
    embedder::Embedder,
    options::EmbedOptions,
    pipeline::{Pipeline, ValueKey},
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
    let mut vectors = Vec::new();
    let stopped = Pipeline { model, options }.run(
        |batches| {
            for modality in modalities {
                for row in rows {
                    let of_row = &manifest.rows[*row];
                    for source in of_row.values.get(modality).into_iter().flatten() {
                        batches.push(modality, ValueKey { entry: *row, id: of_row.id.clone() }, source.clone())?;
                    }
                }
            }
            Ok(())
        },
        stop,
        &mut |modality, keys, results| {
            for (key, vector) in keys.iter().zip(results) {
                vectors.push(ValueVector { row: key.entry, modality: modality.clone(), vector });
            }
            Ok(())
        },
    )?;
    Ok((!stopped).then_some(vectors))
}
