//! Compact bilinear pooling: the outer product of two vectors, projected to a count sketch, scores each position given
//! the query and then joins the query with what it attended to.
//!
//! *Multimodal Compact Bilinear Pooling for Visual Question Answering and Visual Grounding* (Fukui et al., 2016),
//! <https://arxiv.org/abs/1606.01847>.

use super::network::{
    NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend, check_positive,
};
use crate::Result;
use mm_core::{DType, Init, Module, Scope, Tensor, nn::Linear};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "mcb", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct McbConfig {
    /// Dimension of the count sketch.
    sketch_dim: i64,
}

impl Default for McbConfig {
    fn default() -> Self {
        Self { sketch_dim: 512 }
    }
}

/// Compact bilinear pooling of two vectors.
struct CompactBilinear {
    /// Count sketches `[dim, sketch_dim]` of both vectors: one entry of ±1 a row. Sampled once and saved as buffers.
    sketches: [Tensor; 2],
}

impl CompactBilinear {
    fn new(scope: &Scope<'_>, names: [&str; 2], dim: i64, sketch_dim: i64) -> Result<Self> {
        let sketch = |name: &str| {
            let buffer = scope.buffer(name, &[dim, sketch_dim], Init::Zeros)?;
            let index = Tensor::rand(&[dim, 1], DType::F32, buffer.device())?.mul_scalar(sketch_dim as f64)?;
            let index = index.clamp(0.0, (sketch_dim - 1) as f64)?.to_dtype(DType::I64)?;
            let sign = Tensor::rand(&[dim, 1], DType::F32, buffer.device())?.add_scalar(-0.5)?.sign()?;
            buffer.copy_(&buffer.zeros_like()?.scatter_add(1, &index, &sign)?)?;
            Ok::<_, crate::Error>(buffer)
        };
        Ok(Self { sketches: [sketch(names[0])?, sketch(names[1])?] })
    }

    /// Sketch `[…, sketch_dim]` of the outer product of `a` and `b` `[…, dim]`: the circular convolution of their
    /// sketches, with signed square root and L2 normalization.
    fn forward(&self, a: &Tensor, b: &Tensor) -> mm_core::Result<Tensor> {
        let sketch_dim = self.sketches[0].size(1)?;
        let a = a.matmul(&self.sketches[0])?;
        let b = b.matmul(&self.sketches[1])?;
        let x = a.circular_convolution(&b, sketch_dim)?;
        // Smoothed around zero, where the sign would amplify rounding errors.
        let root = x.div(&x.abs()?.add_scalar(1e-4)?.sqrt()?)?;
        root.normalize()
    }
}

struct Mcb {
    attention: CompactBilinear,
    joint: CompactBilinear,
    score: Linear,
    output: Linear,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let McbConfig { sketch_dim } = context.options()?;
    check_positive("sketch_dim", sketch_dim)?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    Ok(Box::new(Mcb {
        attention: CompactBilinear::new(scope, ["sketch0", "sketch1"], dim, sketch_dim)?,
        joint: CompactBilinear::new(scope, ["sketch2", "sketch3"], dim, sketch_dim)?,
        score: Linear::new(&scope.pp("score"), sketch_dim, 1, true)?,
        output: Linear::new(&scope.pp("output"), sketch_dim, dim, true)?,
    }))
}

impl ReasoningNetwork for Mcb {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        // Pooled vectors have unit length; multiplied by √sketch_dim, their entries have unit scale.
        let rescale = |x: Tensor| x.mul_scalar((x.size(-1)? as f64).sqrt());
        let query = input.query.unsqueeze(1)?.expand(&input.context.shape())?;
        let pooled = rescale(self.attention.forward(&input.context, &query)?)?; // [batch, positions, sketch_dim]
        let weights = input.masked_softmax(&self.score.forward(&pooled, input.train)?.squeeze(2)?)?;
        let joint = rescale(self.joint.forward(&attend(&weights, &input.context)?, &input.query)?)?;
        Ok(NetworkOutput { answer: self.output.forward(&joint, input.train)?, attention: vec![weights] })
    }
}
