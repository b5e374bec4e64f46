//! Gated multimodal unit.

use super::layers::{accumulate, concat_dim, concat_with_presence, no_modality};
use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{Module, Tensor, nn::Linear};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "gated",
    description: "gated multimodal unit (GMU, Arevalo et al. 2017)",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GatedConfig {}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let GatedConfig {} = context.options()?;
    let gate_dim = concat_dim(context.input_dims);
    let (mut hidden, mut gates) = (Vec::new(), Vec::new());
    for (index, dim) in context.input_dims.iter().enumerate() {
        hidden.push(Linear::new(&context.scope.pp("hidden").pp(index), *dim, context.dim, true)?);
        gates.push(Linear::new(&context.scope.pp("gates").pp(index), gate_dim, context.dim, true)?);
    }
    Ok(Box::new(Gated { hidden, gates }))
}

/// Sum of each modality's hidden state times a sigmoid gate computed from all modalities.
///
/// *Gated Multimodal Units for Information Fusion* (Arevalo et al., 2017, <https://arxiv.org/abs/1702.01992>).
struct Gated {
    hidden: Vec<Linear>,
    gates: Vec<Linear>,
}

impl FusionOperator for Gated {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let all = concat_with_presence(inputs)?;
        let (mut sum, mut modality_weights) = (None, Vec::new());
        for ((input, hidden), gate) in inputs.iter().zip(&self.hidden).zip(&self.gates) {
            let gate = gate.forward(&all, train)?.sigmoid()?.mul(&input.present_column()?)?; // [rows, dim]
            let gated = hidden.forward(&input.values, train)?.tanh()?.mul(&gate)?;
            modality_weights.push(gate.mean_dim(&[1], false)?);
            sum = accumulate(sum, gated, |sum, value| value.add(sum))?;
        }
        let values: Tensor = sum.ok_or_else(|| no_modality(SPEC.kind))?;
        Ok(OperatorOutput { modality_weights, ..OperatorOutput::new(values) })
    }
}
