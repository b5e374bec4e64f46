//! Sizes and switches of attention.

use crate::{
    Error, Result,
    nn::{Position, config::default_true},
};
use serde::{Deserialize, Serialize};

/// Configuration of an [`Attention`](super::Attention) layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {
    /// Dimension of the queries and of the output.
    pub embed_dim: i64,
    /// Number of query heads.
    pub num_heads: i64,
    /// Number of key and value heads, shared by groups of query heads; `num_heads` when absent.
    #[serde(default)]
    pub num_kv_heads: Option<i64>,
    /// Dimension of a head; `embed_dim / num_heads` when absent.
    #[serde(default)]
    pub head_dim: Option<i64>,
    /// Dimension of the context that keys and values are projected from; `embed_dim` when absent.
    #[serde(default)]
    pub context_dim: Option<i64>,
    /// Whether the projections of queries, keys and values have biases.
    #[serde(default = "default_true")]
    pub bias: bool,
    /// Whether the key projection has a bias when the others have one (Whisper and VideoMAE have none).
    #[serde(default = "default_true")]
    pub key_bias: bool,
    /// Whether the output projection has a bias.
    #[serde(default = "default_true")]
    pub output_bias: bool,
    /// Whether a position attends only to itself and to earlier positions.
    #[serde(default)]
    pub causal: bool,
    /// Position encoding applied to queries and keys.
    #[serde(default)]
    pub position: Position,
    /// Factor of the scores; `1/√head_dim` when absent.
    #[serde(default)]
    pub scale: Option<f64>,
    /// Dropout rate of the attention weights during training.
    #[serde(default)]
    pub dropout: f64,
}

impl AttentionConfig {
    /// Standard self-attention with `num_heads` heads.
    pub fn new(embed_dim: i64, num_heads: i64) -> Self {
        Self {
            embed_dim,
            num_heads,
            num_kv_heads: None,
            head_dim: None,
            context_dim: None,
            bias: true,
            key_bias: true,
            output_bias: true,
            causal: false,
            position: Position::None,
            scale: None,
            dropout: 0.0,
        }
    }

    /// Dimension of one head.
    pub fn head_dim(&self) -> i64 {
        self.head_dim.unwrap_or(self.embed_dim / self.num_heads.max(1))
    }

    /// Number of key and value heads.
    pub fn num_kv_heads(&self) -> i64 {
        self.num_kv_heads.unwrap_or(self.num_heads)
    }

    /// Dimension of the context.
    pub(super) fn context_dim(&self) -> i64 {
        self.context_dim.unwrap_or(self.embed_dim)
    }

    /// Factor of the scores.
    pub(super) fn scale(&self) -> f64 {
        self.scale.unwrap_or(1.0 / (self.head_dim() as f64).sqrt())
    }

    pub(super) fn check(&self) -> Result<()> {
        let (heads, kv_heads) = (self.num_heads, self.num_kv_heads());
        if heads < 1 || self.embed_dim < 1 || (self.head_dim.is_none() && self.embed_dim % heads != 0) {
            let expected = format!("a divisor of embed_dim {}", self.embed_dim);
            return Err(Error::config("attention.num_heads", heads, expected));
        }
        if kv_heads < 1 || heads % kv_heads != 0 {
            let expected = format!("a divisor of num_heads {heads}");
            return Err(Error::config("attention.num_kv_heads", kv_heads, expected));
        }
        if matches!(self.position, Position::Rotary { .. }) && self.head_dim() % 2 != 0 {
            return Err(Error::config("attention.head_dim", self.head_dim(), "an even number for rotary embeddings"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("attention.dropout", self.dropout, "a rate in [0, 1)"));
        }
        Ok(())
    }
}
