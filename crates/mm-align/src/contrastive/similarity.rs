//! Similarity matrices of two paired sets.

use crate::{Result, checks::invalid};
use mm_core::{DType, Tensor};

/// Similarity matrix `[rows, rows]` of two paired sets: every row of one with every row of the other; row i is paired
/// with column i.
pub struct Similarity(Tensor);

impl Similarity {
    /// Cosine similarities of paired features `a` and `b`, `[rows, dim]` each.
    ///
    /// # Errors
    /// When the shapes differ or there is no row.
    pub fn cosine(a: &Tensor, b: &Tensor) -> Result<Self> {
        let (left, right) = (a.shape(), b.shape());
        if left.len() != 2 || left != right || left[0] == 0 {
            let found = format!("{left:?} and {right:?}");
            return Err(invalid(
                "similarity",
                found,
                "two matrices [rows, dim] of the same shape with at least one row",
            ));
        }
        Ok(Self(a.normalize()?.matmul(&b.normalize()?.transpose(0, 1)?)?))
    }

    /// Precomputed scores `[rows, rows]` in the range of cosines, such as those of cross-attention.
    ///
    /// # Errors
    /// When the matrix is not square or empty.
    pub fn from_scores(scores: Tensor) -> Result<Self> {
        let shape = scores.shape();
        if shape.len() != 2 || shape[0] != shape[1] || shape[0] == 0 {
            return Err(invalid("similarity", format!("{shape:?}"), "a square score matrix with at least one row"));
        }
        Ok(Self(scores))
    }

    /// The similarities `[rows, rows]`.
    pub fn values(&self) -> &Tensor {
        &self.0
    }
}

/// The mask with a diagonal of `false`: the pairs that are to be matched are no false negatives.
pub(super) fn without_diagonal(false_negatives: &Tensor) -> Result<Tensor> {
    let rows = false_negatives.size(0)?;
    let diagonal = Tensor::eye(rows, DType::Bool, false_negatives.device())?;
    Ok(false_negatives.logical_and(&diagonal.logical_not()?)?)
}

/// Logits whose false negatives have the lowest finite value of their type.
pub(super) fn mask_false_negatives(logits: &Tensor, false_negatives: Option<&Tensor>) -> Result<Tensor> {
    match false_negatives {
        Some(false_negatives) => {
            Ok(logits.masked_fill(&without_diagonal(false_negatives)?, logits.dtype()?.mask_value())?)
        }
        None => Ok(logits.clone()),
    }
}
