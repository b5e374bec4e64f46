//! Sizes and options of a decoder.

use crate::{
    Tensor,
    nn::{Activation, NormConfig, RotaryEmbedding, TransformerConfig},
};

/// Sizes and options of a [`Decoder`](super::Decoder).
#[derive(Debug, Clone)]
pub struct DecoderConfig {
    /// Vocabulary size.
    pub vocab_size: i64,
    /// Feature dimension.
    pub dim: i64,
    /// Learned position embeddings.
    pub learned_positions: Option<LearnedPositions>,
    /// Fixed position embeddings (sinusoidal), `[positions, dim]`.
    pub fixed_positions: Option<Tensor>,
    /// Factor on token embeddings.
    pub embed_scale: f64,
    /// Norm of the sum of token and position embeddings.
    pub embed_norm: Option<NormConfig>,
    /// The blocks.
    pub blocks: TransformerConfig,
    /// Dense layer, activation and norm before the language model head (BERT).
    pub head_transform: Option<(Activation, NormConfig)>,
    /// Whether the language model head has a bias.
    pub head_bias: bool,
    /// Rotary position embeddings, for blocks whose attention has no positions of its own.
    pub rotary: Option<RotaryEmbedding>,
    /// Maximum number of positions.
    pub max_positions: i64,
}

/// A table of learned position embeddings.
#[derive(Debug, Clone, Copy)]
pub struct LearnedPositions {
    /// Number of positions.
    pub count: i64,
    /// Unused entries at the start of the table (TrOCR has two).
    pub offset: i64,
}

impl DecoderConfig {
    /// Token embeddings, a learned embedding for each of `max_positions` positions, these blocks and a head without
    /// bias.
    pub fn new(vocab_size: i64, max_positions: i64, blocks: TransformerConfig) -> Self {
        Self {
            vocab_size,
            dim: blocks.block.attention.embed_dim,
            learned_positions: Some(LearnedPositions { count: max_positions, offset: 0 }),
            fixed_positions: None,
            embed_scale: 1.0,
            embed_norm: None,
            blocks,
            head_transform: None,
            head_bias: false,
            rotary: None,
            max_positions,
        }
    }
}
