//! Attention by a bilinear form in Tucker decomposition with a core of bounded rank: it scores each position given the
//! query and joins the query with what it attended to.
//!
//! *MUTAN: Multimodal Tucker Fusion for Visual Question Answering* (Ben-younes et al., 2017),
//! <https://arxiv.org/abs/1705.06676>.

use super::network::{
    NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend, check_positive,
};
use crate::Result;
use mm_core::{Module, Scope, Tensor, nn::Linear};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "mutan", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MutanConfig {
    /// Rank of the core tensor.
    rank: i64,
}

impl Default for MutanConfig {
    fn default() -> Self {
        Self { rank: 3 }
    }
}

/// `tanh(Σ_r tanh(M_r query) ⊙ tanh(N_r context))`.
struct TuckerFusion {
    query: Linear,
    context: Linear,
    rank: i64,
}

impl TuckerFusion {
    fn new(scope: &Scope<'_>, dim: i64, rank: i64) -> Result<Self> {
        let layer = |name: &str| Linear::new(&scope.pp(name), dim, rank * dim, true);
        Ok(Self { query: layer("query")?, context: layer("context")?, rank })
    }

    /// Query `[batch, dim]`, context `[batch, positions, dim]` → `[batch, positions, dim]`.
    fn forward(&self, query: &Tensor, context: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let query = self.query.forward(query, train)?.tanh()?.unsqueeze(1)?;
        let product = self.context.forward(context, train)?.tanh()?.mul(&query)?;
        let shape = context.shape();
        product.reshape(&[shape[0], shape[1], self.rank, shape[2]])?.sum_dim(&[2], false)?.tanh()
    }
}

struct Mutan {
    attention: TuckerFusion,
    score: Linear,
    joint: TuckerFusion,
    output: Linear,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let MutanConfig { rank } = context.options()?;
    check_positive("rank", rank)?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    Ok(Box::new(Mutan {
        attention: TuckerFusion::new(&scope.pp("attention"), dim, rank)?,
        score: Linear::new(&scope.pp("score"), dim, 1, true)?,
        joint: TuckerFusion::new(&scope.pp("joint"), dim, rank)?,
        output: Linear::new(&scope.pp("output"), dim, dim, true)?,
    }))
}

impl ReasoningNetwork for Mutan {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let train = input.train;
        let fused = self.attention.forward(&input.query, &input.context, train)?;
        let weights = input.masked_softmax(&self.score.forward(&fused, train)?.squeeze(2)?)?;
        let attended = attend(&weights, &input.context)?.unsqueeze(1)?;
        let joint = self.joint.forward(&input.query, &attended, train)?.squeeze(1)?;
        Ok(NetworkOutput { answer: self.output.forward(&joint, train)?, attention: vec![weights] })
    }
}
