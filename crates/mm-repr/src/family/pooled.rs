//! An encoder with another pooling than its family's.

use mm_core::{Encoder, Features, Input, Modality, Pooling, Result, Tensor};

/// An encoder whose vector is its features, pooled; no projection or module after the features is applied.
pub(crate) struct Pooled {
    inner: Box<dyn Encoder>,
    pooling: Pooling,
}

impl Pooled {
    /// Pools the features of `inner`.
    pub(crate) fn new(inner: Box<dyn Encoder>, pooling: Pooling) -> Self {
        Self { inner, pooling }
    }
}

impl Encoder for Pooled {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        self.inner.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        self.encode(input, train)?.pool(self.pooling)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> Result<(Features, Tensor)> {
        let features = self.encode(input, train)?;
        let embedding = features.pool(self.pooling)?;
        Ok((features, embedding))
    }

    fn dim(&self) -> i64 {
        self.inner.dim()
    }

    fn modality(&self) -> Modality {
        self.inner.modality()
    }
}
