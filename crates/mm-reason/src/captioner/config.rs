//! Settings of a captioning network.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which captioning network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionerKind {
    /// A transformer decoder with cross-attention to all features.
    #[default]
    Transformer,
    /// An LSTM with soft attention: *Show, Attend and Tell: Neural Image Caption Generation with Visual
    /// Attention* (Xu et al., 2015), <https://arxiv.org/abs/1502.03044>.
    Lstm,
    /// A transformer decoder after a prefix of vectors projected from the mean feature: *ClipCap: CLIP Prefix for Image
    /// Captioning* (Mokady et al., 2021), <https://arxiv.org/abs/2111.09734>.
    Prefix,
}

/// Settings of a [`Captioner`](super::Captioner).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionerConfig {
    /// Which network.
    pub kind: CaptionerKind,
    /// The feature dimension.
    pub hidden_dim: i64,
    /// Number of transformer blocks.
    pub num_layers: i64,
    /// Attention heads of each block.
    pub num_heads: i64,
    /// Dropout probability during training.
    pub dropout: f64,
    /// Number of prefix vectors (`kind = "prefix"`).
    pub prefix_length: i64,
    /// Maximum number of tokens of a caption.
    pub max_length: i64,
}

impl Default for CaptionerConfig {
    fn default() -> Self {
        Self {
            kind: CaptionerKind::Transformer,
            hidden_dim: 192,
            num_layers: 2,
            num_heads: 4,
            dropout: 0.2,
            prefix_length: 4,
            max_length: 40,
        }
    }
}

impl CaptionerConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let least = [
            ("hidden_dim", self.hidden_dim, 4),
            ("num_layers", self.num_layers, 1),
            ("num_heads", self.num_heads, 1),
            ("prefix_length", self.prefix_length, 1),
            ("max_length", self.max_length, 2),
        ];
        for (field, found, least) in least {
            if found < least {
                return Err(Error::invalid_argument(format!("model.{field}"), found, format!("at least {least}")));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::invalid_argument("model.dropout", self.dropout, "a probability in [0, 1)"));
        }
        Ok(())
    }
}
