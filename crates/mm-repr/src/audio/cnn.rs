//! A convolutional audio encoder that is trained from scratch: convolutions over time on a log-mel spectrogram,
//! optionally transformer blocks, pooled by learned attention and by maximum.

use mm_core::{
    DType, Encoder, Error, Features, Init, Input, Modality, Module, Pooling, Result, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BatchNorm, BlockConfig, Conv1d, ConvConfig, ForwardArgs, Linear, Mask, MlpConfig,
        Position, Transformer, TransformerConfig,
    },
};
use serde::{Deserialize, Serialize};

/// Sizes of an [`AudioCnn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AudioCnnConfig {
    /// Output channels of each convolution.
    pub channels: Vec<i64>,
    /// Kernel size of the convolutions in frames; odd.
    pub kernel_size: i64,
    /// Number of convolutions, from the first, that are followed by max pooling over two frames.
    pub downsample_layers: usize,
    /// Number of transformer blocks after the convolutions.
    pub num_layers: i64,
    /// Attention heads of the blocks.
    pub num_heads: i64,
    /// Dropout rate.
    pub dropout: f64,
}

impl Default for AudioCnnConfig {
    fn default() -> Self {
        Self {
            channels: vec![128, 192, 256, 256, 256],
            kernel_size: 5,
            downsample_layers: 4,
            num_layers: 0,
            num_heads: 4,
            dropout: 0.2,
        }
    }
}

struct Stage {
    conv: Conv1d,
    norm: BatchNorm,
    downsample: bool,
    residual: bool,
}

/// Subtracted from padding before max pooling: more than any activation, and within half precision.
const PADDING_OFFSET: f64 = 3e4;

/// Spectrogram `[batch, frames, bands]` → features `[batch, fewer frames, dim]`; the embedding is `[batch, 2 · dim]`.
pub struct AudioCnn {
    stages: Vec<Stage>,
    blocks: Option<Transformer>,
    pool_projection: Linear,
    pool_query: Tensor,
    dim: i64,
    dropout: f64,
}

/// 1 for valid frames and 0 for padding, `[batch, 1, 1, frames]`.
fn frame_weights(mask: &Tensor, dtype: DType) -> Result<Tensor> {
    mask.unsqueeze(1)?.unsqueeze(1)?.to_dtype(dtype)
}

/// Sets padding to zero, so that the features of a recording do not depend on the others in its batch.
fn zero_padding(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    match mask {
        Some(mask) => x.mul(&frame_weights(mask, x.dtype()?)?),
        None => Ok(x.clone()),
    }
}

/// Halves the frames of `x` `[batch, channels, 1, frames]` and of its mask by maximum. Padding never wins, so an odd
/// last frame keeps its value.
fn downsample(mut x: Tensor, mask: Option<Tensor>) -> Result<(Tensor, Option<Tensor>)> {
    if let Some(mask) = &mask {
        let offset = frame_weights(mask, x.dtype()?)?.add_scalar(-1.0)?.mul_scalar(PADDING_OFFSET)?;
        x = x.add(&offset)?;
    }
    let odd = x.size(3)? % 2;
    let x = x.max_pool2d([1, 2], [1, 2], [0, 0], true)?;
    let halve = |m: Tensor| {
        let pairs = m.pad(&[0, odd], 0.0)?.reshape(&[m.size(0)?, -1, 2])?.to_dtype(DType::I64)?;
        pairs.amax(2, false)?.gt_scalar(0.0)
    };
    Ok((x, mask.map(halve).transpose()?))
}

impl AudioCnn {
    /// Builds the network under `scope` for spectrograms with `bands` bands.
    ///
    /// # Errors
    /// If there are no channels or the kernel size is even.
    pub fn new(scope: &Scope<'_>, bands: i64, config: &AudioCnnConfig) -> Result<Self> {
        let positive = !config.channels.is_empty() && config.channels.iter().all(|c| *c >= 1);
        if !positive || config.kernel_size < 1 || config.kernel_size % 2 == 0 {
            return Err(Error::config(
                "channels, kernel_size",
                format!("{:?}, {}", config.channels, config.kernel_size),
                "at least one positive number of channels, and an odd kernel_size",
            ));
        }
        let mut input = bands;
        let mut stages = Vec::new();
        for (index, output) in config.channels.iter().enumerate() {
            let stage = scope.pp("stages").pp(index);
            stages.push(Stage {
                conv: Conv1d::new(&stage.pp("conv"), ConvConfig::same(input, *output, config.kernel_size))?,
                norm: BatchNorm::new(&stage.pp("norm"), *output, 1e-5, 0.1)?,
                downsample: index < config.downsample_layers,
                residual: input == *output,
            });
            input = *output;
        }
        let dim = input;
        Ok(Self {
            stages,
            blocks: Self::transformer(scope, dim, config)?,
            pool_projection: Linear::new(&scope.pp("pool"), dim, dim, true)?,
            pool_query: scope.param("pool_query", &[dim], Init::Normal(1.0 / (dim as f64).sqrt()))?,
            dim,
            dropout: config.dropout,
        })
    }

