//! Modular co-attention: self-attention blocks on the query tokens, then blocks of self-attention and of
//! cross-attention to the encoded query on the context; attention pooling turns each into one vector, and both are
//! summed.
//!
//! *Deep Modular Co-Attention Networks for Visual Question Answering* (Yu et al., 2019),
//! <https://arxiv.org/abs/1906.10770>. Blocks are pre-norm, not post-norm as in the paper: post-norm trains poorly at
//! the learning rates that suit the other networks.

use super::network::{
    NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend, check_positive, pre_norm_block,
};
use crate::Result;
use mm_core::{
    DType, Module, Scope, Tensor,
    nn::{ForwardArgs, Linear, Mask, Norm, NormConfig, Transformer, TransformerConfig},
};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "mcan", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct McanConfig {
    /// Blocks on the query and blocks on the context.
    num_layers: i64,
    /// Attention heads of each block.
    num_heads: i64,
}

impl Default for McanConfig {
    fn default() -> Self {
        Self { num_layers: 2, num_heads: 4 }
    }
}

/// Attention pooling with a two-layer score.
struct AttentionPool {
    hidden: Linear,
    score: Linear,
}

impl AttentionPool {
    fn new(scope: &Scope<'_>, dim: i64) -> Result<Self> {
        Ok(Self {
            hidden: Linear::new(&scope.pp("hidden"), dim, dim, true)?,
            score: Linear::new(&scope.pp("score"), dim, 1, true)?,
        })
    }

    /// `[batch, positions, dim]` → the pooled vector `[batch, dim]` and the weights `[batch, positions]`.
    fn forward(&self, x: &Tensor, mask: &Tensor, train: bool) -> mm_core::Result<(Tensor, Tensor)> {
        let scores = self.score.forward(&self.hidden.forward(x, train)?.relu()?, train)?.squeeze(2)?;
        let weights = scores.masked_fill(&mask.logical_not()?, DType::F32.mask_value())?.softmax(-1)?;
        Ok((attend(&weights, x)?, weights))
    }
}

struct Mcan {
    query: Transformer,
    context: Transformer,
    pool_query: AttentionPool,
    pool_context: AttentionPool,
    output_query: Linear,
    output_context: Linear,
    norm: Norm,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let McanConfig { num_layers, num_heads } = context.options()?;
    check_positive("num_layers", num_layers)?;
    check_positive("num_heads", num_heads)?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    let stack = |name: &str, cross_attention: bool| {
        let block = pre_norm_block(dim, num_heads, context.dropout, cross_attention);
        Transformer::new(&scope.pp(name), &TransformerConfig::new(num_layers, block))
    };
    let output = |name: &str| Linear::new(&scope.pp(name), dim, dim, true);
    Ok(Box::new(Mcan {
        query: stack("query", false)?,
        context: stack("context", true)?,
        pool_query: AttentionPool::new(&scope.pp("pool_query"), dim)?,
        pool_context: AttentionPool::new(&scope.pp("pool_context"), dim)?,
        output_query: output("output_query")?,
        output_context: output("output_context")?,
        norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
    }))
}

impl ReasoningNetwork for Mcan {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let train = input.train;
        let query_mask = Mask::Padding(input.query_mask.clone());
        let context_mask = Mask::Padding(input.context_mask.clone());
        let tokens = self
            .query
            .forward(&input.query_tokens, ForwardArgs { mask: Some(&query_mask), train, ..ForwardArgs::default() })?;
        let cross = Some((&tokens, Some(&query_mask)));
        let context = self.context.forward(
            &input.context,
            ForwardArgs { mask: Some(&context_mask), context: cross, train, ..ForwardArgs::default() },
        )?;
        let (query, _) = self.pool_query.forward(&tokens, &input.query_mask, train)?;
        let (attended, weights) = self.pool_context.forward(&context, &input.context_mask, train)?;
        let sum = self.output_query.forward(&query, train)?.add(&self.output_context.forward(&attended, train)?)?;
        Ok(NetworkOutput { answer: self.norm.forward(&sum, train)?, attention: vec![weights] })
    }
}
