//! Bilinear pooling with factorized weights: MLB, MFB and MUTAN.

use super::layers::{accumulate, no_modality};
use crate::{
    FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result, operator::check_positive,
};
use mm_core::{Module, Tensor, nn::Linear};
use serde::Deserialize;

/// *Hadamard Product for Low-rank Bilinear Pooling* (Kim et al., 2017, <https://arxiv.org/abs/1610.04325>).
pub(crate) const MLB: OperatorSpec = OperatorSpec {
    kind: "mlb",
    description: "multimodal low-rank bilinear pooling (Kim et al. 2017)",
    takes_sequences: false,
    build: |context| {
        let MlbConfig {} = context.options()?;
        Bilinear::build(context, Pooling::Mlb)
    },
};

/// *Multi-modal Factorized Bilinear Pooling with Co-Attention Learning for Visual Question Answering* (Yu et al., 2017,
/// <https://arxiv.org/abs/1708.01471>).
pub(crate) const MFB: OperatorSpec = OperatorSpec {
    kind: "mfb",
    description: "multimodal factorized bilinear pooling (Yu et al. 2017)",
    takes_sequences: false,
    build: |context| {
        let MfbConfig { num_factors } = context.options()?;
        check_positive("num_factors", num_factors)?;
        Bilinear::build(context, Pooling::Mfb { num_factors })
    },
};

/// *MUTAN: Multimodal Tucker Fusion for Visual Question Answering* (Ben-younes et al., 2017,
/// <https://arxiv.org/abs/1705.06676>).
pub(crate) const MUTAN: OperatorSpec = OperatorSpec {
    kind: "mutan",
    description: "multimodal Tucker fusion (Ben-younes et al. 2017)",
    takes_sequences: false,
    build: |context| {
        let MutanConfig { rank } = context.options()?;
        check_positive("rank", rank)?;
        Bilinear::build(context, Pooling::Mutan { rank })
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MlbConfig {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MfbConfig {
    /// Products summed for each output.
    num_factors: i64,
}

impl Default for MfbConfig {
    fn default() -> Self {
        Self { num_factors: 5 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MutanConfig {
    /// Rank of the Tucker core.
    rank: i64,
}

impl Default for MutanConfig {
    fn default() -> Self {
        Self { rank: 5 }
    }
}

#[derive(Clone, Copy)]
enum Pooling {
    /// Hadamard product.
    Mlb,
    /// Sum-pooled Hadamard product, power- and ℓ2-normalized.
    Mfb { num_factors: i64 },
    /// Sum of `rank` Hadamard products.
    Mutan { rank: i64 },
}

struct Bilinear {
    projections: Vec<Linear>,
    out_proj: Linear,
    pooling: Pooling,
    dim: i64,
}

impl Bilinear {
    fn build(context: &OperatorContext<'_>, pooling: Pooling) -> Result<Box<dyn FusionOperator>> {
        let (scope, dim) = (&context.scope, context.dim);
        let products = match pooling {
            Pooling::Mlb => 1,
            Pooling::Mfb { num_factors: products } | Pooling::Mutan { rank: products } => products,
        };
        let inputs = context.input_dims.iter().enumerate();
        let projections =
            inputs.map(|(index, input)| Ok(Linear::new(&scope.pp("parts").pp(index), *input, dim * products, true)?));
        Ok(Box::new(Self {
            projections: projections.collect::<Result<_>>()?,
            out_proj: Linear::new(&scope.pp("out_proj"), dim, dim, true)?,
            pooling,
            dim,
        }))
    }

    fn pool(&self, product: &Tensor) -> Result<Tensor> {
        Ok(match self.pooling {
            Pooling::Mlb => product.clone(),
            Pooling::Mfb { num_factors } => {
                let sum = product.reshape(&[-1, self.dim, num_factors])?.sum_dim(&[2], false)?; // [rows, dim]
                // The epsilon keeps the gradient of the square root finite at zero.
                let root = sum.sign()?.mul(&sum.abs()?.add_scalar(1e-6)?.sqrt()?)?;
                root.normalize()?.mul_scalar((self.dim as f64).sqrt())?
            }
            Pooling::Mutan { rank } => product.reshape(&[-1, rank, self.dim])?.sum_dim(&[1], false)?.tanh()?,
        })
    }
}

impl FusionOperator for Bilinear {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let mut product = None;
        for (input, projection) in inputs.iter().zip(&self.projections) {
            let factor = projection.forward(&input.values, train)?;
            // MFB has no nonlinearity before its product.
            let factor = if matches!(self.pooling, Pooling::Mfb { .. }) { factor } else { factor.tanh()? };
            // A missing modality is a factor of one.
            let present = input.present_column()?;
            let factor = factor.mul(&present)?.add(&present.neg()?.add_scalar(1.0)?)?;
            product = accumulate(product, factor, Tensor::mul)?;
        }
        let product = product.ok_or_else(|| no_modality("bilinear pooling"))?;
        Ok(OperatorOutput::new(self.out_proj.forward(&self.pool(&product)?, train)?))
    }
}
