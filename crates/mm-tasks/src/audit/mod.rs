//! `mm audit`: which pairs of a data set are probably wrong — mismatched, duplicate, leaking across the split, in
//! another language than marked, or unreadable. Mismatch scores need no labels.

mod embed;
mod languages;
mod problems;
mod report;
mod scores;

pub use embed::Embed;
pub use problems::{Problem, ProblemKind};
pub use report::audit_page;
pub use scores::{MismatchScores, cross_fitted_cca, mismatch_scores};

use crate::{Error, ProgressFn, Result};
use mm_core::{Modality, Tensor};
use mm_data::Manifest;
use serde::Serialize;

/// The result for one row.
#[derive(Debug, Clone, Serialize)]
pub struct RowAudit {
    /// Row number in the manifest, from 1.
    pub row: usize,
    /// Row id.
    pub id: String,
    /// Mismatch score in [0, 1], the mean rank of the three scores below; 1 for a row that could not be read.
    pub mismatch: f64,
    /// Cosine similarity of the pair.
    pub similarity: f64,
    /// Contrastive loss of the pair among all pairs.
    pub loss: f64,
    /// Similarity to the partners of the row's nearest neighbors, in both directions.
    pub neighborhood: f64,
    /// Definite problems.
    pub problems: Vec<Problem>,
}

impl RowAudit {
    fn new(manifest: &Manifest, row: usize) -> Self {
        let source = &manifest.rows[row];
        let (row, id) = (source.number, source.id.clone());
        Self { row, id, mismatch: 0.0, similarity: 0.0, loss: 0.0, neighborhood: 0.0, problems: Vec::new() }
    }

    /// Whether the row has a problem of this kind.
    pub fn has(&self, kind: ProblemKind) -> bool {
        self.problems.iter().any(|p| p.kind == kind)
    }
}

/// The result of an audit.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    /// The two modalities.
    pub modalities: [String; 2],
    /// All rows that have both modalities: unreadable ones first, then by falling mismatch.
    pub rows: Vec<RowAudit>,
    /// Number of rows that lack a modality.
    pub skipped: usize,
}

/// Fewest pairs that can be scored at all, and that a shared space can be fitted on.
const MIN_PAIRS: usize = 4;
const MIN_PAIRS_TO_ALIGN: usize = 50;
/// Ridge of the CCA that aligns separate embedding spaces.
const ALIGNMENT_RIDGE: f64 = 10.0;

/// Audits the pairs of two modalities of a manifest. With `separate_spaces` the two modalities' embeddings share no
/// space and are aligned by CCA on the pairs themselves ([`cross_fitted_cca`]).
///
/// # Errors
/// When too few pairs can be read.
pub fn audit(
    manifest: &Manifest,
    modalities: [&Modality; 2],
    embed: Embed<'_>,
    separate_spaces: bool,
    progress: ProgressFn<'_>,
) -> Result<Audit> {
    let embedded = embed::embed_pairs(manifest, modalities, embed, progress)?;
    let rows = &embedded.rows;
    if rows.len() < MIN_PAIRS {
        let found = format!("{} readable pairs of {} and {}", rows.len(), modalities[0], modalities[1]);
        return Err(Error::Config(format!(
            "{}: found {found}, expected at least {MIN_PAIRS}",
            manifest.path.display()
        )));
    }
    let (a, b) = (&embedded.a, &embedded.b);
    let scores = if separate_spaces {
        if rows.len() < MIN_PAIRS_TO_ALIGN {
            return Err(Error::Config(format!(
                "encoders without a shared space: found {} readable pairs, expected at least {MIN_PAIRS_TO_ALIGN} to fit one",
                rows.len()
            )));
        }
        let (x, y) = cross_fitted_cca(a, b, ALIGNMENT_RIDGE)?;
        mismatch_scores(&x, &y)?
    } else {
        mismatch_scores(a, b)?
    };
    let scored = |(index, row): (usize, &usize)| RowAudit {
        mismatch: scores.mismatch[index],
        similarity: scores.similarity[index],
        loss: scores.loss[index],
        neighborhood: scores.neighborhood[index],
        ..RowAudit::new(manifest, *row)
    };
    let mut audited: Vec<RowAudit> = rows.iter().enumerate().map(scored).collect();
    problems::find_duplicates(manifest, rows, modalities, &mut audited);
    problems::find_split_leaks(manifest, rows, modalities[0], a, &mut audited)?;
    languages::find_language_mismatches(manifest, rows, &mut audited);
    audited.sort_by(|x, y| y.mismatch.total_cmp(&x.mismatch).then(x.row.cmp(&y.row)));
    let mut all = embedded.unreadable;
    all.extend(audited);
    Ok(Audit { modalities: modalities.map(|m| m.name().to_owned()), rows: all, skipped: embedded.skipped })
}

/// Row numbers to keep: without unreadable, duplicate or leaking rows and without the `fraction` with the highest
/// mismatch.
pub fn rows_to_keep(audit: &Audit, fraction: f64) -> Vec<usize> {
    let readable: Vec<&RowAudit> = audit.rows.iter().filter(|r| !r.has(ProblemKind::Unreadable)).collect();
    let dropped = (readable.len() as f64 * fraction.clamp(0.0, 1.0)).round() as usize;
    let excluded = |r: &RowAudit| r.problems.iter().any(|p| p.kind != ProblemKind::Language);
    let mut rows: Vec<usize> = readable.into_iter().skip(dropped).filter(|r| !excluded(r)).map(|r| r.row).collect();
    rows.sort_unstable();
    rows
}

/// Concatenates per-row embeddings `[1, dim]` to unit-length rows `[rows, dim]`.
fn concat_normalized(rows: &[Tensor]) -> Result<Tensor> {
    if rows.is_empty() {
        return Ok(Tensor::zeros(&[0, 1], mm_core::DType::F32, mm_core::Device::Cpu)?);
    }
    Ok(Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?.to_dtype(mm_core::DType::F32)?.normalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: usize, problems: Vec<Problem>) -> RowAudit {
        let id = number.to_string();
        RowAudit { row: number, id, mismatch: 0.5, similarity: 0.0, loss: 0.0, neighborhood: 0.0, problems }
    }

    #[test]
    fn unreadable_duplicate_and_mismatched_rows_are_dropped_and_language_alone_is_not() {
        let problem = |kind| vec![Problem { kind, detail: String::new() }];
        let rows = vec![
            row(9, problem(ProblemKind::Unreadable)),
            row(5, Vec::new()),
            row(3, problem(ProblemKind::Duplicate)),
            row(4, problem(ProblemKind::Language)),
            row(1, Vec::new()),
        ];
        let audit = Audit { modalities: ["image".into(), "text".into()], rows, skipped: 0 };
        assert_eq!(rows_to_keep(&audit, 0.0), [1, 4, 5]);
        assert_eq!(rows_to_keep(&audit, 0.25), [1, 4]);
    }
}
