//! Definite problems: duplicates and leaks across the split.

use super::RowAudit;
use crate::Result;
use mm_core::{Modality, Source, Tensor};
use mm_data::{Manifest, Split};
use serde::Serialize;
use std::{collections::HashMap, fmt};

/// Kind of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// A value could not be read or embedded.
    Unreadable,
    /// Both values are equal to those of an earlier row.
    Duplicate,
    /// The first modality's value is nearly equal to that of a training row, though the row is held out.
    SplitLeak,
    /// The text is in another script than its language is written in.
    Language,
}

impl ProblemKind {
    /// Stable snake_case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Duplicate => "duplicate",
            Self::SplitLeak => "split_leak",
            Self::Language => "language",
        }
    }
}

/// A definite problem of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The kind.
    pub kind: ProblemKind,
    /// A message with the details.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

/// Cosine from which embeddings of different rows count as nearly equal.
const NEAR_DUPLICATE_COSINE: f64 = 0.995;
const BLOCK_ROWS: usize = 1024;

/// Rows with the same values of both modalities as an earlier row. Files are compared by content, texts without case.
pub(super) fn find_duplicates(
    manifest: &Manifest,
    rows: &[usize],
    modalities: [&Modality; 2],
    audited: &mut [RowAudit],
) {
    let mut first_of: HashMap<blake3::Hash, usize> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let mut hasher = blake3::Hasher::new();
        for modality in modalities {
            match manifest.rows[*row].values.get(modality).and_then(|v| v.first()) {
                Some(Source::Bytes(file)) => {
                    if let Ok(bytes) = file.read() {
                        hasher.update(&bytes);
                    }
                }
                Some(Source::Path(path)) => {
                    if let Ok(bytes) = std::fs::read(path) {
                        hasher.update(&bytes);
                    }
                }
                other => {
                    hasher.update(format!("{other:?}").to_lowercase().as_bytes());
                }
            }
        }
        let first = *first_of.entry(hasher.finalize()).or_insert(index);
        if first != index {
            let detail = format!("equal to {}", manifest.rows[rows[first]].id);
            audited[index].problems.push(Problem { kind: ProblemKind::Duplicate, detail });
        }
    }
}

/// Held-out rows whose embedding of the first modality (`a`, unit-length rows) nearly equals that of a training row.
pub(super) fn find_split_leaks(
    manifest: &Manifest,
    rows: &[usize],
    modality: &Modality,
    a: &Tensor,
    audited: &mut [RowAudit],
) -> Result<()> {
    let in_split = |split: Split| -> Vec<i64> {
        rows.iter().enumerate().filter(|(_, r)| manifest.rows[**r].split == split).map(|(i, _)| i as i64).collect()
    };
    let train = in_split(Split::Train);
    if train.is_empty() {
        return Ok(());
    }
    let train_embeddings = a.index_select(0, &Tensor::from_slice(&train)?)?.transpose(0, 1)?;
    for split in [Split::Valid, Split::Test] {
        for block in in_split(split).chunks(BLOCK_ROWS) {
            let cosines = a.index_select(0, &Tensor::from_slice(block)?)?.matmul(&train_embeddings)?;
            let (best, nearest) = (cosines.amax(1, false)?.to_vec::<f64>()?, cosines.argmax(1)?.to_vec::<i64>()?);
            for ((index, cosine), neighbor) in block.iter().zip(best).zip(nearest) {
                if cosine >= NEAR_DUPLICATE_COSINE {
                    let twin = &manifest.rows[rows[train[neighbor as usize] as usize]].id;
                    let detail = format!("nearly the same {modality} as training row {twin} (cosine {cosine:.3})");
                    audited[*index as usize].problems.push(Problem { kind: ProblemKind::SplitLeak, detail });
                }
            }
        }
    }
    Ok(())
}
