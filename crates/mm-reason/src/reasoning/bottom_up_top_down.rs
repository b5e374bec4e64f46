//! Top-down attention over bottom-up features: a gated layer scores each position given the query, and the answer is
//! the product of the query and of what it attended to.
//!
//! *Bottom-Up and Top-Down Attention for Image Captioning and Visual Question Answering* (Anderson et al., 2018),
//! <https://arxiv.org/abs/1707.07998>; *Tips and Tricks for Visual Question Answering* (Teney et al., 2018),
//! <https://arxiv.org/abs/1708.02711>.

use super::network::{NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend};
use crate::Result;
use mm_core::{Module, Scope, Tensor, nn::Linear};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "bottom_up_top_down", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// `tanh(W x) · sigmoid(W' x)`.
struct GatedTanh {
    value: Linear,
    gate: Linear,
}

impl GatedTanh {
    fn new(scope: &Scope<'_>, in_dim: i64, out_dim: i64) -> Result<Self> {
        let layer = |name: &str| Linear::new(&scope.pp(name), in_dim, out_dim, true);
        Ok(Self { value: layer("value")?, gate: layer("gate")? })
    }

    fn forward(&self, x: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        self.value.forward(x, train)?.tanh()?.mul(&self.gate.forward(x, train)?.sigmoid()?)
    }
}

struct BottomUpTopDown {
    attention: GatedTanh,
    score: Linear,
    query: GatedTanh,
    context: GatedTanh,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let NoOptions {} = context.options()?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    Ok(Box::new(BottomUpTopDown {
        attention: GatedTanh::new(&scope.pp("attention"), 2 * dim, dim)?,
        score: Linear::new(&scope.pp("score"), dim, 1, false)?,
        query: GatedTanh::new(&scope.pp("query"), dim, dim)?,
        context: GatedTanh::new(&scope.pp("context"), dim, dim)?,
    }))
}

impl ReasoningNetwork for BottomUpTopDown {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let train = input.train;
        let query = input.query.unsqueeze(1)?.expand(&input.context.shape())?;
        let both = Tensor::cat(&[&input.context, &query], 2)?;
        let scores = self.score.forward(&self.attention.forward(&both, train)?, train)?.squeeze(2)?;
        let weights = input.masked_softmax(&scores)?;
        let attended = attend(&weights, &input.context)?;
        let answer = self.query.forward(&input.query, train)?.mul(&self.context.forward(&attended, train)?)?;
        Ok(NetworkOutput { answer, attention: vec![weights] })
    }
}
