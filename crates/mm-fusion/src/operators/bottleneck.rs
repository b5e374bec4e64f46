//! Attention bottlenecks.

use super::layers::{BLOCK_DROPOUT, accumulate, add_positions, pre_norm_block};
use crate::{
    FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result, operator::check_positive,
};
use mm_core::{
    DType, Init, Module, Tensor,
    nn::{Block, ForwardArgs, Linear, Mask},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "bottleneck",
    description: "multimodal bottleneck transformer (MBT, Nagrani et al. 2021)",
    takes_sequences: true,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BottleneckConfig {
    /// Blocks of each modality.
    num_layers: i64,
    num_heads: i64,
    /// Number of bottleneck tokens.
    num_tokens: i64,
}

impl Default for BottleneckConfig {
    fn default() -> Self {
        Self { num_layers: 2, num_heads: 4, num_tokens: 4 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let BottleneckConfig { num_layers, num_heads, num_tokens } = context.options()?;
    context.equal_input_dims(SPEC.kind)?;
    check_positive("num_tokens", num_tokens)?;
    check_positive("num_layers", num_layers)?;
    let (scope, dim) = (&context.scope, context.dim);
    let modalities = context.input_dims.len() as i64;
    let config = pre_norm_block(dim, num_heads, BLOCK_DROPOUT);
    let mut layers = Vec::new();
    for layer in 0..num_layers {
        let blocks = (0..modalities).map(|index| Block::new(&scope.pp("layers").pp(layer).pp(index), &config));
        layers.push(blocks.collect::<mm_core::Result<Vec<_>>>()?);
    }
    Ok(Box::new(Bottleneck {
        layers,
        class_tokens: scope.param("class_tokens", &[modalities, dim], Init::Normal(0.02))?,
        bottleneck_tokens: scope.param("bottleneck", &[num_tokens, dim], Init::Normal(0.02))?,
        out_proj: Linear::new(&scope.pp("out_proj"), dim, dim, true)?,
    }))
}

/// Each modality has its own transformer; information passes between them only through a few shared tokens.
///
/// *Attention Bottlenecks for Multimodal Fusion* (Nagrani et al., 2021, <https://arxiv.org/abs/2107.00135>).
struct Bottleneck {
    /// For each layer, one block per modality.
    layers: Vec<Vec<Block>>,
    class_tokens: Tensor,
    bottleneck_tokens: Tensor,
    out_proj: Linear,
}

impl FusionOperator for Bottleneck {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let (rows, dim) = (inputs[0].values.size(0)?, inputs[0].values.size(2)?);
        let num_tokens = self.bottleneck_tokens.size(0)?;
        let mut shared = self.bottleneck_tokens.unsqueeze(0)?.expand(&[rows, num_tokens, dim])?;
        let (mut sequences, mut masks) = (Vec::new(), Vec::new());
        for (index, input) in inputs.iter().enumerate() {
            let class = self.class_tokens.select(0, index as i64)?.reshape(&[1, 1, dim])?.expand(&[rows, 1, dim])?;
            sequences.push(Tensor::cat(&[&class, &add_positions(&input.values)?], 1)?); // [rows, 1 + length, dim]
            let class_mask = input.present_column()?.gt_scalar(0.5)?;
            let shared_mask = Tensor::ones(&[rows, num_tokens], DType::Bool, shared.device())?;
            masks.push(Mask::Padding(Tensor::cat(&[&class_mask, &input.position_mask()?, &shared_mask], 1)?));
        }
        let present = inputs.iter().map(ModalityInput::present_column).collect::<Result<Vec<_>>>()?;
        let count = Tensor::cat(&present.iter().collect::<Vec<_>>(), 1)?.sum_dim(&[1], true)?.clamp_min(1.0)?; // [rows, 1]
        for blocks in &self.layers {
            let mut sum: Option<Tensor> = None;
            for ((x, block), (mask, present)) in sequences.iter_mut().zip(blocks).zip(masks.iter().zip(&present)) {
                let length = x.size(1)?;
                let mut args = ForwardArgs { mask: Some(mask), train, ..ForwardArgs::default() };
                let y = block.forward(&Tensor::cat(&[x, &shared], 1)?, &mut args, None)?;
                *x = y.narrow(1, 0, length)?;
                let tokens = y.narrow(1, length, num_tokens)?.mul(&present.unsqueeze(2)?)?;
                sum = accumulate(sum, tokens, Tensor::add)?;
            }
            if let Some(sum) = sum {
                shared = sum.div(&count.unsqueeze(2)?)?;
            }
        }
        let mut class_sum = sequences[0].select(1, 0)?.zeros_like()?;
        for (x, present) in sequences.iter().zip(&present) {
            class_sum = class_sum.add(&x.select(1, 0)?.mul(present)?)?;
        }
        Ok(OperatorOutput::new(self.out_proj.forward(&class_sum.div(&count)?, train)?))
    }
}
