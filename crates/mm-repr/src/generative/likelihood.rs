//! Likelihoods of values given a decoder's output.

use super::spec::{InputSpec, ValueType};
use mm_core::{Init, Result, Scope, Tensor};

/// ½ ln 2π.
const HALF_LN_2PI: f64 = 0.918_938_533_204_672_8;

/// p(x | decoded): a Bernoulli distribution for binary values, otherwise a Gaussian whose scale is learned, so that no
/// weight has to be tuned (σ-VAE, *Simple and Effective VAE Training with Calibrated Decoders*,
/// [Rybkin et al., 2021](https://arxiv.org/abs/2006.13202)).
pub struct Likelihood {
    value_type: ValueType,
    log_scale: Option<Tensor>,
}

impl Likelihood {
    /// The likelihood of values of this type; a Gaussian has a parameter `log_scale` under `scope`.
    pub fn new(scope: &Scope<'_>, spec: &InputSpec) -> Result<Self> {
        let is_gaussian = spec.value_type != ValueType::Binary;
        let log_scale = is_gaussian.then(|| scope.param("log_scale", &[1], Init::Constant(-1.0))).transpose()?;
        Ok(Self { value_type: spec.value_type, log_scale })
    }

    /// The negative log-likelihood −ln p(x | decoded) of each row in nats, `[rows]`.
    pub fn nll(&self, decoded: &Tensor, values: &Tensor) -> Result<Tensor> {
        let per_element = if let Some(log_scale) = &self.log_scale {
            // Clamped: where data can be reconstructed exactly, the density would grow without bound.
            let log_scale = log_scale.clamp(-4.0, 4.0)?;
            let standardized = decoded.sub(values)?.mul(&log_scale.neg()?.exp()?)?;
            standardized.mul(&standardized)?.mul_scalar(0.5)?.add(&log_scale)?.add_scalar(HALF_LN_2PI)?
        } else {
            binary_cross_entropy(decoded, values)?
        };
        per_element.flatten(1, -1)?.sum_dim(&[1], false)
    }

    /// The reconstruction error of each row, `[rows]`: mean binary cross-entropy of binary values, otherwise mean
    /// squared error.
    pub fn reconstruction_error(&self, decoded: &Tensor, values: &Tensor) -> Result<Tensor> {
        let per_element = if self.value_type == ValueType::Binary {
            binary_cross_entropy(decoded, values)?
        } else {
            let difference = decoded.sub(values)?;
            difference.mul(&difference)?
        };
        per_element.flatten(1, -1)?.mean_dim(&[1], false)
    }
}

/// Element-wise binary cross-entropy of logits: softplus(logit) − logit · target.
pub fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    logits.softplus()?.sub(&logits.mul(targets)?)
}
