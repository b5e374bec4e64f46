//! The projection of an encoder's embeddings into the shared space.

use super::config::ProjectionConfig;
use crate::Result;
use mm_core::{
    Module, Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};

/// Two layers with a linear skip connection, normalized: `[rows, input_dim]` → `[rows, output_dim]` of unit norm.
pub(super) struct Projection {
    norm: Norm,
    fc1: Linear,
    fc2: Linear,
    skip: Linear,
    dropout: f64,
}

impl Projection {
    pub(super) fn new(scope: &Scope<'_>, input_dim: i64, output_dim: i64, config: &ProjectionConfig) -> Result<Self> {
        let hidden_dim = config.hidden_dim.dim();
        Ok(Self {
            norm: Norm::new(&scope.pp("norm"), input_dim, NormConfig::default())?,
            fc1: Linear::new(&scope.pp("fc1"), input_dim, hidden_dim, true)?,
            fc2: Linear::new(&scope.pp("fc2"), hidden_dim, output_dim, true)?,
            skip: Linear::new(&scope.pp("skip"), input_dim, output_dim, false)?,
            dropout: config.dropout.get(),
        })
    }
}

impl Module for Projection {
    fn forward(&self, x: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let x = self.norm.forward(x, train)?.dropout(self.dropout, train)?;
        let hidden = self.fc1.forward(&x, train)?.gelu()?.dropout(self.dropout, train)?; // [rows, hidden_dim]
        self.fc2.forward(&hidden, train)?.add(&self.skip.forward(&x, train)?)?.normalize() // [rows, output_dim]
    }
}
