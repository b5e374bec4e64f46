//! A chain of neural modules that runs a program: each token of the query is one step, which moves attention over the
//! context and adds what it attended to to a memory. The attention maps of a program are its trace.
//!
//! After *Neural Module Networks* (Andreas et al., 2016), <https://arxiv.org/abs/1511.02799>, with soft attention
//! passed from step to step as in *Explainable Neural Computation via Stack Neural Module Networks* (Hu et al., 2018),
//! <https://arxiv.org/abs/1807.08556>.

use super::network::{NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend};
use crate::Result;
use mm_core::{
    DType, Init, Module, Tensor,
    nn::{Linear, Norm, NormConfig},
};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "module_network", build, one_step_per_token: true };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

struct ModuleNetwork {
    context: Linear,
    memory: Linear,
    /// Scales of the context's channels and of the memory's, from a token.
    scale_context: Linear,
    scale_memory: Linear,
    /// Added to positions in proportion to the previous attention.
    previous: Tensor,
    hidden: Linear,
    /// Two scores of a position: as the single referent (softmax), and as one of several (sigmoid).
    scores: Linear,
    /// Weights of a token's three ways to attend: one position, all that match, or the previous attention.
    mode: Linear,
    norm: Norm,
    output: [Linear; 2],
    dropout: f64,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let NoOptions {} = context.options()?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    let layer = |name: &str, input: i64, output: i64| Linear::new(&scope.pp(name), input, output, true);
    Ok(Box::new(ModuleNetwork {
        context: layer("context", dim, dim)?,
        memory: layer("memory", dim, dim)?,
        scale_context: layer("scale_context", dim, dim)?,
        scale_memory: layer("scale_memory", dim, dim)?,
        previous: scope.param("previous", &[dim], Init::Normal(0.1))?,
        hidden: layer("hidden", dim, dim)?,
        scores: layer("scores", dim, 2)?,
        mode: layer("mode", dim, 3)?,
        norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
        output: [layer("output1", 2 * dim, dim)?, layer("output2", dim, dim)?],
        dropout: context.dropout,
    }))
}

impl ModuleNetwork {
    /// The features `[batch, positions, dim]` that a token's module computes, and its new attention `[batch,
    /// positions]`.
    fn module(
        &self,
        token: &Tensor,
        memory: &Tensor,
        attention: &Tensor,
        projected: &Tensor,
        input: &ReasonerInput,
    ) -> mm_core::Result<(Tensor, Tensor)> {
        let train = input.train;
        let scale_memory = self.scale_memory.forward(token, train)?.add_scalar(1.0)?;
        let remembered = self.memory.forward(memory, train)?.mul(&scale_memory)?.unsqueeze(1)?;
        let scale_context = self.scale_context.forward(token, train)?.add_scalar(1.0)?.unsqueeze(1)?;
        let previous = attention.unsqueeze(2)?.mul(&self.previous)?;
        let x = projected.mul(&scale_context)?.add(&remembered)?.add(&previous)?;
        let x = self.hidden.forward(&x.relu()?, train)?.relu()?;
        let scores = self.scores.forward(&x, train)?.to_dtype(DType::F32)?; // [batch, positions, 2]
        let single = input.masked_softmax(&scores.select(2, 0)?)?;
        let several = scores.select(2, 1)?.sigmoid()?.mul(&input.context_mask.to_dtype(DType::F32)?)?;
        let mode = self.mode.forward(token, train)?.to_dtype(DType::F32)?.softmax(-1)?; // [batch, 3]
        let weighted = |n: i64, attention: &Tensor| attention.mul(&mode.narrow(1, n, 1)?);
        Ok((x, weighted(0, &single)?.add(&weighted(1, &several)?)?.add(&weighted(2, attention)?)?))
    }
}

impl ReasoningNetwork for ModuleNetwork {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let train = input.train;
        let token_mask = input.query_mask.to_dtype(DType::F32)?;
        let projected = self.context.forward(&input.context, train)?;
        // A program starts with all positions attended to: [batch, positions].
        let mut attention = input.context_mask.to_dtype(DType::F32)?;
        let mut memory = input.query.zeros_like()?.to_dtype(DType::F32)?; // [batch, dim]
        let mut maps = Vec::new();
        for step in 0..input.query_tokens.size(1)? {
            let token = input.query_tokens.select(1, step)?;
            let (x, moved) = self.module(&token, &memory, &attention, &projected, input)?;
            // A sum, not a mean, so that the memory can count.
            let attended = attend(&moved.to_dtype(x.dtype()?)?, &x)?.to_dtype(DType::F32)?;
            let updated = self.norm.forward(&memory.add(&attended)?, train)?.to_dtype(DType::F32)?;
            // Padding tokens change nothing.
            let valid = token_mask.select(1, step)?.unsqueeze(1)?;
            attention = attention.add(&moved.sub(&attention)?.mul(&valid)?)?;
            memory = memory.add(&updated.sub(&memory)?.mul(&valid)?)?;
            maps.push(attention.div(&attention.sum_dim(&[1], true)?.clamp_min(1e-6)?)?.mul(&valid)?);
        }
        let both = Tensor::cat(&[&memory.to_dtype(input.query.dtype()?)?, &input.query], 1)?;
        let hidden = self.output[0].forward(&both, train)?.relu()?.dropout(self.dropout, train)?;
        Ok(NetworkOutput { answer: self.output[1].forward(&hidden, train)?, attention: maps })
    }
}
