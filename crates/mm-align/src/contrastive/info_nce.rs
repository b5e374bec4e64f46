//! `InfoNCE` and its variants: softmax cross-entropy over the rows of a batch, in both directions.

use super::{
    similarity::{Similarity, mask_false_negatives, without_diagonal},
    temperature::Temperature,
};
use crate::Result;
use mm_core::{DType, Tensor};

/// Options of [`info_nce`].
#[derive(Debug, Clone, Copy, Default)]
pub struct InfoNceOptions<'a> {
    /// Pairs of rows that show the same item and are therefore no negatives of each other, bool `[rows, rows]`; the
    /// diagonal is ignored.
    pub false_negatives: Option<&'a Tensor>,
    /// Share of the target distribution that is spread evenly over the other rows, in [0, 1).
    pub label_smoothing: f64,
}

/// Symmetric `InfoNCE` loss, a scalar: the cross-entropy of each row with its own column as the target class, over
/// similarities divided by the temperature, averaged over rows and over both directions (rows to columns and columns to
/// rows).
///
/// From *Representation Learning with Contrastive Predictive Coding* (van den Oord, Li and Vinyals, 2018,
/// <https://arxiv.org/abs/1807.03748>), in the symmetric form of *Learning Transferable Visual Models From Natural
/// Language Supervision* (Radford et al., 2021, <https://arxiv.org/abs/2103.00020>).
///
/// ```
/// use mm_align::contrastive::{InfoNceOptions, Similarity, info_nce};
/// use mm_core::{Device, Tensor};
/// # fn main() -> mm_align::Result<()> {
/// let images = Tensor::new([[1f32, 0.0], [0.0, 1.0]], Device::Cpu)?;
/// let similarity = Similarity::cosine(&images, &images)?;
/// let loss = info_nce(&similarity, 0.5, InfoNceOptions { label_smoothing: 0.1, ..Default::default() })?;
/// assert!(loss.to_f64()? < 0.3);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When a fixed temperature is not above zero, or shapes do not fit together.
pub fn info_nce<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    options: InfoNceOptions<'_>,
) -> Result<Tensor> {
    let InfoNceOptions { false_negatives, label_smoothing } = options;
    let logits = mask_false_negatives(&temperature.into().scale(similarity.values())?, false_negatives)?;
    if label_smoothing > 0.0 {
        return smoothed(&logits, false_negatives, label_smoothing);
    }
    // The second direction reduces over columns in place: a transposed copy would cost as much as the matrix product
    // itself.
    let direction = |dim: i64| logits.log_softmax(dim)?.diagonal()?.mean();
    Ok(direction(1)?.add(&direction(0)?)?.mul_scalar(-0.5)?)
}

/// Label smoothing over unmasked columns only, since a share of a masked logit (about −1e30) would dominate the loss.
fn smoothed(logits: &Tensor, false_negatives: Option<&Tensor>, label_smoothing: f64) -> Result<Tensor> {
    let rows = logits.size(0)?;
    let unmasked = match false_negatives {
        Some(false_negatives) => without_diagonal(false_negatives)?.logical_not()?,
        None => Tensor::ones(&[rows, rows], DType::Bool, logits.device())?,
    }
    .to_dtype(DType::F32)?;
    let direction = |logits: &Tensor, unmasked: &Tensor| -> Result<Tensor> {
        let logs = logits.log_softmax(1)?.mul(unmasked)?;
        let uniform = unmasked.div(&unmasked.sum_dim(&[1], true)?)?.mul_scalar(label_smoothing)?;
        let target =
            Tensor::eye(rows, DType::F32, logits.device())?.mul_scalar(1.0 - label_smoothing)?.add(&uniform)?;
        Ok(logs.mul(&target)?.sum()?.mul_scalar(-1.0 / rows as f64)?)
    };
    let forward = direction(logits, &unmasked)?;
    let backward = direction(&logits.transpose(0, 1)?, &unmasked.transpose(0, 1)?)?;
    Ok(forward.add(&backward)?.mul_scalar(0.5)?)
}

/// The loss of [`info_nce`] for each row without averaging over rows, `[rows]`: the mean of both directions.
///
/// # Errors
/// When a fixed temperature is not above zero, or the shapes do not fit together.
pub fn info_nce_per_row<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    false_negatives: Option<&Tensor>,
) -> Result<Tensor> {
    per_row(&mask_false_negatives(&temperature.into().scale(similarity.values())?, false_negatives)?)
}

