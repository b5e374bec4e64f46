//! The two-layer network of a transformer block, plain or gated (Shazeer 2020).

use super::{
    Activation, Linear,
    linear::{Factors, PLAIN},
};
use crate::{Module, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Sizes and switches of an [`Mlp`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Width between the two layers.
    pub hidden_dim: i64,
    /// What stands between them.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a third layer gates the activation (SwiGLU, GEGLU).
    #[serde(default)]
    pub gated: bool,
    /// Whether the layers have biases.
    #[serde(default = "yes")]
    pub bias: bool,
}

impl MlpConfig {
    /// Two layers with biases, no gate.
    pub fn new(hidden: i64, activation: Activation) -> Self {
        Self { hidden_dim: hidden, activation, gated: false, bias: true }
    }
}

fn yes() -> bool {
    true
}

/// `fc2(activation(fc1(x)))`, times `gate(x)` in the middle when gated.
pub struct Mlp {
    fc1: Linear,
    gate: Option<Linear>,
    fc2: Linear,
    activation: Activation,
}

impl Mlp {
    /// Layers `fc1`, `fc2` and maybe `gate` under `scope`.
    pub fn new(scope: &Scope<'_>, width: i64, config: &MlpConfig) -> Result<Self> {
        Ok(Self {
            fc1: Linear::new(&scope.pp("fc1"), width, config.hidden_dim, config.bias)?,
            gate: config
                .gated
                .then(|| Linear::new(&scope.pp("gate"), width, config.hidden_dim, config.bias))
                .transpose()?,
            fc2: Linear::new(&scope.pp("fc2"), config.hidden_dim, width, config.bias)?,
            activation: config.activation,
        })
    }
}

impl Mlp {
    /// The network's output and a residual, summed; in fewer passes where the processor can.
    pub(crate) fn added(&self, input: &Tensor, residual: Option<&Tensor>, train: bool) -> Result<Tensor> {
        // x · σ(1.702 x) is swish(1.702 x) / 1.702: both factors go into the weights, and swish can be fused.
        let quick = self.activation == Activation::QuickGelu && self.gate.is_none() && self.fc1.fuses(input);
        let (activation, before, after) = if quick {
            (Activation::Silu, Factors(1.702, 1.702), Factors(1.0 / 1.702, 1.0))
        } else {
            (self.activation, PLAIN, PLAIN)
        };
        let mut hidden = self.fc1.activated(input, activation, before)?; // [batch, length, hidden]
        if let Some(gate) = &self.gate {
            hidden = hidden.mul(&gate.forward(input, train)?)?;
        }
        self.fc2.added(&hidden, residual, after)
    }
}

impl Module for Mlp {
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        self.added(input, None, train)
    }
}
