//! Parallel co-attention.

use crate::{
    FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result, operator::check_positive,
};
use mm_core::{Init, Module, Scope, Tensor, nn::Linear};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "co_attention",
    description: "parallel co-attention of each pair of modalities (Lu et al. 2016)",
    takes_sequences: true,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CoAttentionConfig {
    /// Dimension in which positions are compared.
    hidden_dim: i64,
}

impl Default for CoAttentionConfig {
    fn default() -> Self {
        Self { hidden_dim: 64 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let CoAttentionConfig { hidden_dim } = context.options()?;
    check_positive("hidden_dim", hidden_dim)?;
    context.equal_input_dims(SPEC.kind)?;
    let (count, dim) = (context.input_dims.len(), context.dim);
    let mut pairs = Vec::new();
    // A single modality is paired with itself.
    for (a, b) in (0..count).flat_map(|a| (a..count).map(move |b| (a, b))).filter(|(a, b)| a != b || count == 1) {
        pairs.push(Pair::new(&context.scope.pp("pairs").pp(format!("{a}_{b}")), [a, b], dim, hidden_dim)?);
    }
    let out_proj = Linear::new(&context.scope.pp("out_proj"), 2 * dim * pairs.len() as i64, dim, true)?;
    Ok(Box::new(CoAttention { pairs, out_proj }))
}

struct Pair {
    a: usize,
    b: usize,
    affinity: Linear,
    project_a: Linear,
    project_b: Linear,
    score_a: Tensor,
    score_b: Tensor,
}

impl Pair {
    fn new(scope: &Scope<'_>, [a, b]: [usize; 2], dim: i64, hidden_dim: i64) -> Result<Self> {
        let init = Init::Normal(1.0 / (hidden_dim as f64).sqrt());
        Ok(Self {
            a,
            b,
            affinity: Linear::new(&scope.pp("affinity"), dim, dim, false)?,
            project_a: Linear::new(&scope.pp("a"), dim, hidden_dim, false)?,
            project_b: Linear::new(&scope.pp("b"), dim, hidden_dim, false)?,
            score_a: scope.param("score_a", &[hidden_dim], init)?,
            score_b: scope.param("score_b", &[hidden_dim], init)?,
        })
    }

    /// Attention-pooled vectors `[rows, dim]` of both modalities.
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<[Tensor; 2]> {
        let (a, b) = (&inputs[self.a], &inputs[self.b]);
        // [rows, length of a, length of b]
        let affinity = self.affinity.forward(&a.values, train)?.matmul(&b.values.transpose(1, 2)?)?.tanh()?;
        let (pa, pb) = (self.project_a.forward(&a.values, train)?, self.project_b.forward(&b.values, train)?);
        let hidden_a = pa.add(&affinity.matmul(&pb)?)?.tanh()?; // [rows, length of a, hidden_dim]
        let hidden_b = pb.add(&affinity.transpose(1, 2)?.matmul(&pa)?)?.tanh()?;
        Ok([attention_pool(a, &hidden_a, &self.score_a)?, attention_pool(b, &hidden_b, &self.score_b)?])
    }
}

fn attention_pool(input: &ModalityInput, hidden: &Tensor, score: &Tensor) -> Result<Tensor> {
    let scores = hidden.mul(score)?.sum_dim(&[2], false)?; // [rows, length]
    let scores = match &input.mask {
        Some(mask) => scores.masked_fill(&mask.logical_not()?, scores.dtype()?.mask_value())?,
        None => scores,
    };
    let weights = scores.softmax(1)?.unsqueeze(2)?;
    Ok(input.values.mul(&weights)?.sum_dim(&[1], false)?.mul(&input.present_column()?)?)
}

/// *Hierarchical Question-Image Co-Attention for Visual Question Answering* (Lu et al., 2016,
/// <https://arxiv.org/abs/1606.00061>).
struct CoAttention {
    pairs: Vec<Pair>,
    out_proj: Linear,
}

impl FusionOperator for CoAttention {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let mut pooled = Vec::new();
        for pair in &self.pairs {
            pooled.extend(pair.forward(inputs, train)?);
        }
        let x = Tensor::cat(&pooled.iter().collect::<Vec<_>>(), 1)?;
        Ok(OperatorOutput::new(self.out_proj.forward(&x, train)?))
    }
}
