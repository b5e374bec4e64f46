//! The transformer of masked and sequence autoencoders.

use mm_core::{
    Result, Scope,
    nn::{Activation, AttentionConfig, BlockConfig, MlpConfig, Transformer, TransformerConfig},
};

/// A pre-norm transformer with GELU feed-forward layers of four times the embedding dimension.
pub(super) fn pre_norm_transformer(
    scope: &Scope<'_>,
    attention: AttentionConfig,
    num_layers: i64,
    dropout: f64,
) -> Result<Transformer> {
    let mlp = MlpConfig::new(4 * attention.embed_dim, Activation::Gelu);
    let block = BlockConfig { dropout, ..BlockConfig::pre_norm(attention, mlp) };
    Transformer::new(scope, &TransformerConfig::new(num_layers, block))
}
