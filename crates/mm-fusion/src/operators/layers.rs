//! Layers and tensor functions that several operators use.

use crate::{Error, Result, inputs::ModalityInput, operator::check_positive};
use mm_core::{
    Features, Pooling, Scope, Tensor,
    nn::{Activation, AttentionConfig, BlockConfig, MlpConfig, Transformer, TransformerConfig, sinusoidal_positions},
};

/// All vectors and presence flags concatenated, `[rows, sum of (dim + 1)]`.
pub(super) fn concat_with_presence(inputs: &[ModalityInput]) -> Result<Tensor> {
    let mut columns = Vec::new();
    for input in inputs {
        columns.push(input.values.clone());
        columns.push(input.present_column()?);
    }
    Ok(Tensor::cat(&columns.iter().collect::<Vec<_>>(), 1)?)
}

/// Columns of [`concat_with_presence`].
pub(super) fn concat_dim(input_dims: &[i64]) -> i64 {
    input_dims.iter().sum::<i64>() + input_dims.len() as i64
}

/// `[rows, 1]`: 1 where any modality is present.
pub(super) fn any_present(inputs: &[ModalityInput]) -> Result<Tensor> {
    let all = inputs.iter().map(ModalityInput::present_column).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?.amax(1, true)?)
}

/// Mean of `values` `[rows, length, dim]` over the valid positions of `input`.
pub(super) fn mean_pool(values: &Tensor, input: &ModalityInput) -> Result<Tensor> {
    Ok(Features::new(values.clone(), input.mask.clone())?.pool(Pooling::Mean)?)
}

/// Accumulates a running sum or product, `None` before the first value.
pub(super) fn accumulate(
    total: Option<Tensor>,
    value: Tensor,
    combine: impl FnOnce(&Tensor, &Tensor) -> mm_core::Result<Tensor>,
) -> Result<Option<Tensor>> {
    Ok(Some(match total {
        Some(total) => combine(&total, &value)?,
        None => value,
    }))
}

/// The error of an operator that gets no modality.
pub(super) fn no_modality(kind: &str) -> Error {
    Error::config(kind, "no modality", "at least one")
}

/// Adds sinusoidal position embeddings to `x` `[rows, length, dim]`.
pub(super) fn add_positions(x: &Tensor) -> Result<Tensor> {
    let (length, dim) = (x.size(1)?, x.size(2)?);
    Ok(x.add(&sinusoidal_positions(length, dim, true, x.device())?)?)
}

/// Dropout probability inside transformer blocks that have no option for it.
pub(super) const BLOCK_DROPOUT: f64 = 0.1;

/// A pre-norm transformer block with a feed-forward dimension of `2 dim`.
pub(super) fn pre_norm_block(dim: i64, num_heads: i64, dropout: f64) -> BlockConfig {
    let attention = AttentionConfig { dropout, ..AttentionConfig::new(dim, num_heads) };
    BlockConfig { dropout, ..BlockConfig::pre_norm(attention, MlpConfig::new(2 * dim, Activation::Gelu)) }
}

/// A transformer encoder of [`pre_norm_block`]s with a final norm.
pub(super) fn encoder(
    scope: &Scope<'_>,
    dim: i64,
    num_layers: i64,
    num_heads: i64,
    dropout: f64,
) -> Result<Transformer> {
    check_positive("num_layers", num_layers)?;
    let config = TransformerConfig::new(num_layers, pre_norm_block(dim, num_heads, dropout));
    Ok(Transformer::new(scope, &config)?)
}
