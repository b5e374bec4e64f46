//! The affine map.

use crate::{Init, Module, Result, Scope, Tensor};

/// `x · weightᵀ + bias`, from width `input` to width `output`.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A layer whose `weight` `[output, input]` and `bias` `[output]` lie under `scope`; fresh ones are uniform in ±1/√input.
    pub fn new(scope: &Scope<'_>, input: i64, output: i64, bias: bool) -> Result<Self> {
        let bound = 1.0 / (input.max(1) as f64).sqrt();
        Ok(Self {
            weight: scope.param("weight", &[output, input], Init::Uniform(bound))?,
            bias: bias.then(|| scope.param("bias", &[output], Init::Uniform(bound))).transpose()?,
        })
    }

    /// A layer over tensors that exist (packed or tied weights).
    pub fn from_parts(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// `[output, input]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `[output]`, if it has one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Linear {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        input.linear(&self.weight, self.bias.as_ref())
    }
}
