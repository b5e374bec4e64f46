//! Similarity matrices of two paired sets.

use crate::{Result, checks::invalid};
use mm_core::{DType, Tensor};

/// Similarities of every row of one set with every row of another, `[rows, rows]`; row i is paired with column i.
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

/// Off-diagonal pairs that show the same thing and therefore are not negatives: `same` without its diagonal.
pub(super) fn false_negatives(same: &Tensor) -> Result<Tensor> {
    let rows = same.size(0)?;
    let diagonal = Tensor::eye(rows, DType::Bool, same.device())?;
    Ok(same.logical_and(&diagonal.logical_not()?)?)
}

/// Logits with false negatives set to the lowest finite value.
pub(super) fn mask_false_negatives(logits: &Tensor, same: Option<&Tensor>) -> Result<Tensor> {
    match same {
        Some(same) => Ok(logits.masked_fill(&false_negatives(same)?, logits.dtype()?.mask_value())?),
        None => Ok(logits.clone()),
    }
}
