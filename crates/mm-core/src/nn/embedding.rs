//! Rows of a table by number.

use crate::{Init, Result, Scope, Tensor};

/// A table `[entries, width]`.
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// A table under `scope`; a fresh one is normal with standard deviation 0.02.
    pub fn new(scope: &Scope<'_>, entries: i64, width: i64) -> Result<Self> {
        Ok(Self { weight: scope.param("weight", &[entries, width], Init::Normal(0.02))? })
    }

    /// `[…]` int64 → `[…, width]`.
    pub fn forward(&self, indices: &Tensor) -> Result<Tensor> {
        self.weight.embedding(indices)
    }

    /// The table.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}