    fn transformer(scope: &Scope<'_>, dim: i64, config: &AudioCnnConfig) -> Result<Option<Transformer>> {
        if config.num_layers < 1 {
            return Ok(None);
        }
        let position = Position::Rotary { base: 1e4 };
        let attention = AttentionConfig { position, ..AttentionConfig::new(dim, config.num_heads) };
        let mlp = MlpConfig::new(2 * dim, Activation::Gelu);
        let block = BlockConfig { dropout: config.dropout, ..BlockConfig::pre_norm(attention, mlp) };
        let config = TransformerConfig::new(config.num_layers, block);
        Transformer::new(&scope.pp("encoder"), &config).map(Some)
    }
}

impl Encoder for AudioCnn {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        let x = input.values.unsqueeze(1)?.permute(&[0, 3, 1, 2])?; // [batch, bands, 1, frames], channels last in memory
        let mut mask = input.mask.clone();
        let mut x = zero_padding(&x, mask.as_ref())?;
        for stage in &self.stages {
            let mut y = stage.norm.forward(&stage.conv.forward_channels_last(&x)?, train)?.gelu()?; // [batch, channels, 1, frames]
            if stage.residual {
                y = y.add(&x)?;
            }
            if stage.downsample && y.size(3)? > 1 {
                (y, mask) = downsample(y, mask)?;
            }
            x = zero_padding(&y, mask.as_ref())?;
        }
        let mut x = x.squeeze(2)?.transpose(1, 2)?.dropout(self.dropout, train)?; // [batch, frames, dim]
        if let Some(blocks) = &self.blocks {
            let padding = mask.clone().map(Mask::Padding);
            x = blocks.forward(&x, ForwardArgs { mask: padding.as_ref(), train, ..ForwardArgs::default() })?;
        }
        Features::new(x, mask)
    }

    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        Ok(self.encode_and_embed(input, train)?.1)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> Result<(Features, Tensor)> {
        let features = self.encode(input, train)?;
        let keys = self.pool_projection.forward(&features.values, train)?.tanh()?;
        let mut scores = keys.mul(&self.pool_query)?.sum_dim(&[-1], false)?; // [batch, frames]
        if let Some(mask) = &features.mask {
            scores = scores.masked_fill(&mask.logical_not()?, scores.dtype()?.mask_value())?;
        }
        let weights = scores.softmax(1)?.unsqueeze(-1)?;
        let attended = features.values.mul(&weights)?.sum_dim(&[1], false)?; // [batch, dim]
        let embedding = Tensor::cat(&[&attended, &features.pool(Pooling::Max)?], -1)?;
        Ok((features, embedding))
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn embedding_dim(&self) -> i64 {
        self.dim * 2
    }

    fn modality(&self) -> Modality {
        Modality::AUDIO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, Params};

    #[test]
    fn embedding_does_not_depend_on_the_padding_of_the_batch() {
        let params = Params::new(Device::Cpu);
        let config = AudioCnnConfig {
            channels: vec![6, 6, 8],
            downsample_layers: 2,
            num_layers: 1,
            num_heads: 2,
            ..AudioCnnConfig::default()
        };
        let encoder = AudioCnn::new(&params.scope(), 5, &config).unwrap();
        for frames in [1, 2, 7, 8, 13] {
            let short = Tensor::randn(&[1, frames, 5], DType::F32, Device::Cpu).unwrap();
            let long = Tensor::randn(&[1, 16, 5], DType::F32, Device::Cpu).unwrap();
            let padded = Tensor::cat(&[&short.pad(&[0, 0, 0, 16 - frames], 7.0).unwrap(), &long], 0).unwrap();
            let positions = Tensor::arange(0, 16, Device::Cpu).unwrap();
            let mask = positions.lt(&Tensor::from_slice(&[frames, 16]).unwrap().unsqueeze(1).unwrap()).unwrap();
            let alone = encoder.embed(&Input { values: short, mask: None }, false).unwrap();
            let batched = encoder.embed(&Input { values: padded, mask: Some(mask) }, false).unwrap();
            let difference = alone.sub(&batched.narrow(0, 0, 1).unwrap()).unwrap();
            let difference = difference.abs().unwrap().max().unwrap().to_f64().unwrap();
            assert!(difference < 1e-4, "{frames} frames: {difference}");
        }
    }
}
