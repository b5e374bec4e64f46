//! Weighted sum with a learned weight per modality and dimension.

use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{Init, Module, Tensor, nn::Linear};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "weighted_sum",
    description: "weighted sum with a learned weight per modality and dimension",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightedSumConfig {}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let WeightedSumConfig {} = context.options()?;
    let dim = context.equal_input_dims(SPEC.kind)?;
    let weights = context.scope.param("weights", &[context.input_dims.len() as i64, dim], Init::Zeros)?;
    let out_proj = Linear::new(&context.scope.pp("out_proj"), dim, context.dim, true)?;
    Ok(Box::new(WeightedSum { weights, out_proj }))
}

struct WeightedSum {
    /// Logits `[modalities, dim]` of a softmax over the present modalities.
    weights: Tensor,
    out_proj: Linear,
}

impl FusionOperator for WeightedSum {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let values = Tensor::stack(&inputs.iter().map(|p| &p.values).collect::<Vec<_>>(), 1)?; // [rows, modalities, dim]
        let present = Tensor::stack(&inputs.iter().map(|p| &p.present).collect::<Vec<_>>(), 1)?.unsqueeze(-1)?;
        let weights = self.weights.exp()?.mul(&present)?; // [rows, modalities, dim]
        let total = weights.sum_dim(&[1], true)?.clamp_min(1e-9)?;
        let sum = values.mul(&weights.div(&total)?)?.sum_dim(&[1], false)?; // [rows, dim]
        Ok(OperatorOutput::new(self.out_proj.forward(&sum, train)?))
    }
}
