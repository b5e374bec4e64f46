//! Modality dropout.

use super::ModalityInput;
use crate::Result;
use mm_core::{DType, Tensor, distributed::rand_rows};

/// Drops each present modality of each row with probability `rate`, but never the only one that is left.
///
/// From *ModDrop: Adaptive Multi-modal Gesture Recognition* (Neverova et al., 2016,
/// <https://arxiv.org/abs/1501.00102>).
pub(super) fn apply(inputs: &mut [ModalityInput], rate: f64) -> Result<()> {
    let present = Tensor::stack(&inputs.iter().map(|p| &p.present).collect::<Vec<_>>(), 1)?; // [rows, modalities]
    let noise = rand_rows(&present.shape(), present.device())?.mul(&present)?;
    let kept = noise.gt_scalar(rate)?;
    // The modality with the largest random value is never dropped.
    let largest = noise.argmax(1)?.one_hot(inputs.len() as i64)?.gt_scalar(0.0)?;
    let kept = kept.logical_or(&largest)?.to_dtype(DType::F32)?.mul(&present)?;
    for (index, input) in inputs.iter_mut().enumerate() {
        let keep = kept.select(1, index as i64)?; // [rows]
        let mut shape = vec![1; input.values.rank()];
        shape[0] = -1;
        input.values = input.values.mul(&keep.reshape(&shape)?)?;
        if let Some(mask) = &input.mask {
            input.mask = Some(mask.logical_and(&keep.gt_scalar(0.5)?.unsqueeze(1)?)?);
        }
        input.present = keep;
    }
    Ok(())
}
