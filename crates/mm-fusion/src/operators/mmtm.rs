//! Multimodal transfer module: squeeze-and-excitation across modalities.

use super::layers::{concat_dim, concat_with_presence};
use crate::{
    FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result, operator::check_positive,
};
use mm_core::{Module, Tensor, nn::Linear};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "mmtm",
    description: "squeeze-and-excitation across modalities (MMTM, Joze et al. 2020)",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MmtmConfig {
    /// The squeezed dimension is the sum of all input dimensions divided by this.
    reduction_ratio: i64,
}

impl Default for MmtmConfig {
    fn default() -> Self {
        Self { reduction_ratio: 4 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let MmtmConfig { reduction_ratio } = context.options()?;
    check_positive("reduction_ratio", reduction_ratio)?;
    let scope = &context.scope;
    let total = context.input_dims.iter().sum::<i64>();
    let squeezed = (total / reduction_ratio).max(1);
    let excite = context.input_dims.iter().enumerate();
    let excite = excite.map(|(index, dim)| Ok(Linear::new(&scope.pp("excite").pp(index), squeezed, *dim, true)?));
    Ok(Box::new(Mmtm {
        squeeze: Linear::new(&scope.pp("squeeze"), concat_dim(context.input_dims), squeezed, true)?,
        excite: excite.collect::<Result<_>>()?,
        out_proj: Linear::new(&scope.pp("out_proj"), total, context.dim, true)?,
    }))
}

/// *MMTM: Multimodal Transfer Module for CNN Fusion* (Joze et al., 2020, <https://arxiv.org/abs/1911.08670>).
struct Mmtm {
    squeeze: Linear,
    excite: Vec<Linear>,
    out_proj: Linear,
}

impl FusionOperator for Mmtm {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let squeezed = self.squeeze.forward(&concat_with_presence(inputs)?, train)?.relu()?;
        let (mut excited, mut modality_weights) = (Vec::new(), Vec::new());
        for (input, excite) in inputs.iter().zip(&self.excite) {
            let gate = excite.forward(&squeezed, train)?.sigmoid()?.mul_scalar(2.0)?; // [rows, input dim]
            modality_weights.push(gate.mean_dim(&[1], false)?.mul(&input.present)?);
            excited.push(input.values.mul(&gate)?);
        }
        let x = Tensor::cat(&excited.iter().collect::<Vec<_>>(), 1)?;
        Ok(OperatorOutput { modality_weights, ..OperatorOutput::new(self.out_proj.forward(&x, train)?) })
    }
}
