//! A transformer on the concatenated sequences of all modalities.

use super::layers::{BLOCK_DROPOUT, add_positions, encoder};
use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{
    DType, Init, Tensor,
    nn::{ForwardArgs, Mask, Transformer},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "transformer",
    description: "a transformer on the concatenated sequences with modality embeddings (VisualBERT, Li et al. 2019)",
    takes_sequences: true,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TransformerFusionConfig {
    num_layers: i64,
    num_heads: i64,
    /// Whether the class token is returned, or the first modality's positions.
    pooled: bool,
}

impl Default for TransformerFusionConfig {
    fn default() -> Self {
        Self { num_layers: 2, num_heads: 4, pooled: true }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let TransformerFusionConfig { num_layers, num_heads, pooled } = context.options()?;
    let (scope, dim) = (&context.scope, context.dim);
    let modalities = context.input_dims.len() as i64;
    Ok(Box::new(TransformerFusion {
        transformer: encoder(&scope.pp("encoder"), dim, num_layers, num_heads, BLOCK_DROPOUT)?,
        modality_embedding: scope.param("modality_embedding", &[modalities, dim], Init::Normal(0.02))?,
        class_token: scope.param("class_token", &[dim], Init::Normal(0.02))?,
        pooled,
    }))
}

/// As in *VisualBERT: A Simple and Performant Baseline for Vision and Language* (Li et al., 2019,
/// <https://arxiv.org/abs/1908.03557>).
struct TransformerFusion {
    transformer: Transformer,
    modality_embedding: Tensor,
    class_token: Tensor,
    pooled: bool,
}

impl FusionOperator for TransformerFusion {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let first = &inputs[0];
        let (rows, length, dim) = (first.values.size(0)?, first.values.size(1)?, first.values.size(2)?);
        let mut tokens = vec![self.class_token.reshape(&[1, 1, dim])?.expand(&[rows, 1, dim])?];
        let mut masks = vec![Tensor::ones(&[rows, 1], DType::Bool, first.values.device())?];
        for (index, input) in inputs.iter().enumerate() {
            tokens.push(add_positions(&input.values)?.add(&self.modality_embedding.select(0, index as i64)?)?);
            masks.push(input.position_mask()?);
        }
        let x = Tensor::cat(&tokens.iter().collect::<Vec<_>>(), 1)?; // [rows, 1 + lengths, dim]
        let mask = Mask::Padding(Tensor::cat(&masks.iter().collect::<Vec<_>>(), 1)?);
        let x = self.transformer.forward(&x, ForwardArgs { mask: Some(&mask), train, ..ForwardArgs::default() })?;
        if self.pooled {
            return Ok(OperatorOutput::new(x.select(1, 0)?));
        }
        Ok(OperatorOutput { mask: first.mask.clone(), ..OperatorOutput::new(x.narrow(1, 1, length)?) })
    }
}
