//! Multiplicative interactions.

use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{Init, Module, Scope, Tensor, nn::Linear};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "multiplicative",
    description: "multiplicative interactions, one modality after the other (Jayakumar et al. 2020)",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MultiplicativeConfig {}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let MultiplicativeConfig {} = context.options()?;
    let mut left = context.input_dims[0];
    let mut interactions = Vec::new();
    for (index, right) in context.input_dims.iter().skip(1).enumerate() {
        interactions.push(Interaction::new(&context.scope.pp("interactions").pp(index), left, *right, context.dim)?);
        left = context.dim;
    }
    let out_proj = Linear::new(&context.scope.pp("out_proj"), left, context.dim, true)?;
    Ok(Box::new(Multiplicative { interactions, out_proj }))
}

/// `z = xᵀ W y + U x + V y + b`: a layer whose weights are a function of the other modality.
struct Interaction {
    /// `[left, right, output]`.
    weight: Tensor,
    left: Linear,
    right: Linear,
}

impl Interaction {
    fn new(scope: &Scope<'_>, left: i64, right: i64, output: i64) -> Result<Self> {
        let init = Init::Normal(1.0 / ((left * right) as f64).sqrt());
        Ok(Self {
            weight: scope.param("weight", &[left, right, output], init)?,
            left: Linear::new(&scope.pp("left"), left, output, false)?,
            right: Linear::new(&scope.pp("right"), right, output, true)?,
        })
    }

    fn forward(&self, x: &Tensor, y: &Tensor, train: bool) -> Result<Tensor> {
        let shape = self.weight.shape();
        let projected = x.matmul(&self.weight.reshape(&[shape[0], shape[1] * shape[2]])?)?; // [rows, right · output]
        let product = y.unsqueeze(1)?.matmul(&projected.reshape(&[-1, shape[1], shape[2]])?)?.squeeze(1)?; // [rows, output]
        Ok(product.add(&self.left.forward(x, train)?)?.add(&self.right.forward(y, train)?)?)
    }
}

/// *Multiplicative Interactions and Where to Find Them* (Jayakumar et al., 2020,
/// <https://openreview.net/forum?id=rylnK6VtDH>); more than two modalities are combined one after the other, as
/// *MultiBench* does (Liang et al., 2021, <https://arxiv.org/abs/2107.07502>).
struct Multiplicative {
    interactions: Vec<Interaction>,
    out_proj: Linear,
}

impl FusionOperator for Multiplicative {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let mut x = inputs[0].values.clone();
        for (interaction, input) in self.interactions.iter().zip(&inputs[1..]) {
            x = interaction.forward(&x, &input.values, train)?;
        }
        Ok(OperatorOutput::new(self.out_proj.forward(&x, train)?))
    }
}
