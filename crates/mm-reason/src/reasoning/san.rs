//! Stacked attention: the query attends to the context several times; each time what it attended to is added to it.
//!
//! *Stacked Attention Networks for Image Question Answering* (Yang et al., 2016), <https://arxiv.org/abs/1511.02274>.

use super::network::{
    NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend, check_positive,
};
use crate::Result;
use mm_core::{Module, nn::Linear};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "san", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SanConfig {
    /// Number of attention steps.
    num_steps: i64,
}

impl Default for SanConfig {
    fn default() -> Self {
        Self { num_steps: 2 }
    }
}

struct AttentionStep {
    context: Linear,
    query: Linear,
    score: Linear,
}

struct San {
    steps: Vec<AttentionStep>,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let config: SanConfig = context.options()?;
    check_positive("num_steps", config.num_steps)?;
    let dim = context.hidden_dim;
    let step = |n: i64| {
        let scope = context.scope.pp("steps").pp(n);
        Ok(AttentionStep {
            context: Linear::new(&scope.pp("context"), dim, dim, false)?,
            query: Linear::new(&scope.pp("query"), dim, dim, true)?,
            score: Linear::new(&scope.pp("score"), dim, 1, false)?,
        })
    };
    Ok(Box::new(San { steps: (0..config.num_steps).map(step).collect::<Result<_>>()? }))
}

impl ReasoningNetwork for San {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let mut query = input.query.clone();
        let mut attention = Vec::new();
        for step in &self.steps {
            let projected_query = step.query.forward(&query, input.train)?.unsqueeze(1)?;
            let hidden = step.context.forward(&input.context, input.train)?.add(&projected_query)?.tanh()?;
            let weights = input.masked_softmax(&step.score.forward(&hidden, input.train)?.squeeze(2)?)?;
            query = query.add(&attend(&weights, &input.context)?)?;
            attention.push(weights);
        }
        Ok(NetworkOutput { answer: query, attention })
    }
}
