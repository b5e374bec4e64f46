//! The projection into the joint space.

use crate::{Result, family::ModelBuilder};
use mm_core::{
    Module, Tensor,
    nn::{Activation, Linear},
};

/// Two layers and normalization to unit length.
pub(super) struct Projection {
    linear1: Linear,
    activation: Activation,
    linear2: Linear,
}

impl Projection {
    pub(super) fn new(b: &ModelBuilder<'_>, name: &str, input: i64) -> Result<Self> {
        let (scope, dim) = (b.scope.pp(name), b.config["projection_dim"].as_i64().unwrap_or(512));
        let activation = &b.config["projection_hidden_act"];
        let activation =
            if activation.is_null() { Activation::Relu } else { b.parse_part(activation, "projection_hidden_act")? };
        Ok(Self {
            linear1: Linear::new(&scope.pp("linear1"), input, dim, true)?,
            activation,
            linear2: Linear::new(&scope.pp("linear2"), dim, dim, true)?,
        })
    }

    /// Dimension of the output.
    pub(super) fn dim(&self) -> i64 {
        self.linear2.out_features()
    }

    pub(super) fn apply(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let hidden = self.activation.apply(&self.linear1.forward(x, false)?)?;
        self.linear2.forward(&hidden, false)?.normalize()
    }
}
