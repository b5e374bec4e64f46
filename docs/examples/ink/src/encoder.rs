//! Tensors → features: convolutions over time.

use mm_core::{
    DType, Encoder, Features, Input, Modality, Module, Pooling, Result, Scope, Tensor,
    nn::{Conv1d, ConvConfig},
};

/// Readings that each convolution sees; odd.
const KERNEL_SIZE: i64 = 5;

/// `[batch, readings, channels]` → features `[batch, readings, dim]`; the embedding is their mean and maximum over
/// time, `[batch, 2 · dim]`.
pub struct InkEncoder {
    layers: Vec<Conv1d>,
    dim: i64,
}

impl InkEncoder {
    /// An encoder whose parameters live under `scope`: those are trained, saved and resumed.
    ///
    /// # Errors
    /// When a stored parameter has another shape.
    pub fn new(scope: &Scope<'_>, num_channels: i64, num_layers: usize, dim: i64) -> Result<Self> {
        let input_dim = |layer: usize| if layer == 0 { num_channels } else { dim };
        let layer = |index: usize| {
            let config = ConvConfig { bias: true, ..ConvConfig::same(input_dim(index), dim, KERNEL_SIZE) };
            Conv1d::new(&scope.pp("layers").pp(index), config)
        };
        Ok(Self { layers: (0..num_layers).map(layer).collect::<Result<_>>()?, dim })
    }
}

impl Encoder for InkEncoder {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        let mut x = input.values.transpose(1, 2)?; // [batch, channels, readings]
        // Padding is zero before every layer, so that a row's features do not depend on the others in its batch.
        let valid = input.mask.as_ref().map(|mask| mask.unsqueeze(1)?.to_dtype(DType::F32)).transpose()?;
        for layer in &self.layers {
            if let Some(valid) = &valid {
                x = x.mul(valid)?;
            }
            x = layer.forward(&x, train)?.gelu()?; // [batch, dim, readings]
        }
        Features::new(x.transpose(1, 2)?, input.mask.clone())
    }

    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        Ok(self.encode_and_embed(input, train)?.1)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> Result<(Features, Tensor)> {
        let features = self.encode(input, train)?;
        let embedding = Tensor::cat(&[&features.pool(Pooling::Mean)?, &features.pool(Pooling::Max)?], 1)?;
        Ok((features, embedding))
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn embedding_dim(&self) -> i64 {
        2 * self.dim
    }

    fn modality(&self) -> Modality {
        Modality::from("ink")
    }
}
