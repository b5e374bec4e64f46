//! Memory, attention and composition: at each step a control unit attends to the query tokens, a read unit attends to
//! the context given control and memory, and a write unit updates the memory.
//!
//! *Compositional Attention Networks for Machine Reasoning* (Hudson and Manning, 2018),
//! <https://arxiv.org/abs/1803.03067>.

use super::network::{
    NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend, check_positive,
};
use crate::Result;
use mm_core::{DType, Init, Module, Tensor, nn::Linear};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "mac", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MacConfig {
    /// Number of reasoning steps.
    num_steps: i64,
}

impl Default for MacConfig {
    fn default() -> Self {
        Self { num_steps: 4 }
    }
}

struct ControlUnit {
    /// One projection of the query for each step.
    query: Vec<Linear>,
    concat: Linear,
    score: Linear,
}

struct ReadUnit {
    memory: Linear,
    context: Linear,
    concat: Linear,
    control: Linear,
    score: Linear,
}

struct Mac {
    control: ControlUnit,
    read: ReadUnit,
    write: Linear,
    initial_control: Tensor,
    initial_memory: Tensor,
    output: [Linear; 2],
    dropout: f64,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let MacConfig { num_steps } = context.options()?;
    check_positive("num_steps", num_steps)?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    let layer = |name: &str, input: i64, output: i64| Linear::new(&scope.pp(name), input, output, true);
    let initial = |name: &str| scope.param(name, &[1, dim], Init::Normal(0.1));
    Ok(Box::new(Mac {
        control: ControlUnit {
            query: (0..num_steps)
                .map(|n| Linear::new(&scope.pp("control_query").pp(n), dim, dim, true))
                .collect::<mm_core::Result<_>>()?,
            concat: layer("control_concat", 2 * dim, dim)?,
            score: layer("control_score", dim, 1)?,
        },
        read: ReadUnit {
            memory: layer("read_memory", dim, dim)?,
            context: layer("read_context", dim, dim)?,
            concat: layer("read_concat", 2 * dim, dim)?,
            control: layer("read_control", dim, dim)?,
            score: layer("read_score", dim, 1)?,
        },
        write: layer("write", 2 * dim, dim)?,
        initial_control: initial("initial_control")?,
        initial_memory: initial("initial_memory")?,
        output: [layer("output1", 2 * dim, dim)?, layer("output2", dim, dim)?],
        dropout: context.dropout,
    }))
}

impl ControlUnit {
    /// The next control state `[batch, dim]`.
    fn forward(&self, query: &Linear, control: &Tensor, input: &ReasonerInput) -> mm_core::Result<Tensor> {
        let train = input.train;
        let query = query.forward(&input.query, train)?.tanh()?;
        let joined = self.concat.forward(&Tensor::cat(&[control, &query], 1)?, train)?;
        let scores = self.score.forward(&joined.unsqueeze(1)?.mul(&input.query_tokens)?, train)?.squeeze(2)?;
        let weights = scores.masked_fill(&input.query_mask.logical_not()?, DType::F32.mask_value())?.softmax(-1)?;
        attend(&weights, &input.query_tokens)
    }
}

impl ReadUnit {
    /// Attention over the context positions, `[batch, positions]`; `projected` is the context after [`Self::context`].
    fn forward(
        &self,
        memory: &Tensor,
        control: &Tensor,
        projected: &Tensor,
        input: &ReasonerInput,
    ) -> mm_core::Result<Tensor> {
        let train = input.train;
        let interaction = self.memory.forward(memory, train)?.unsqueeze(1)?.mul(projected)?;
        let joined = self.concat.forward(&Tensor::cat(&[&interaction, &input.context], 2)?, train)?.relu()?;
        let controlled = self.control.forward(control, train)?.unsqueeze(1)?.mul(&joined)?.relu()?;
        input.masked_softmax(&self.score.forward(&controlled, train)?.squeeze(2)?)
    }
}

impl ReasoningNetwork for Mac {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let (batch, train) = (input.context.size(0)?, input.train);
        let mut control = self.initial_control.expand(&[batch, -1])?;
        let mut memory = self.initial_memory.expand(&[batch, -1])?;
        let projected = self.read.context.forward(&input.context, train)?;
        let mut attention = Vec::new();
        for query in &self.control.query {
            control = self.control.forward(query, &control, input)?;
            let weights = self.read.forward(&memory.dropout(self.dropout, train)?, &control, &projected, input)?;
            let retrieved = attend(&weights, &input.context)?;
            memory = self.write.forward(&Tensor::cat(&[&retrieved, &memory], 1)?, train)?;
            attention.push(weights);
        }
        let both = Tensor::cat(&[&memory, &input.query], 1)?;
        let hidden = self.output[0].forward(&both, train)?.relu()?.dropout(self.dropout, train)?;
        Ok(NetworkOutput { answer: self.output[1].forward(&hidden, train)?, attention })
    }
}
