//! The two-layer network of a transformer block, plain or gated.
//!
//! *GLU Variants Improve Transformer* (Shazeer, 2020), <https://arxiv.org/abs/2002.05202>.

use super::{Activation, Linear, config::default_true, prepack::PackScale};
use crate::{Module, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Configuration of an [`Mlp`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Dimension between the two layers.
    pub hidden_dim: i64,
    /// Activation of the first layer.
    #[serde(default)]
    pub activation: Activation,
    /// Whether a third layer gates the activation (SwiGLU, GEGLU).
    #[serde(default)]
    pub gated: bool,
    /// Whether the layers have biases.
    #[serde(default = "default_true")]
    pub bias: bool,
}

impl MlpConfig {
    /// Two layers with biases, without a gate.
    pub fn new(hidden_dim: i64, activation: Activation) -> Self {
        Self { hidden_dim, activation, gated: false, bias: true }
    }
}

/// `fc2(activation(fc1(x)))`, with `activation(fc1(x)) · gate(x)` when gated.
pub struct Mlp {
    fc1: Linear,
    gate: Option<Linear>,
    fc2: Linear,
    activation: Activation,
}

/// The factor inside `QuickGELU`, x · σ(1.702 x).
const QUICK_GELU: f64 = 1.702;

impl Mlp {
    /// Layers `fc1`, `fc2` and maybe `gate` under `scope`, from `dim` to `dim` dimensions.
    pub fn new(scope: &Scope<'_>, dim: i64, config: &MlpConfig) -> Result<Self> {
        let linear = |name: &str, input, output| Linear::new(&scope.pp(name), input, output, config.bias);
        Ok(Self {
            fc1: linear("fc1", dim, config.hidden_dim)?,
            gate: config.gated.then(|| linear("gate", dim, config.hidden_dim)).transpose()?,
            fc2: linear("fc2", config.hidden_dim, dim)?,
            activation: config.activation,
        })
    }

    /// The output plus `residual`, in fewer passes where oneDNN can.
    pub(crate) fn forward_residual(&self, input: &Tensor, residual: Option<&Tensor>, train: bool) -> Result<Tensor> {
        let (activation, before, after) = self.scaling(input);
        let mut hidden = self.fc1.forward_scaled(input, activation, before)?; // [batch, length, hidden_dim]
        if let Some(gate) = &self.gate {
            hidden = hidden.mul(&gate.forward(input, train)?)?;
        }
        self.fc2.forward_residual(&hidden, residual, after)
    }

    /// The activation to compute, and factors of the two layers. `QuickGELU` is SiLU(1.702 x) / 1.702: with both
    /// factors in the packed weights, the activation can be fused.
    fn scaling(&self, input: &Tensor) -> (Activation, PackScale, PackScale) {
        let quick = self.activation == Activation::QuickGelu && self.gate.is_none();
        if quick && self.fc1.uses_onednn(input) && self.fc2.is_onednn() {
            let before = PackScale { weight: QUICK_GELU, bias: QUICK_GELU };
            return (Activation::Silu, before, PackScale { weight: 1.0 / QUICK_GELU, bias: 1.0 });
        }
        (self.activation, PackScale::ONE, PackScale::ONE)
    }
}

impl Module for Mlp {
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_residual(input, None, train)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device, LoraConfig, Params, seed::manual_seed};

    /// An adapter on the second layer keeps it out of the fused operators, so the first must not scale for them.
    #[test]
    fn an_adapter_on_the_second_layer_starts_without_effect() {
        let build = |params: &Params| {
            manual_seed(7);
            let config = MlpConfig::new(32, Activation::QuickGelu);
            Mlp::new(&params.scope().pp("mlp").frozen(), 16, &config).unwrap()
        };
        let (plain, adapted) = (Params::new(Device::Cpu), Params::new(Device::Cpu));
        let config = LoraConfig { target_modules: vec!["fc2".into()], ..LoraConfig::default() };
        adapted.add_adapters(config).unwrap();
        let (plain, adapted) = (build(&plain), build(&adapted));
        let x = Tensor::randn(&[80, 16], DType::F32, Device::Cpu).unwrap();
        let [plain, adapted] = [plain, adapted].map(|mlp| mlp.forward(&x, false).unwrap());
        let difference = plain.sub(&adapted).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        assert!(difference < 1e-5, "{difference}");
    }
}
