//! Activations, by the names in checkpoints' configs.

use crate::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// A pointwise activation, deserialized from transformers' names (`gelu_new`, `quick_gelu`, `swish`, …).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Gaussian error linear unit, exact (Hendrycks & Gimpel, 2016, <https://arxiv.org/abs/1606.08415>).
    #[default]
    #[serde(alias = "gelu_python")]
    Gelu,
    /// Gaussian error linear unit, tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    /// x · sigmoid(1.702 x), as in CLIP.
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x · sigmoid(x).
    #[serde(alias = "swish")]
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// Logistic sigmoid.
    Sigmoid,
    /// No activation.
    #[serde(alias = "linear")]
    Identity,
}

impl Activation {
    /// Applies the activation elementwise.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu(),
            Self::GeluNew => x.gelu_tanh(),
            Self::QuickGelu => x.mul(&x.mul_scalar(1.702)?.sigmoid()?),
            Self::Relu => x.relu(),
            Self::Relu6 => x.relu6(),
            Self::Silu => x.silu(),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => x.sigmoid(),
            Self::Identity => Ok(x.clone()),
        }
    }
}
