//! Grad-CAM over the features of each modality.

use super::{EncodedBatch, Network};
use mm_core::{AttentionStep, DType, Modality, Result, Tensor, enable_grad};

impl Network {
    /// How much each position of each modality speaks for the largest output of each row; the weights of a row sum to
    /// 1.
    ///
    /// Features weighted by the gradient of that output, positive parts alone. Over grids the gradient is first
    /// averaged over positions, as in *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    /// Localization* (Selvaraju et al., 2017, <https://arxiv.org/abs/1610.02391>); each word has its own.
    pub(super) fn grad_cam(&self, mut batch: EncodedBatch) -> Result<Vec<AttentionStep>> {
        for branch in batch.branches.values_mut() {
            branch.features.values = branch.features.values.detach()?.set_requires_grad(true)?;
        }
        let gradients = enable_grad(|| {
            let leaves: Vec<&Tensor> = batch.branches.values().map(|b| &b.features.values).collect();
            // Rows are independent, so the gradient of the sum is that of each.
            self.fuse(&batch, false)?.fused.amax(1, false)?.sum()?.autograd_grad(&leaves)
        })?;
        let mut maps = Vec::new();
        for ((modality, branch), gradient) in batch.branches.iter().zip(&gradients) {
            let features = &branch.features;
            if features.values.size(1)? < 2 {
                continue;
            }
            let gradient =
                if *modality == Modality::TEXT { gradient.clone() } else { gradient.mean_dim(&[1], true)? };
            let scores = gradient.mul(&features.values)?.detach()?.sum_dim(&[2], false)?; // [rows, positions]
            let positive = scores.relu()?;
            // In rows without any positive score, the absolute values are used.
            let none = positive.sum_dim(&[1], true)?.gt_scalar(1e-9)?.logical_not()?.to_dtype(DType::F32)?;
            let mut weights = positive.add(&scores.abs()?.mul(&none)?)?;
            if let Some(mask) = &features.mask {
                weights = weights.mul(&mask.to_dtype(DType::F32)?)?;
            }
            let weights = weights.div(&weights.sum_dim(&[1], true)?.clamp_min(1e-12)?)?;
            maps.push(AttentionStep { step: 0, modality: modality.clone(), weights });
        }
        Ok(maps)
    }
}
