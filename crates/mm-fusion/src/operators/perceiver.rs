//! Perceiver: learned latents attend to all modalities.

use super::layers::{BLOCK_DROPOUT, add_positions, any_present, pre_norm_block};
use crate::{
    FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result, operator::check_positive,
};
use mm_core::{
    Init, Module, Tensor,
    nn::{Attention, AttentionArgs, AttentionConfig, Block, ForwardArgs, Linear, Mask, Norm, NormConfig},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "perceiver",
    description: "learned latents attend to all modalities (Perceiver, Jaegle et al. 2021)",
    takes_sequences: true,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PerceiverConfig {
    num_latents: i64,
    /// Rounds of cross-attention and self-attention.
    num_layers: i64,
    num_heads: i64,
}

impl Default for PerceiverConfig {
    fn default() -> Self {
        Self { num_latents: 8, num_layers: 2, num_heads: 4 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let PerceiverConfig { num_latents, num_layers, num_heads } = context.options()?;
    context.equal_input_dims(SPEC.kind)?;
    check_positive("num_latents", num_latents)?;
    check_positive("num_layers", num_layers)?;
    let (scope, dim) = (&context.scope, context.dim);
    let mut layers = Vec::new();
    for layer in 0..num_layers {
        let scope = scope.pp("layers").pp(layer);
        layers.push(Layer {
            norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
            cross_attention: Attention::new(&scope.pp("cross_attn"), &AttentionConfig::new(dim, num_heads))?,
            block: Block::new(&scope.pp("block"), &pre_norm_block(dim, num_heads, BLOCK_DROPOUT))?,
        });
    }
    let modalities = context.input_dims.len() as i64;
    Ok(Box::new(Perceiver {
        latents: scope.param("latents", &[num_latents, dim], Init::Normal(0.02))?,
        modality_embedding: scope.param("modality_embedding", &[modalities, dim], Init::Normal(0.02))?,
        layers,
        context_norm: Norm::new(&scope.pp("context_norm"), dim, NormConfig::default())?,
        out_proj: Linear::new(&scope.pp("out_proj"), dim, dim, true)?,
    }))
}

struct Layer {
    norm: Norm,
    cross_attention: Attention,
    block: Block,
}

/// Cost grows linearly with the length of the input.
///
/// *Perceiver: General Perception with Iterative Attention* (Jaegle et al., 2021, <https://arxiv.org/abs/2103.03206>).
struct Perceiver {
    latents: Tensor,
    modality_embedding: Tensor,
    layers: Vec<Layer>,
    context_norm: Norm,
    out_proj: Linear,
}

impl FusionOperator for Perceiver {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let (mut tokens, mut masks) = (Vec::new(), Vec::new());
        for (index, input) in inputs.iter().enumerate() {
            tokens.push(add_positions(&input.values)?.add(&self.modality_embedding.select(0, index as i64)?)?);
            masks.push(input.position_mask()?);
        }
        let context = self.context_norm.forward(&Tensor::cat(&tokens.iter().collect::<Vec<_>>(), 1)?, train)?;
        let mask = Mask::Padding(Tensor::cat(&masks.iter().collect::<Vec<_>>(), 1)?);
        let any = any_present(inputs)?.unsqueeze(2)?; // [rows, 1, 1]
        let (rows, shape) = (context.size(0)?, self.latents.shape());
        let mut x = self.latents.unsqueeze(0)?.expand(&[rows, shape[0], shape[1]])?;
        for Layer { norm, cross_attention, block } in &self.layers {
            let args = AttentionArgs { context: Some(&context), mask: Some(&mask), train, ..AttentionArgs::default() };
            x = x.add(&cross_attention.forward(&norm.forward(&x, train)?, args)?.values.mul(&any)?)?;
            x = block.forward(&x, &mut ForwardArgs { train, ..ForwardArgs::default() }, None)?;
        }
        Ok(OperatorOutput::new(self.out_proj.forward(&x.mean_dim(&[1], false)?, train)?))
    }
}
