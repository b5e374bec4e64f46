//! Low-rank multimodal fusion.

use super::layers::{accumulate, no_modality};
use crate::{
    FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result, operator::check_positive,
};
use mm_core::{Init, Tensor};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "low_rank_fusion",
    description: "low-rank multimodal fusion (LMF, Liu et al. 2018)",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LowRankFusionConfig {
    /// Rank of the weight tensor.
    rank: i64,
}

impl Default for LowRankFusionConfig {
    fn default() -> Self {
        Self { rank: 8 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let LowRankFusionConfig { rank } = context.options()?;
    check_positive("rank", rank)?;
    let scope = &context.scope;
    let mut factors = Vec::new();
    for (index, dim) in context.input_dims.iter().enumerate() {
        // Xavier initialization over the last two dimensions, as in the authors' code.
        let std = (2.0 / (dim + 1 + context.dim) as f64).sqrt();
        let shape = [rank, dim + 1, context.dim];
        factors.push(scope.pp("factors").param(&index.to_string(), &shape, Init::Normal(std))?);
    }
    Ok(Box::new(LowRankFusion {
        factors,
        weights: scope.param("fusion_weights", &[rank], Init::Normal((1.0 / rank as f64).sqrt()))?,
        bias: scope.param("fusion_bias", &[context.dim], Init::Zeros)?,
    }))
}

/// Tensor fusion with factorized weights; the product is never built.
///
/// *Efficient Low-rank Multimodal Fusion with Modality-Specific Factors* (Liu et al., 2018,
/// <https://arxiv.org/abs/1806.00064>).
struct LowRankFusion {
    /// `[rank, input dim + 1, dim]` of each modality; the last row belongs to the constant 1.
    factors: Vec<Tensor>,
    weights: Tensor,
    bias: Tensor,
}

impl FusionOperator for LowRankFusion {
    fn forward(&self, inputs: &[ModalityInput], _train: bool) -> Result<OperatorOutput> {
        let mut product = None;
        for (input, factor) in inputs.iter().zip(&self.factors) {
            let projected = input.values.pad(&[0, 1], 1.0)?.unsqueeze(0)?.matmul(factor)?; // [rank, rows, dim]
            product = accumulate(product, projected, Tensor::mul)?;
        }
        let product = product.ok_or_else(|| no_modality(SPEC.kind))?;
        let sum = product.mul(&self.weights.reshape(&[-1, 1, 1])?)?.sum_dim(&[0], false)?;
        Ok(OperatorOutput::new(sum.add(&self.bias)?))
    }
}
