//! A tower that learns speech from nothing: convolutions over time on a log-mel spectrogram, each halving the frames, maybe
//! transformer blocks on top, pooled by learned attention and by maximum side by side (as in audio retrieval, Koepke 2022).

use mm_core::{
    Encoder, Features, Init, Input, Modality, Module, Result, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BatchNorm, BlockConfig, Conv1d, ConvConfig, ForwardArgs, Linear, Mask, MlpConfig,
        Position, Transformer, TransformerConfig,
    },
};
use serde::{Deserialize, Serialize};

/// Sizes of a [`AudioCnn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AudioCnnConfig {
    /// Channels of each convolution.
    pub channels: Vec<i64>,
    /// Window of the convolutions, in frames; odd.
    pub kernel_size: i64,
    /// Convolutions after which the frames are halved, counted from the first.
    pub downsample_layers: usize,
    /// Transformer blocks after them.
    pub num_layers: i64,
    /// Heads of those.
    pub num_heads: i64,
    /// Rate of dropout while training.
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
    halve: bool,
    skip: bool,
}

/// What padding lies below everything that a layer gives; within half precision.
const PADDING: f64 = 3e4;

/// Spectrogram `[batch, frames, bands]` → features `[batch, fewer frames, width]`; pooled `[batch, 2 · width]`.
pub struct AudioCnn {
    stages: Vec<Stage>,
    blocks: Option<Transformer>,
    attention: Linear,
    query: Tensor,
    width: i64,
    dropout: f64,
}

impl AudioCnn {
    /// The network under `scope` for spectrograms of `bands`.
    pub fn new(scope: &Scope<'_>, bands: i64, config: &AudioCnnConfig) -> Result<Self> {
        if config.channels.is_empty()
            || config.channels.iter().any(|c| *c < 1)
            || config.kernel_size < 1
            || config.kernel_size % 2 == 0
        {
            return Err(mm_core::Error::config(
                "channels, kernel_size",
                format!("{:?}, {}", config.channels, config.kernel_size),
                "at least one positive number of channels, and an odd kernel",
            ));
        }
        let mut input = bands;
        let mut stages = Vec::new();
        for (number, output) in config.channels.iter().enumerate() {
            let place = scope.pp("stages").pp(number);
            stages.push(Stage {
                conv: Conv1d::new(&place.pp("conv"), ConvConfig::same(input, *output, config.kernel_size))?,
                norm: BatchNorm::new(&place.pp("norm"), *output, 1e-5, 0.1)?,
                halve: number < config.downsample_layers,
                skip: input == *output,
            });
            input = *output;
        }
        let blocks = (config.num_layers > 0)
            .then(|| {
                let attention = AttentionConfig {
                    position: Position::Rotary { base: 1e4 },
                    ..AttentionConfig::new(input, config.num_heads)
                };
                let mlp = MlpConfig::new(2 * input, Activation::Gelu);
                let block =
                    BlockConfig { norm_first: true, dropout: config.dropout, ..BlockConfig::new(attention, mlp) };
                Transformer::new(
                    &scope.pp("encoder"),
                    &TransformerConfig { num_layers: config.num_layers, block, final_norm: true },
                )
            })
            .transpose()?;
        Ok(Self {
            stages,
            blocks,
            attention: Linear::new(&scope.pp("pool"), input, input, true)?,
            query: scope.param("pool_query", &[input], Init::Normal(1.0 / (input as f64).sqrt()))?,
            width: input,
            dropout: config.dropout,
        })
    }
}

impl Encoder for AudioCnn {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        // [batch, bands, 1, frames], in memory as it came: bands beside each other.
        let mut x = input.values.unsqueeze(1)?.permute(&[0, 3, 1, 2])?;
        let mut mask = input.mask.clone();
        // One for what counts and zero for padding, [batch, 1, 1, frames].
        let there = |mask: &Tensor, like: &Tensor| mask.unsqueeze(1)?.unsqueeze(1)?.to_dtype(like.dtype()?);
        let hide = |x: &Tensor, mask: &Option<Tensor>| -> Result<Tensor> {
            match mask {
                // Padding is put back to zero after each layer, so that a sound is the same however long its neighbours are.
                Some(mask) => x.mul(&there(mask, x)?),
                None => Ok(x.clone()),
            }
        };
        x = hide(&x, &mask)?;
        for stage in &self.stages {
            let mut y = stage.norm.forward(&stage.conv.forward_channels_last(&x)?, train)?.gelu()?; // [batch, channels, 1, frames]
            if stage.skip {
                y = y.add(&x)?;
            }
            if stage.halve && y.size(3)? > 1 {
                // Padding never wins the maximum, here or from the batch: an odd last frame keeps its value.
                if let Some(mask) = &mask {
                    y = y.add(&there(mask, &y)?.add_scalar(-1.0)?.mul_scalar(PADDING)?)?;
                }
                let odd = y.size(3)? % 2;
                y = y.max_pool2d([1, 2], [1, 2], [0, 0], true)?;
                mask = mask
                    .map(|m| {
                        m.pad(&[0, odd], 0.0)?
                            .reshape(&[m.size(0)?, -1, 2])?
                            .to_dtype(mm_core::DType::I64)?
                            .amax(2, false)?
                            .gt_scalar(0.0)
                    })
                    .transpose()?;
            }
            x = hide(&y, &mask)?;
        }
        let mut x = x.squeeze(2)?.transpose(1, 2)?.dropout(self.dropout, train)?; // [batch, frames, width]
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
        let mut scores =
            self.attention.forward(&features.values, train)?.tanh()?.mul(&self.query)?.sum_dim(&[-1], false)?; // [batch, frames]
        if let Some(mask) = &features.mask {
            scores = scores.masked_fill(&mask.logical_not()?, scores.dtype()?.mask_value())?;
        }
        let mixed = features.values.mul(&scores.softmax(1)?.unsqueeze(-1)?)?.sum_dim(&[1], false)?; // [batch, width]
        let vectors = Tensor::cat(&[&mixed, &features.pool(mm_core::Pooling::Max)?], -1)?;
        Ok((features, vectors))
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn embedding_dim(&self) -> i64 {
        self.width * 2
    }

    fn modality(&self) -> Modality {
        Modality::AUDIO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, Params};

    #[test]
    fn a_sound_is_the_same_whatever_it_is_batched_with() {
        let params = Params::new(Device::Cpu);
        let config = AudioCnnConfig {
            channels: vec![6, 6, 8],
            downsample_layers: 2,
            num_layers: 1,
            num_heads: 2,
            ..AudioCnnConfig::default()
        };
        let tower = AudioCnn::new(&params.scope(), 5, &config).unwrap();
        for frames in [1, 2, 7, 8, 13] {
            let alone = Tensor::randn(&[1, frames, 5], DType::F32, Device::Cpu).unwrap();
            let long = Tensor::randn(&[1, 16, 5], DType::F32, Device::Cpu).unwrap();
            let padded = Tensor::cat(&[&alone.pad(&[0, 0, 0, 16 - frames], 7.0).unwrap(), &long], 0).unwrap();
            let places = Tensor::arange(0, 16, Device::Cpu).unwrap();
            let mask = places.lt(&Tensor::from_slice(&[frames, 16]).unwrap().unsqueeze(1).unwrap()).unwrap();
            let one = tower.embed(&Input { values: alone, mask: None }, false).unwrap();
            let two = tower.embed(&Input { values: padded, mask: Some(mask) }, false).unwrap().narrow(0, 0, 1).unwrap();
            let off = one.sub(&two).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
            assert!(off < 1e-4, "{frames} frames: {off}");
        }
    }
}
