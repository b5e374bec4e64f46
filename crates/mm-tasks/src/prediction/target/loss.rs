//! The loss of a head.

use super::{Problem, Target};
use mm_core::{DType, Result, Tensor};

impl Target {
    /// Mean loss of `[rows, outputs]` over the rows that have a label ([`Target::to_tensor`]) and where `present`
    /// `[rows]` (all when absent) is 1; `None` when there is no such row.
    ///
    /// Cross entropy for classes, binary cross entropy for labels, squared error for a regression, and for ordinal
    /// classes the CORAL loss of *Rank Consistent Ordinal Regression for Neural Networks with Application to Age
    /// Estimation* (Cao et al., 2020, <https://arxiv.org/abs/1901.07884>), with weights of their own for each
    /// threshold.
    pub(in super::super) fn loss(
        &self,
        outputs: &Tensor,
        labels: &Tensor,
        present: Option<&Tensor>,
        label_smoothing: f64,
    ) -> Result<Option<Tensor>> {
        let labeled = match self.problem {
            Problem::Regression => labels.eq(labels)?,
            Problem::Multilabel => labels.select(1, 0)?.gt_scalar(-0.5)?,
            _ => labels.gt_scalar(-0.5)?,
        };
        let used = match present {
            Some(present) => labeled.logical_and(&present.gt_scalar(0.5)?)?,
            None => labeled,
        };
        let rows = used.nonzero()?;
        if rows.size(0)? == 0 {
            return Ok(None);
        }
        let (x, y) = (outputs.index_select(0, &rows)?, labels.index_select(0, &rows)?);
        Ok(Some(match self.problem {
            Problem::Regression => x.squeeze(1)?.sub(&y)?.pow(2.0)?.mean()?,
            Problem::Multilabel => binary_cross_entropy(&x, &y)?,
            Problem::Ordinal => {
                // One binary output for each class but the last: whether the label is above it.
                let classes = Tensor::arange(0, self.num_outputs(), y.device())?.unsqueeze(0)?;
                binary_cross_entropy(&x, &y.unsqueeze(1)?.gt(&classes)?.to_dtype(DType::F32)?)?
            }
            _ => x.cross_entropy(&y, -1, label_smoothing)?,
        }))
    }
}

/// Mean binary cross entropy of logits.
fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    logits.softplus()?.sub(&logits.mul(targets)?)?.mean()
}
