//! Cross-attention between all pairs of modalities.

use super::layers::{add_positions, mean_pool};
use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{
    Module, Tensor,
    nn::{Attention, AttentionArgs, AttentionConfig, Linear, Mask, Norm, NormConfig},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "cross_attention",
    description: "each modality attends to each other (ViLBERT, Lu et al. 2019)",
    takes_sequences: true,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CrossAttentionConfig {
    num_heads: i64,
}

impl Default for CrossAttentionConfig {
    fn default() -> Self {
        Self { num_heads: 4 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let CrossAttentionConfig { num_heads } = context.options()?;
    context.equal_input_dims(SPEC.kind)?;
    let (count, dim) = (context.input_dims.len(), context.dim);
    let mut pairs = Vec::new();
    // A single modality attends to itself.
    for (query, key) in (0..count).flat_map(|q| (0..count).map(move |k| (q, k))).filter(|(q, k)| q != k || count == 1) {
        let scope = context.scope.pp("pairs").pp(format!("{query}_{key}"));
        pairs.push(Pair {
            query,
            key,
            attention: Attention::new(&scope.pp("attention"), &AttentionConfig::new(dim, num_heads))?,
            norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
        });
    }
    let out_proj = Linear::new(&context.scope.pp("out_proj"), dim * pairs.len() as i64, dim, true)?;
    Ok(Box::new(CrossAttention { pairs, out_proj }))
}

struct Pair {
    query: usize,
    key: usize,
    attention: Attention,
    norm: Norm,
}

/// Residual cross-attention of each ordered pair, mean-pooled and concatenated; the attention is that of *ViLBERT:
/// Pretraining Task-Agnostic Visiolinguistic Representations for Vision-and-Language Tasks* (Lu et al., 2019,
/// <https://arxiv.org/abs/1908.02265>).
struct CrossAttention {
    pairs: Vec<Pair>,
    out_proj: Linear,
}

impl FusionOperator for CrossAttention {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let with_positions = inputs.iter().map(|p| add_positions(&p.values)).collect::<Result<Vec<_>>>()?;
        let mut pooled = Vec::new();
        for Pair { query, key, attention, norm } in &self.pairs {
            let mask = inputs[*key].mask.clone().map(Mask::Padding);
            let context = Some(&with_positions[*key]);
            let args = AttentionArgs { context, mask: mask.as_ref(), train, ..AttentionArgs::default() };
            let attended = attention.forward(&with_positions[*query], args)?.values; // [rows, query length, dim]
            // A missing modality contributes nothing.
            let attended = attended.mul(&inputs[*key].present_column()?.unsqueeze(2)?)?;
            let x = norm.forward(&inputs[*query].values.add(&attended)?, train)?;
            pooled.push(mean_pool(&x, &inputs[*query])?);
        }
        let x = Tensor::cat(&pooled.iter().collect::<Vec<_>>(), 1)?;
        Ok(OperatorOutput::new(self.out_proj.forward(&x, train)?))
    }
}