pub(super) fn per_row(logits: &Tensor) -> Result<Tensor> {
    let positive = logits.diagonal()?;
    let forward = logits.logsumexp(1)?.sub(&positive)?;
    let backward = logits.logsumexp(0)?.sub(&positive)?;
    Ok(forward.add(&backward)?.mul_scalar(0.5)?)
}

/// Supervised contrastive loss, in both directions: all rows of a class are positives of each other. The loss of a row
/// is the mean negative log-likelihood of its positives; the result is the mean over rows. `positives`, bool `[rows,
/// rows]`, is true where two rows have the same class, also on the diagonal.
///
/// From *Supervised Contrastive Learning* (Khosla et al., 2020, <https://arxiv.org/abs/2004.11362>).
///
/// # Errors
/// When a fixed temperature is not above zero, or the shapes do not fit together.
pub fn supervised_contrastive<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    positives: &Tensor,
) -> Result<Tensor> {
    let logits = temperature.into().scale(similarity.values())?;
    let positives = positives.to_dtype(DType::F32)?;
    let direction = |logits: &Tensor, positives: &Tensor| -> Result<Tensor> {
        let logs = logits.log_softmax(1)?.mul(positives)?.sum_dim(&[1], false)?;
        Ok(logs.div(&positives.sum_dim(&[1], false)?.clamp_min(1.0)?)?.mean()?.neg()?)
    };
    let forward = direction(&logits, &positives)?;
    let backward = direction(&logits.transpose(0, 1)?, &positives.transpose(0, 1)?)?;
    Ok(forward.add(&backward)?.mul_scalar(0.5)?)
}

/// `InfoNCE` with soft targets: the cross-entropy with target distributions `[rows, rows]` (each row sums to one), in
/// both directions. For the direction from columns to rows the targets are transposed and normalized again.
///
/// Used by *SoftCLIP: Softer Cross-modal Alignment Makes CLIP Stronger* (Gao et al., 2024,
/// <https://arxiv.org/abs/2303.17561>).
///
/// # Errors
/// When a fixed temperature is not above zero, or the shapes do not fit together.
pub fn soft_target_info_nce<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    target: &Tensor,
) -> Result<Tensor> {
    let logits = temperature.into().scale(similarity.values())?;
    let transposed = target.transpose(0, 1)?;
    let backward_target = transposed.div(&transposed.sum_dim(&[1], true)?.clamp_min(1e-12)?)?;
    let forward = soft_cross_entropy(&logits, target)?;
    let backward = soft_cross_entropy(&logits.transpose(0, 1)?, &backward_target)?;
    Ok(forward.add(&backward)?.mul_scalar(0.5)?)
}

/// Cross-entropy of logits `[rows, candidates]` with target distributions of the same shape, mean over rows.
pub(super) fn soft_cross_entropy(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(logits.log_softmax(1)?.mul(target)?.sum_dim(&[1], false)?.mean()?.neg()?)
}

/// `InfoNCE` with importance-weighted negatives: each negative is weighted by `exp(hardness · cosine)`, normalized to
/// mean one.
///
/// From *Contrastive Learning with Hard Negative Samples* (Robinson et al., 2021, <https://arxiv.org/abs/2010.04592>).
///
/// # Errors
/// When a fixed temperature is not above zero.
pub fn hard_negative_info_nce<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    hardness: f64,
) -> Result<Tensor> {
    let temperature = temperature.into();
    let cosines = similarity.values();
    let rows = cosines.size(0)?;
    let diagonal = Tensor::eye(rows, DType::Bool, cosines.device())?;
    let direction = |cosines: &Tensor| -> Result<Tensor> {
        let logits = temperature.scale(cosines)?;
        let weights = cosines
            .detach()?
            .mul_scalar(hardness)?
            .masked_fill(&diagonal, cosines.dtype()?.mask_value())?
            .softmax(1)?;
        let weights = weights.mul_scalar((rows - 1) as f64)?.masked_fill(&diagonal, 1.0)?;
        let normalizer = logits.add(&weights.clamp_min(1e-30)?.log()?)?.logsumexp(1)?;
        Ok(normalizer.sub(&logits.diagonal()?)?.mean()?)
    };
    Ok(direction(cosines)?.add(&direction(&cosines.transpose(0, 1)?)?)?.mul_scalar(0.5)?)
}
