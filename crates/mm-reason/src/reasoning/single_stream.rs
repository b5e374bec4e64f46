//! Query tokens and context positions in one transformer, read out at a class token.
//!
//! As *ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision* (Kim et al., 2021),
//! <https://arxiv.org/abs/2102.03334>.

use super::network::{
    NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, check_positive, pre_norm_block,
};
use crate::Result;
use mm_core::{
    DType, Init, Tensor,
    nn::{ForwardArgs, Mask, Transformer, TransformerConfig},
};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "single_stream", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SingleStreamConfig {
    /// Number of blocks.
    num_layers: i64,
    /// Attention heads of each block.
    num_heads: i64,
}

impl Default for SingleStreamConfig {
    fn default() -> Self {
        Self { num_layers: 3, num_heads: 4 }
    }
}

struct SingleStream {
    class_token: Tensor,
    /// Token types of the query and of the context, `[2, dim]`.
    token_types: Tensor,
    blocks: Transformer,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let SingleStreamConfig { num_layers, num_heads } = context.options()?;
    check_positive("num_layers", num_layers)?;
    check_positive("num_heads", num_heads)?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    let block = pre_norm_block(dim, num_heads, context.dropout, false);
    Ok(Box::new(SingleStream {
        class_token: scope.param("class_token", &[1, 1, dim], Init::Normal(0.02))?,
        token_types: scope.param("token_types", &[2, dim], Init::Normal(0.02))?,
        blocks: Transformer::new(scope, &TransformerConfig::new(num_layers, block))?,
    }))
}

impl ReasoningNetwork for SingleStream {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let batch = input.context.size(0)?;
        let class = self.class_token.expand(&[batch, -1, -1])?;
        let query = input.query_tokens.add(&self.token_types.select(0, 0)?)?;
        let context = input.context.add(&self.token_types.select(0, 1)?)?;
        let x = Tensor::cat(&[&class, &query, &context], 1)?;
        let class_mask = Tensor::ones(&[batch, 1], DType::Bool, x.device())?;
        let mask = Mask::Padding(Tensor::cat(&[&class_mask, &input.query_mask, &input.context_mask], 1)?);
        let mut maps = Vec::new();
        // Attention maps are only computed for inference.
        let weights = (!input.train).then_some(&mut maps);
        let pass =
            ForwardArgs { mask: Some(&mask), attention_maps: weights, train: input.train, ..ForwardArgs::default() };
        let out = self.blocks.forward(&x, pass)?;
        let (start, positions) = (1 + query.size(1)?, context.size(1)?);
        let mut attention = Vec::new();
        for map in maps.iter().filter_map(|w| w.self_attention.as_ref()) {
            attention.push(map.mean_dim(&[1], false)?.select(1, 0)?.narrow(1, start, positions)?);
        }
        Ok(NetworkOutput { answer: out.select(1, 0)?, attention })
    }
}
