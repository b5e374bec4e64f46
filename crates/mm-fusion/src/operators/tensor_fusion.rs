//! Tensor fusion network: the outer product of all modalities.

use super::layers::{accumulate, no_modality};
use crate::{
    Error, FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result,
    operator::check_positive,
};
use mm_core::{Module, nn::Linear};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "tensor_fusion",
    description: "tensor fusion network (TFN): the outer product of all modalities (Zadeh et al. 2017)",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TensorFusionConfig {
    /// Dimension of each modality in the product.
    modality_dim: i64,
    /// Dimension of the layer after the product.
    hidden_dim: i64,
}

impl Default for TensorFusionConfig {
    fn default() -> Self {
        Self { modality_dim: 16, hidden_dim: 128 }
    }
}

/// Maximum number of elements of the outer product.
const MAX_PRODUCT: i64 = 1 << 20;

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let TensorFusionConfig { modality_dim, hidden_dim } = context.options()?;
    check_positive("modality_dim", modality_dim)?;
    check_positive("hidden_dim", hidden_dim)?;
    let (scope, modalities) = (&context.scope, context.input_dims.len());
    let product = (modality_dim + 1).checked_pow(modalities as u32).filter(|p| *p <= MAX_PRODUCT).ok_or_else(|| {
        let found = format!("{modality_dim} with {modalities} modalities");
        let expected = "a product (modality_dim + 1)^modalities of at most 1,048,576";
        Error::config("fusion.operator.modality_dim", found, expected)
    })?;
    let projections = context.input_dims.iter().enumerate();
    let projections =
        projections.map(|(index, dim)| Ok(Linear::new(&scope.pp("parts").pp(index), *dim, modality_dim, true)?));
    Ok(Box::new(TensorFusion {
        projections: projections.collect::<Result<_>>()?,
        fc1: Linear::new(&scope.pp("fc1"), product, hidden_dim, true)?,
        fc2: Linear::new(&scope.pp("fc2"), hidden_dim, context.dim, true)?,
    }))
}

/// A constant 1 is appended to each modality, so that the product contains all unimodal and multimodal interactions.
///
/// *Tensor Fusion Network for Multimodal Sentiment Analysis* (Zadeh et al., 2017, <https://arxiv.org/abs/1707.07250>).
struct TensorFusion {
    projections: Vec<Linear>,
    fc1: Linear,
    fc2: Linear,
}

impl FusionOperator for TensorFusion {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let mut product = None;
        for (input, projection) in inputs.iter().zip(&self.projections) {
            // A missing modality is (1, 0, …, 0), which leaves the product of the others.
            let projected = projection.forward(&input.values, train)?.relu()?;
            let factor = projected.mul(&input.present_column()?)?.pad(&[1, 0], 1.0)?; // [rows, modality_dim + 1]
            product = accumulate(product, factor, |product, factor| {
                product.unsqueeze(2)?.mul(&factor.unsqueeze(1)?)?.flatten(1, 2)
            })?;
        }
        let product = product.ok_or_else(|| no_modality(SPEC.kind))?;
        let hidden = self.fc1.forward(&product, train)?.relu()?;
        Ok(OperatorOutput::new(self.fc2.forward(&hidden, train)?))
    }
}
