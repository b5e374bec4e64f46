//! Activations under the names that checkpoints' configs use.

use crate::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// A pointwise nonlinearity; serde reads transformers' names (`gelu_new`, `quick_gelu`, `swish` …).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Gaussian error linear unit, exact (Hendrycks 2016).
    #[default]
    #[serde(alias = "gelu_python")]
    Gelu,
    /// Its tanh approximation.
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    /// x · sigmoid(1.702 x), CLIP's.
    QuickGelu,
    /// Rectifier.
    Relu,
    /// Rectifier capped at six.
    Relu6,
    /// x · sigmoid(x).
    #[serde(alias = "swish")]
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// Logistic sigmoid.
    Sigmoid,
    /// The value itself.
    #[serde(alias = "linear")]
    Identity,
}

impl Activation {
    /// Applies it to each number.
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
