//! Bilinear attention: every pair of a query token and a context position has a weight; the weighted sum of their
//! products is added to the query tokens, from which the next glimpse starts.
//!
//! *Bilinear Attention Networks* (Kim et al., 2018), <https://arxiv.org/abs/1805.07932>.

use super::network::{NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, check_positive};
use crate::Result;
use mm_core::{DType, Features, Init, Module, Pooling, Tensor, nn::Linear};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "ban", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BanConfig {
    /// Number of attention maps computed one after another.
    num_glimpses: i64,
}

impl Default for BanConfig {
    fn default() -> Self {
        Self { num_glimpses: 2 }
    }
}

struct Glimpse {
    score_query: Linear,
    score_context: Linear,
    score_weight: Tensor,
    query: Linear,
    context: Linear,
    output: Linear,
}

struct Ban {
    glimpses: Vec<Glimpse>,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let config: BanConfig = context.options()?;
    check_positive("num_glimpses", config.num_glimpses)?;
    let dim = context.hidden_dim;
    let glimpse = |n: i64| {
        let scope = context.scope.pp("glimpses").pp(n);
        let layer = |name: &str| Linear::new(&scope.pp(name), dim, dim, true);
        Ok(Glimpse {
            score_query: layer("score_query")?,
            score_context: layer("score_context")?,
            score_weight: scope.param("score_weight", &[dim], Init::Normal(1.0 / (dim as f64).sqrt()))?,
            query: layer("query")?,
            context: layer("context")?,
            output: layer("output")?,
        })
    };
    Ok(Box::new(Ban { glimpses: (0..config.num_glimpses).map(glimpse).collect::<Result<_>>()? }))
}

impl ReasoningNetwork for Ban {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let train = input.train;
        let mut tokens = input.query_tokens.clone();
        let mut attention = Vec::new();
        let valid = input.query_mask.unsqueeze(2)?.logical_and(&input.context_mask.unsqueeze(1)?)?;
        let (batch, length, positions) = (tokens.size(0)?, tokens.size(1)?, input.context.size(1)?);
        for glimpse in &self.glimpses {
            let left = glimpse.score_query.forward(&tokens, train)?.relu()?.mul(&glimpse.score_weight)?;
            let right = glimpse.score_context.forward(&input.context, train)?.relu()?;
            let scores = left.matmul(&right.transpose(1, 2)?)?; // [batch, tokens, positions]
            let scores = scores.masked_fill(&valid.logical_not()?, DType::F32.mask_value())?;
            let map = scores.reshape(&[batch, -1])?.softmax(-1)?.reshape(&[batch, length, positions])?;
            let left = glimpse.query.forward(&tokens, train)?.relu()?;
            let right = map.matmul(&glimpse.context.forward(&input.context, train)?.relu()?)?; // [batch, tokens, dim]
            let joint = left.mul(&right)?.sum_dim(&[1], true)?; // [batch, 1, dim]
            tokens = tokens.add(&glimpse.output.forward(&joint, train)?)?;
            attention.push(map.sum_dim(&[1], false)?);
        }
        let pooled = Features::new(tokens, Some(input.query_mask.clone()))?.pool(Pooling::Mean)?;
        Ok(NetworkOutput { answer: pooled.add(&input.query)?, attention })
    }
}
