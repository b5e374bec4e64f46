//! Multimodal adaptation gate.

use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{
    Module, Tensor,
    nn::{Linear, Norm, NormConfig},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "mag",
    description: "multimodal adaptation gate: the other modalities shift the main one (Rahman et al. 2020)",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MagConfig {
    /// The main modality; text, or else the first, by default.
    main_modality: Option<String>,
    /// Largest norm of the shift, relative to that of the main vector.
    beta: f64,
}

impl Default for MagConfig {
    fn default() -> Self {
        Self { main_modality: None, beta: 0.5 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let config: MagConfig = context.options()?;
    let main = context.main_modality(config.main_modality.as_deref())?;
    let (scope, dim) = (&context.scope, context.dim);
    let main_dim = context.input_dims[main];
    let mut others = Vec::new();
    for (index, input_dim) in context.input_dims.iter().enumerate().filter(|(index, _)| *index != main) {
        let scope = scope.pp("others").pp(index);
        let gate = Linear::new(&scope.pp("gate"), main_dim + input_dim, dim, true)?;
        others.push(Shift { index, gate, shift: Linear::new(&scope.pp("shift"), *input_dim, dim, true)? });
    }
    Ok(Box::new(Mag {
        base: Linear::new(&scope.pp("base"), main_dim, dim, true)?,
        others,
        norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
        main,
        beta: config.beta,
    }))
}

/// Gated shift of the main vector by one other modality.
struct Shift {
    index: usize,
    gate: Linear,
    shift: Linear,
}

/// *Integrating Multimodal Information in Large Pretrained Transformers* (Rahman et al., 2020,
/// <https://arxiv.org/abs/1908.05787>). Where the main modality is missing the shift itself is the result.
struct Mag {
    base: Linear,
    others: Vec<Shift>,
    norm: Norm,
    main: usize,
    beta: f64,
}

impl FusionOperator for Mag {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let main = &inputs[self.main];
        let x = self.base.forward(&main.values, train)?; // [rows, dim]
        let mut total = x.zeros_like()?;
        for Shift { index, gate, shift } in &self.others {
            let other = &inputs[*index];
            let gate = gate.forward(&Tensor::cat(&[&other.values, &main.values], 1)?, train)?.relu()?;
            total = total.add(&shift.forward(&other.values, train)?.mul(&gate)?.mul(&other.present_column()?)?)?;
        }
        let (main_norm, shift_norm) = (x.norm(1, true)?, total.norm(1, true)?.add_scalar(1e-6)?);
        let scale = main_norm.div(&shift_norm)?.mul_scalar(self.beta)?.clamp(0.0, 1.0)?; // [rows, 1]
        let present = main.present_column()?;
        let absent = present.neg()?.add_scalar(1.0)?;
        let sum = x.mul(&present)?.add(&total.mul(&scale.mul(&present)?.add(&absent)?)?)?;
        Ok(OperatorOutput::new(self.norm.forward(&sum, train)?))
    }
}
