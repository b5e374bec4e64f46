//! Convolutions over time and over pictures, with the batch normalisation after them folded in outside training.

use super::{Activation, BatchNorm};
use crate::{
    Init, Module, Result, Scope, Tensor,
    kernels::{self, Window},
};
use serde::{Deserialize, Serialize};

/// Sizes of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvConfig {
    /// Channels in.
    pub in_channels: i64,
    /// Channels out.
    pub out_channels: i64,
    /// Window, in samples or pixels.
    pub kernel_size: i64,
    /// Step of the window.
    #[serde(default = "one")]
    pub stride: i64,
    /// Zeros added on each side.
    #[serde(default)]
    pub padding: i64,
    /// Groups of channels that do not mix (the number of channels: depthwise).
    #[serde(default = "one")]
    pub groups: i64,
    /// Whether it has a bias.
    #[serde(default)]
    pub bias: bool,
}

fn one() -> i64 {
    1
}

impl ConvConfig {
    /// A convolution of stride one without bias that keeps the size (odd kernels).
    pub fn same(input: i64, output: i64, kernel: i64) -> Self {
        Self {
            in_channels: input,
            out_channels: output,
            kernel_size: kernel,
            stride: 1,
            padding: kernel / 2,
            groups: 1,
            bias: false,
        }
    }

    fn weights(&self, scope: &Scope<'_>, kernel: &[i64]) -> Result<(Tensor, Option<Tensor>)> {
        let inner = self.in_channels / self.groups.max(1);
        let fan_in = (inner * kernel.iter().product::<i64>()).max(1) as f64;
        let shape: Vec<i64> = [self.out_channels, inner].into_iter().chain(kernel.iter().copied()).collect();
        // He 2015, for the rectifiers that follow.
        let weight = scope.param("weight", &shape, Init::Normal((2.0 / fan_in).sqrt()))?;
        let bias = self.bias.then(|| scope.param("bias", &[self.out_channels], Init::Zeros)).transpose()?;
        Ok((weight, bias))
    }
}

/// Convolution over time: `[batch, channels, length]`.
pub struct Conv1d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvConfig,
}

impl Conv1d {
    /// A layer under `scope`.
    pub fn new(scope: &Scope<'_>, config: ConvConfig) -> Result<Self> {
        let (weight, bias) = config.weights(scope, &[config.kernel_size])?;
        Ok(Self { weight, bias, config })
    }

    /// The same over `[batch, channels, 1, length]`: laid channels last (`[batch, length, channels]` seen from there) nothing is
    /// turned around in memory between layers, and pooling and normalisation take channels side by side.
    pub fn forward_channels_last(&self, input: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let weight = self.weight.unsqueeze(2)?;
        input.conv2d(&weight, self.bias.as_ref(), [1, c.stride], [0, c.padding], c.groups)
    }
}

impl Module for Conv1d {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        let c = &self.config;
        input.conv1d(&self.weight, self.bias.as_ref(), c.stride, c.padding, 1, c.groups)
    }
}

/// Convolution over pictures: `[batch, channels, height, width]`.
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvConfig,
    /// Whether it is frozen.
    frozen: bool,
    /// Whether it is, and the processor has fused operators for it.
    served: bool,
}

impl Conv2d {
    /// A layer under `scope`.
    pub fn new(scope: &Scope<'_>, config: ConvConfig) -> Result<Self> {
        let (weight, bias) = config.weights(scope, &[config.kernel_size, config.kernel_size])?;
        if scope.is_frozen() {
            Self::frozen(weight, bias, config)
        } else {
            Ok(Self { weight, bias, config, frozen: false, served: false })
        }
    }

    fn frozen(weight: Tensor, bias: Option<Tensor>, config: ConvConfig) -> Result<Self> {
        let served = kernels::serve(&weight);
        // Channels last: what the processor's fused operators take, and what a GPU's tensor cores multiply without laying it out anew.
        let last = served || weight.device() != crate::Device::Cpu;
        let weight = if last { weight.permute(&[0, 2, 3, 1])?.contiguous()?.permute(&[0, 3, 1, 2])? } else { weight };
        Ok(Self { weight, bias, config, frozen: true, served })
    }

    /// A frozen layer under `scope` with a batch normalisation's running statistics folded into its weights: one pass over the picture
    /// fewer.
    pub fn with_folded_batch_norm(scope: &Scope<'_>, config: ConvConfig, norm: &BatchNorm) -> Result<Self> {
        let (weight, bias) = config.weights(scope, &[config.kernel_size, config.kernel_size])?;
        let (scale, shift) = norm.scale_and_shift()?;
        let weight = weight.mul(&scale.reshape(&[-1, 1, 1, 1])?)?;
        let bias = match bias {
            Some(bias) => bias.mul(&scale)?.add(&shift)?,
            None => shift,
        };
        Self::frozen(weight, Some(bias), config)
    }

    /// `activation(convolution(x) + residual)`, in one pass where the processor can. A residual is given away: its memory may be
    /// used for the result.
    pub fn forward_fused(&self, input: &Tensor, activation: Activation, residual: Option<Tensor>) -> Result<Tensor> {
        let c = &self.config;
        let fits = input.rank() == 4 && input.size(1)? == c.in_channels;
        let whole = residual.as_ref().is_none_or(|r| kernels::take(r, &self.weight));
        if self.served && fits && whole && kernels::fuses(activation) && kernels::take(input, &self.weight) {
            let window = Window { padding: [c.padding; 2], stride: [c.stride; 2], groups: c.groups };
            // After a sum oneDNN knows the rectifier alone.
            let sum = residual.is_some() && !matches!(activation, Activation::Identity | Activation::Relu);
            let (inside, after) =
                if sum { (Activation::Identity, activation) } else { (activation, Activation::Identity) };
            let bias = self.bias.as_ref();
            return after.apply(&kernels::convolution(input, &self.weight, bias, window, inside, residual.as_ref())?);
        }
        let bias = self.bias.as_ref();
        let on_gpu = self.frozen && activation == Activation::Relu && self.weight.device() != crate::Device::Cpu;
        if on_gpu && fits && whole && kernels::take(input, &self.weight) {
            let numbers = [c.stride, c.padding, c.groups];
            if let Some(done) = input.conv2d_relu(&self.weight, bias, residual.as_ref(), numbers) {
                return Ok(done);
            }
        }
        let x = input.conv2d(&self.weight, bias, [c.stride; 2], [c.padding; 2], c.groups)?;
        activation.apply(&residual.map_or_else(|| Ok(x.clone()), |r| x.add(&r))?)
    }
}

impl Module for Conv2d {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        self.forward_fused(input, Activation::Identity, None)
    }
}
