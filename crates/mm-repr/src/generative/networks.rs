//! Encoder and decoder networks: fully connected on vectors, convolutional on images and spectrograms (the shape of
//! DCGAN, [Radford et al., 2016](https://arxiv.org/abs/1511.06434), upsampling by nearest neighbors instead of
//! transposed convolutions, [Odena et al., 2016](https://doi.org/10.23915/distill.00003)).

use super::spec::{InputSpec, ValueType};
use mm_core::{
    Error, Interpolation, Module, Result, Scope, Tensor,
    nn::{Conv2d, ConvConfig, GroupNorm, Linear, Norm, NormConfig},
};
use serde::{Deserialize, Serialize};

/// Layer sizes of the encoder and the decoder of a modality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Dimensions of the fully connected layers of the encoder; the decoder has them in reverse order.
    pub hidden_dims: Vec<i64>,
    /// Channels of the convolutions on images, each of which halves height and width; empty for a fully connected
    /// network.
    pub channels: Vec<i64>,
    /// Dropout after each fully connected layer.
    pub dropout: f64,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { hidden_dims: vec![256], channels: Vec::new(), dropout: 0.0 }
    }
}

impl NetworkConfig {
    fn validate(&self, spec: &InputSpec) -> Result<()> {
        let mut sizes = self.hidden_dims.iter().chain(&self.channels);
        if sizes.any(|size| *size < 1) || !(0.0..1.0).contains(&self.dropout) {
            let found = format!("{:?}, {:?}, {}", self.hidden_dims, self.channels, self.dropout);
            let expected = "positive sizes and a dropout in [0, 1)";
            return Err(Error::config("network.hidden_dims, channels, dropout", found, expected));
        }
        if !self.channels.is_empty() {
            let shape = &spec.shape;
            let stride = 1i64 << self.channels.len();
            if shape.len() != 3 || shape[1] % stride != 0 || shape[2] % stride != 0 {
                let expected = format!(
                    "images whose height and width are multiples of {stride}, for {} strided convolutions",
                    self.channels.len()
                );
                return Err(Error::config("network.channels", format!("values of shape {shape:?}"), expected));
            }
        }
        Ok(())
    }
}

/// Number of groups of a group normalization.
fn num_groups(channels: i64) -> i64 {
    [8, 4, 2].into_iter().find(|groups| channels % groups == 0).unwrap_or(1)
}

/// 3 × 3 convolution, group normalization, SiLU.
struct ConvBlock {
    conv: Conv2d,
    norm: GroupNorm,
}

impl ConvBlock {
    fn new(scope: &Scope<'_>, in_channels: i64, out_channels: i64, stride: i64) -> Result<Self> {
        let config = ConvConfig { stride, bias: true, ..ConvConfig::same(in_channels, out_channels, 3) };
        Ok(Self {
            conv: Conv2d::new(&scope.pp("conv"), config)?,
            norm: GroupNorm::new(&scope.pp("norm"), num_groups(out_channels), out_channels, 1e-5)?,
        })
    }
}

impl Module for ConvBlock {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.norm.forward(&self.conv.forward(x, train)?, train)?.silu()
    }
}

/// Linear layers, each followed by layer normalization, GELU and dropout.
struct Mlp {
    layers: Vec<(Linear, Norm)>,
    dropout: f64,
}

impl Mlp {
    fn new(scope: &Scope<'_>, dims: &[i64], dropout: f64) -> Result<Self> {
        let layers = dims.windows(2).enumerate().map(|(index, pair)| {
            let scope = scope.pp(index);
            let norm = Norm::new(&scope.pp("norm"), pair[1], NormConfig::default())?;
            Ok((Linear::new(&scope.pp("linear"), pair[0], pair[1], true)?, norm))
        });
        Ok(Self { layers: layers.collect::<Result<_>>()?, dropout })
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = x.clone();
        for (linear, norm) in &self.layers {
            x = norm.forward(&linear.forward(&x, train)?, train)?.gelu()?.dropout(self.dropout, train)?;
        }
        Ok(x)
    }
}

/// Values `[rows, …]` → `[rows, out_dim]`: convolutions, fully connected layers, a linear projection.
pub struct EncoderNet {
    conv_blocks: Vec<ConvBlock>,
    mlp: Mlp,
    projection: Option<Linear>,
}

