//! Networks over the rows of an item.

use super::super::config::ContextConfig;
use crate::Result;
use mm_core::{
    Module, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, ForwardArgs, Linear, Lstm, LstmConfig, Mask, MlpConfig, Transformer,
        TransformerConfig, sinusoidal_positions,
    },
};

/// A network over the rows of an item, in their order.
pub(super) enum ContextNetwork {
    Lstm { lstm: Lstm, dropout: f64 },
    Transformer { projection: Box<Linear>, encoder: Transformer, dropout: f64 },
}

impl ContextNetwork {
    pub(super) fn new(scope: &Scope<'_>, input_dim: i64, config: &ContextConfig) -> Result<Self> {
        Ok(match *config {
            ContextConfig::Lstm { hidden_dim, num_layers, dropout } => {
                let dropout = dropout.get();
                let (hidden_dim, num_layers) = (hidden_dim.dim(), num_layers.dim());
                let config = LstmConfig { input_dim, hidden_dim, num_layers, bidirectional: true, dropout };
                Self::Lstm { lstm: Lstm::new(scope, config)?, dropout }
            }
            ContextConfig::Transformer { dim, num_layers, num_heads, dropout } => {
                let (dim, dropout) = (dim.dim(), dropout.get());
                let attention = AttentionConfig { dropout, ..AttentionConfig::new(dim, num_heads.dim()) };
                let mlp = MlpConfig::new(2 * dim, Activation::Gelu);
                let block = BlockConfig { dropout, ..BlockConfig::pre_norm(attention, mlp) };
                let config = TransformerConfig::new(num_layers.dim(), block);
                Self::Transformer {
                    projection: Box::new(Linear::new(&scope.pp("projection"), input_dim, dim, true)?),
                    encoder: Transformer::new(&scope.pp("encoder"), &config)?,
                    dropout,
                }
            }
        })
    }

    /// Dimension of its output.
    pub(super) fn dim(&self) -> i64 {
        match self {
            Self::Lstm { lstm, .. } => lstm.dim(),
            Self::Transformer { projection, .. } => projection.out_features(),
        }
    }

    /// `[items, length, input_dim]` → `[items, length, dim]`; `mask` `[items, length]` is true where there are rows.
    pub(super) fn forward(&self, x: &Tensor, mask: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        match self {
            Self::Lstm { lstm, dropout } => {
                lstm.forward(&x.dropout(*dropout, train)?, Some(mask), train)?.dropout(*dropout, train)
            }
            Self::Transformer { projection, encoder, dropout } => {
                let x = projection.forward(&x.dropout(*dropout, train)?, train)?;
                let x = x.add(&sinusoidal_positions(x.size(1)?, x.size(2)?, true, x.device())?)?;
                let mask = Mask::Padding(mask.clone());
                encoder.forward(&x, ForwardArgs { mask: Some(&mask), train, ..ForwardArgs::default() })
            }
        }
    }
}
