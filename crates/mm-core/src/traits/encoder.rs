//! Layers and encoders.

use crate::{Features, Input, Modality, Pooling, Result, Tensor};

/// A layer with one input and one output.
pub trait Module {
    /// The layer's output; `train` enables dropout and batch statistics.
    ///
    /// # Errors
    /// If the input's shape, dtype or device does not fit.
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor>;
}

/// Input of one modality → [`Features`].
pub trait Encoder {
    /// Features `[batch, length, dim]`.
    ///
    /// # Errors
    /// If the input does not fit the encoder.
    fn encode(&self, input: &Input, train: bool) -> Result<Features>;

    /// One vector per row, `[batch, embedding_dim]`; the mean of the features over the valid positions by default.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        self.encode(input, train)?.pool(Pooling::Mean)
    }

    /// Features and vectors at once; encoders whose vector is computed from their features override it.
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    fn encode_and_embed(&self, input: &Input, train: bool) -> Result<(Features, Tensor)> {
        Ok((self.encode(input, train)?, self.embed(input, train)?))
    }

    /// Dimension of the features.
    fn dim(&self) -> i64;

    /// Dimension of the vectors of [`Encoder::embed`].
    fn embedding_dim(&self) -> i64 {
        self.dim()
    }

    /// The modality that the encoder takes.
    fn modality(&self) -> Modality;
}