impl EncoderNet {
    /// The network under `scope`; without the projection when `out_dim` is `None`.
    ///
    /// # Errors
    /// A size is not positive, or convolutions do not fit the shape.
    pub fn new(
        scope: &Scope<'_>,
        spec: &InputSpec,
        out_dim: impl Into<Option<i64>>,
        config: &NetworkConfig,
    ) -> Result<Self> {
        config.validate(spec)?;
        let mut conv_blocks = Vec::new();
        let mut flat_dim = spec.numel();
        if let Some(in_channels) = spec.shape.first().filter(|_| !config.channels.is_empty()) {
            let mut channels = *in_channels;
            for (index, out_channels) in config.channels.iter().enumerate() {
                let scope = scope.pp("conv_blocks").pp(index);
                conv_blocks.push(ConvBlock::new(&scope, channels, *out_channels, 2)?);
                channels = *out_channels;
            }
            flat_dim = channels * (spec.shape[1] >> conv_blocks.len()) * (spec.shape[2] >> conv_blocks.len());
        }
        let dims: Vec<i64> = std::iter::once(flat_dim).chain(config.hidden_dims.iter().copied()).collect();
        let mlp = Mlp::new(&scope.pp("mlp"), &dims, config.dropout)?;
        let projection = |out_dim| Linear::new(&scope.pp("projection"), dims[dims.len() - 1], out_dim, true);
        Ok(Self { conv_blocks, mlp, projection: out_dim.into().map(projection).transpose()? })
    }

    /// The output of the convolutions, `[rows, channels, height, width]`; the input itself without convolutions.
    pub fn feature_map(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = x.clone();
        for block in &self.conv_blocks {
            x = block.forward(&x, train)?;
        }
        Ok(x)
    }
}

impl Module for EncoderNet {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.feature_map(x, train)?.flatten(1, -1)?; // [rows, flat_dim]
        let x = self.mlp.forward(&x, train)?;
        self.projection.as_ref().map_or_else(|| Ok(x.clone()), |projection| projection.forward(&x, train))
    }
}

/// Latents `[rows, in_dim]` → values `[rows, …]`: pixels in [0, 1], logits of binary values, or real values.
pub struct DecoderNet {
    mlp: Mlp,
    projection: Option<Linear>,
    conv_blocks: Vec<ConvBlock>,
    output_conv: Option<Conv2d>,
    /// Shape of the feature map that the upsampling starts from, `[channels, height, width]`.
    feature_map_shape: [i64; 3],
    spec: InputSpec,
}

impl DecoderNet {
    /// The network under `scope`; only for feature maps ([`DecoderNet::upsample`]) when `in_dim` is `None`.
    ///
    /// # Errors
    /// A size is not positive, or convolutions do not fit the shape.
    pub fn new(
        scope: &Scope<'_>,
        in_dim: impl Into<Option<i64>>,
        spec: &InputSpec,
        config: &NetworkConfig,
    ) -> Result<Self> {
        config.validate(spec)?;
        let in_dim: Option<i64> = in_dim.into();
        let dims: Vec<i64> = in_dim.into_iter().chain(config.hidden_dims.iter().rev().copied()).collect();
        let mut channels: Vec<i64> = config.channels.iter().rev().copied().collect();
        let num_blocks = channels.len();
        let (mut conv_blocks, mut output_conv) = (Vec::new(), None);
        let mut feature_map_shape = [spec.numel(), 1, 1];
        if let Some(&first) = channels.first() {
            feature_map_shape = [first, spec.shape[1] >> num_blocks, spec.shape[2] >> num_blocks];
            channels.push(channels[num_blocks - 1]);
            for (index, pair) in channels.windows(2).enumerate() {
                conv_blocks.push(ConvBlock::new(&scope.pp("conv_blocks").pp(index), pair[0], pair[1], 1)?);
            }
            let config = ConvConfig { bias: true, ..ConvConfig::same(channels[num_blocks], spec.shape[0], 3) };
            output_conv = Some(Conv2d::new(&scope.pp("output_conv"), config)?);
        }
        let mlp = Mlp::new(&scope.pp("mlp"), &dims, config.dropout)?;
        let flat_dim = feature_map_shape.iter().product();
        let projection = |_| Linear::new(&scope.pp("projection"), dims[dims.len() - 1], flat_dim, true);
        let projection = in_dim.map(projection).transpose()?;
        Ok(Self { mlp, projection, conv_blocks, output_conv, feature_map_shape, spec: spec.clone() })
    }

    /// Values from a feature map `[rows, channels, height, width]`, as returned by [`EncoderNet::feature_map`].
    pub fn upsample(&self, feature_map: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = feature_map.clone();
        for block in &self.conv_blocks {
            let size = [x.size(2)? * 2, x.size(3)? * 2];
            x = block.forward(&x.interpolate(size, Interpolation::Nearest)?, train)?;
        }
        if let Some(output_conv) = &self.output_conv {
            x = output_conv.forward(&x, train)?;
        }
        let shape: Vec<i64> = std::iter::once(-1).chain(self.spec.shape.iter().copied()).collect();
        let x = x.reshape(&shape)?;
        if self.spec.value_type == ValueType::UnitInterval { x.sigmoid() } else { Ok(x) }
    }
}

impl Module for DecoderNet {
    fn forward(&self, latent: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = self.mlp.forward(latent, train)?;
        if let Some(projection) = &self.projection {
            x = projection.forward(&x, train)?;
        }
        let [channels, height, width] = self.feature_map_shape;
        self.upsample(&x.reshape(&[-1, channels, height, width])?, train)
    }
}
