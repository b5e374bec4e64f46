//! Rows with their vectors.

use super::Update;
use crate::{
    Error, Result,
    embedding::{EmbedOptions, FailedValue, ValueVector, embed_values},
};
use mm_core::Modality;
use mm_index::{Row, Vectors};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The vectors of one row by modality.
type RowVectors = BTreeMap<Modality, Vec<Vec<f32>>>;

/// Rows that are embedded before they are written together: what an interruption loses at most.
pub(super) fn batch_size(modalities: &[Modality]) -> usize {
    let of = |modality: &Modality| match modality.name() {
        "text" => 1024,
        "video" => 64,
        _ => 512,
    };
    modalities.iter().map(of).min().unwrap_or(1)
}

/// The rows of a batch, and the values that could not be embedded. A row of which no value could be embedded is written
/// too: an earlier state of it would be wrong. `None` when it was stopped.
pub(super) fn embed_rows(update: &Update<'_>, rows: &[usize]) -> Result<Option<(Vec<Row>, Vec<FailedValue>)>> {
    let manifest = &update.data.manifest;
    let options = EmbedOptions { fail_on_error: update.options.fail_on_error, ..EmbedOptions::default() };
    let embedded = embed_values(update.model, manifest, rows, update.modalities, &options, update.stop)?;
    let Some(embedded) = embedded else { return Ok(None) };
    let mut vectors: HashMap<usize, RowVectors> = HashMap::new();
    let mut failed = Vec::new();
    let mut incomplete = HashSet::new();
    for ValueVector { row, modality, vector } in embedded {
        match vector {
            Ok(vector) => vectors.entry(row).or_default().entry(modality).or_default().push(vector),
            Err(reason) => {
                incomplete.insert(row);
                failed.push(FailedValue { id: manifest.rows[row].id.clone(), modality, reason });
            }
        }
    }
    let mut written = Vec::with_capacity(rows.len());
    for index in rows {
        let mut row = update.row(*index);
        for (modality, list) in vectors.remove(index).unwrap_or_default() {
            row.vectors.insert(modality.name().to_owned(), to_vectors(update, &row.id, &modality, list)?);
        }
        if incomplete.contains(index) {
            row.version = Some(update.version(*index).incomplete().to_string());
        }
        written.push(row);
    }
    Ok(Some((written, failed)))
}

/// The vectors of a modality as the store holds them.
fn to_vectors(update: &Update<'_>, id: &str, modality: &Modality, mut list: Vec<Vec<f32>>) -> Result<Vectors> {
    if update.store.config().vector(modality.name())?.multi {
        return Ok(Vectors::Multi(list));
    }
    if list.len() == 1
        && let Some(vector) = list.pop()
    {
        return Ok(Vectors::Single(vector));
    }
    let found = format!("{} values", list.len());
    let expected = "one: the store was made from rows with one each; build a new one for several";
    Err(Error::invalid(format!("{modality} of row `{id}`"), found, expected))
}
