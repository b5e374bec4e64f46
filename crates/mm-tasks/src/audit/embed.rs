//! Embeddings of all pairs of a manifest.

use super::{Problem, ProblemKind, RowAudit, concat_normalized};
use crate::{ProgressFn, Result};
use mm_core::{Modality, Source, Tensor};
use mm_data::Manifest;

/// Embeds raw values of one modality, `[values, dim]`: a run's model or a pretrained one.
pub type Embed<'a> = &'a dyn Fn(&Modality, &[Source]) -> Result<Tensor>;

const BATCH_SIZE: usize = 32;

pub(super) struct EmbeddedPairs {
    /// Manifest indices of the pairs that could be embedded.
    pub rows: Vec<usize>,
    /// Unit-length embeddings `[pairs, dim]` of the first and second modality.
    pub a: Tensor,
    pub b: Tensor,
    /// Rows of which a value could not be read.
    pub unreadable: Vec<RowAudit>,
    /// Number of rows that lack a modality.
    pub skipped: usize,
}

pub(super) fn embed_pairs(
    manifest: &Manifest,
    modalities: [&Modality; 2],
    embed: Embed<'_>,
    progress: ProgressFn<'_>,
) -> Result<EmbeddedPairs> {
    let (mut rows, mut unreadable, mut skipped) = (Vec::new(), Vec::new(), 0);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let total = manifest.rows.len();
    for start in (0..total).step_by(BATCH_SIZE) {
        progress("embedding", start, total);
        let (mut batch, mut values_a, mut values_b) = (Vec::new(), Vec::new(), Vec::new());
        for row in start..total.min(start + BATCH_SIZE) {
            let value = |m: &Modality| manifest.rows[row].values.get(m).and_then(|v| v.first());
            if let (Some(a), Some(b)) = (value(modalities[0]), value(modalities[1])) {
                batch.push(row);
                values_a.push(a.clone());
                values_b.push(b.clone());
            } else {
                skipped += 1;
            }
        }
        let a = embed_each(embed, modalities[0], &values_a)?;
        let b = embed_each(embed, modalities[1], &values_b)?;
        for (row, pair) in batch.into_iter().zip(a.into_iter().zip(b)) {
            match pair {
                (Ok(a), Ok(b)) => {
                    left.push(a);
                    right.push(b);
                    rows.push(row);
                }
                (a, b) => {
                    let errors = [a.err(), b.err()].into_iter().flatten();
                    let problems = errors.map(|e| Problem { kind: ProblemKind::Unreadable, detail: e.to_string() });
                    let problems = problems.collect();
                    unreadable.push(RowAudit { mismatch: 1.0, problems, ..RowAudit::new(manifest, row) });
                }
            }
        }
    }
    progress("embedding", total, total);
    Ok(EmbeddedPairs { rows, a: concat_normalized(&left)?, b: concat_normalized(&right)?, unreadable, skipped })
}

/// One embedding `[1, dim]` or error per value. Where the batch fails, each value is embedded alone.
fn embed_each(embed: Embed<'_>, modality: &Modality, values: &[Source]) -> Result<Vec<Result<Tensor>>> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    Ok(match embed(modality, values) {
        Ok(all) => (0..values.len() as i64).map(|row| Ok(all.narrow(0, row, 1)?)).collect(),
        Err(_) => values.iter().map(|value| embed(modality, std::slice::from_ref(value))).collect(),
    })
}
