//! Neural network layers: the workspace's one attention and one transformer block, and the usual layers below them.

mod attention;
mod block;
mod config;
mod conv;
pub mod decoder;
mod embedding;
mod linear;
mod lstm;
mod mlp;
mod norm;
mod position;
mod prepack;
#[cfg(test)]
mod properties;
mod rotary;
mod transformer;
mod unpadding;
mod window;

pub use crate::activation::Activation;
pub use attention::{
    Attention, AttentionArgs, AttentionConfig, AttentionOutput, KeyValueCache, Mask, with_math_attention,
};
pub use block::{AttentionMaps, Block, BlockCache, BlockConfig, ForwardArgs};
pub use conv::{Conv1d, Conv2d, ConvConfig};
pub use embedding::{Embedding, capture_embeddings};
pub use linear::Linear;
pub use lstm::{Lstm, LstmCell, LstmConfig};
pub use mlp::{Mlp, MlpConfig};
pub use norm::{BatchNorm, GroupNorm, Norm, NormConfig, NormKind};
pub use position::{Position, relative_position_buckets, sinusoidal_positions};
pub use rotary::{RotaryEmbedding, apply_rotary};
pub use transformer::{Transformer, TransformerConfig};
pub use unpadding::Unpadding;
pub use window::WindowAttention;
