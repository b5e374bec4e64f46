//! The outputs of the network.

use super::branch::UnimodalOutput;
use mm_core::{
    AttentionStep, DType, Device, Modality, Result, Tensor,
    distributed::{gather_rows, mean_by_count},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The outputs for the rows of a batch.
pub(in super::super) struct Outputs {
    /// Outputs of the fused head, `[rows, outputs]`.
    pub(in super::super) fused: Tensor,
    /// The fused representation `[rows, dim]`; `None` for rows without any input.
    pub(in super::super) representation: Option<Tensor>,
    /// Outputs of the unimodal heads.
    pub(in super::super) unimodal: BTreeMap<Modality, UnimodalOutput>,
    /// The fusion operator's own loss.
    pub(in super::super) operator_loss: Option<Tensor>,
    /// Weights `[rows]` that the fusion operator gives to modalities, where it reports them.
    pub(in super::super) modality_weights: BTreeMap<Modality, Tensor>,
    /// Attention maps of a reasoning network.
    pub(super) attention: Vec<AttentionStep>,
    /// Grad-CAM of each modality, where it was requested.
    pub(super) grad_cam: Vec<AttentionStep>,
}

impl Outputs {
    /// The outputs of the fused head alone.
    pub(super) fn of_fused(fused: Tensor) -> Self {
        Self {
            fused,
            representation: None,
            unimodal: BTreeMap::new(),
            operator_loss: None,
            modality_weights: BTreeMap::new(),
            attention: Vec::new(),
            grad_cam: Vec::new(),
        }
    }

    /// The outputs for rows without any input: zeros, so that no class is likelier than another.
    pub(in super::super) fn without_input(rows: usize, num_outputs: i64) -> Result<Self> {
        Ok(Self::of_fused(Tensor::zeros(&[rows as i64, num_outputs], DType::F32, Device::Cpu)?))
    }

    /// The outputs for the rows of all processes. The operator's loss is the mean over all rows.
    pub(in super::super) fn gathered(self) -> Result<Self> {
        let unimodal = self.unimodal.into_iter().map(|(m, output)| Ok((m, output.gathered()?)));
        let rows = self.fused.size(0)? as f64;
        Ok(Self {
            unimodal: unimodal.collect::<Result<_>>()?,
            representation: self.representation.as_ref().map(gather_rows).transpose()?,
            operator_loss: self.operator_loss.map(|loss| mean_by_count(&loss, rows)).transpose()?,
            ..Self::of_fused(gather_rows(&self.fused)?)
        })
    }

    /// The saliency of each of `rows` rows.
    pub(in super::super) fn saliency(&self, rows: usize) -> Result<Vec<Saliency>> {
        let mut all = vec![Saliency::default(); rows];
        for map in &self.grad_cam {
            for (row, weights) in all.iter_mut().zip(by_row(map)?) {
                row.grad_cam.insert(map.modality.clone(), weights);
            }
        }
        for map in &self.attention {
            for (row, weights) in all.iter_mut().zip(by_row(map)?) {
                row.attention.resize_with(row.attention.len().max(map.step + 1), BTreeMap::new);
                row.attention[map.step].insert(map.modality.clone(), weights);
            }
        }
        Ok(all)
    }
}

/// Weights `[rows, positions]`, row by row.
fn by_row(map: &AttentionStep) -> Result<Vec<Vec<f32>>> {
    let positions = map.weights.size(1)?.max(1) as usize;
    let all = map.weights.to_device(Device::Cpu)?.to_vec::<f32>()?;
    Ok(all.chunks(positions).map(<[f32]>::to_vec).collect())
}

/// How much each position of a row's inputs contributed to its prediction.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Saliency {
    /// Grad-CAM of the predicted output over the positions of each modality; sums to 1.
    ///
    /// From *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (Selvaraju et al., 2017,
    /// <https://arxiv.org/abs/1610.02391>).
    pub grad_cam: BTreeMap<Modality, Vec<f32>>,
    /// The attention of a reasoning network at each of its steps.
    pub attention: Vec<BTreeMap<Modality, Vec<f32>>>,
}
