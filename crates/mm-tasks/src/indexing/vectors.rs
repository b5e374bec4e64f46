//! Rows with their vectors.

use super::{Update, version::Plan};
use crate::{
    Error, Result,
    embedding::{EmbedOptions, FailedValue, ValueVector, embed_values},
};
use mm_core::Modality;
use mm_index::{Row, Vectors};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The vectors of one row by modality.
type RowVectors = BTreeMap<Modality, Vec<Vec<f32>>>;

/// Rows of which these modalities are embedded before they are written together: what an interruption loses at most.
pub(super) fn batch_size(embedded: &BTreeSet<Modality>) -> usize {
    const LARGEST: usize = 1024;
    let of = |modality: &Modality| match modality.name() {
        "text" => LARGEST,
        "video" => 64,
        _ => 512,
    };
    embedded.iter().map(of).min().unwrap_or(LARGEST)
}

/// The rows of a batch, and the values that could not be embedded. Vectors that are not embedded stay; those of a value
/// that could not be embedded do not, since an earlier state of it would be wrong. `None` when it was stopped.
pub(super) fn embed_rows(update: &Update<'_>, rows: &[usize]) -> Result<Option<(Vec<Row>, Vec<FailedValue>)>> {
    let manifest = &update.data.manifest;
    let mut plans: Vec<(usize, Plan)> = rows.iter().map(|row| (*row, update.plan(*row))).collect();
    let Some(embedded) = embed_planned(update, &plans)? else { return Ok(None) };
    let mut vectors: HashMap<usize, RowVectors> = HashMap::new();
    let mut failed = Vec::new();
    let mut incomplete: HashMap<usize, Vec<Modality>> = HashMap::new();
    for ValueVector { row, modality, vector } in embedded {
        match vector {
            Ok(vector) => vectors.entry(row).or_default().entry(modality).or_default().push(vector),
            Err(reason) => {
                incomplete.entry(row).or_default().push(modality.clone());
                failed.push(FailedValue { id: manifest.rows[row].id.clone(), modality, reason });
            }
        }
    }
    let mut kept = kept_vectors(update, &plans)?;
    let mut written = Vec::with_capacity(rows.len());
    for (index, plan) in &mut plans {
        incomplete.remove(index).into_iter().flatten().for_each(|modality| plan.version.leave_out(&modality));
        let vectors_kept = kept.remove(&manifest.rows[*index].id).unwrap_or_default();
        // What another process deleted in the meantime is embedded by the next call.
        plan.leave_out_missing(&vectors_kept);
        let mut row = Row { vectors: vectors_kept, ..update.row(*index, &plan.version) };
        for (modality, list) in vectors.remove(index).unwrap_or_default() {
            row.vectors.insert(modality.name().to_owned(), to_vectors(update, &row.id, &modality, list)?);
        }
        written.push(row);
    }
    Ok(Some((written, failed)))
}

/// Embeds what is planned, rows with the same modalities together. `None` when it was stopped.
fn embed_planned(update: &Update<'_>, plans: &[(usize, Plan)]) -> Result<Option<Vec<ValueVector>>> {
    let options = EmbedOptions { fail_on_error: update.options.fail_on_error, ..EmbedOptions::default() };
    let mut groups: BTreeMap<&[Modality], Vec<usize>> = BTreeMap::new();
    for (row, plan) in plans.iter().filter(|(_, plan)| !plan.embedded.is_empty()) {
        groups.entry(&plan.embedded).or_default().push(*row);
    }
    let mut all = Vec::new();
    for (modalities, rows) in groups {
        match embed_values(update.model, &update.data.manifest, &rows, modalities, &options, update.stop)? {
            Some(embedded) => all.extend(embedded),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

/// The vectors of stored rows that stay, by the ids of the rows.
fn kept_vectors(update: &Update<'_>, plans: &[(usize, Plan)]) -> Result<HashMap<String, BTreeMap<String, Vectors>>> {
    let id = |row: usize| update.data.manifest.rows[row].id.as_str();
    let known: Vec<&(usize, Plan)> = plans.iter().filter(|(row, _)| update.stored.contains_key(id(*row))).collect();
    let rows = update.store.get(&known.iter().map(|(row, _)| id(*row)).collect::<Vec<_>>())?;
    let mut kept = HashMap::new();
    for ((_, plan), row) in known.into_iter().zip(rows) {
        let Some(row) = row else { continue };
        kept.insert(row.id, row.vectors.into_iter().filter(|(name, _)| plan.keeps(name)).collect());
    }
    Ok(kept)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_as_large_as_what_is_embedded_allows() {
        let size = |modalities: &[Modality]| batch_size(&modalities.iter().cloned().collect::<BTreeSet<_>>());
        assert_eq!((size(&[Modality::IMAGE, Modality::TEXT]), size(&[Modality::TEXT])), (512, 1024));
        assert_eq!((size(&[Modality::IMAGE, Modality::VIDEO]), size(&[])), (64, 1024));
    }
}
