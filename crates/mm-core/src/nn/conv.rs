//! One- and two-dimensional convolutions; frozen ones with the batch normalization after them folded into the weights.

use super::{Activation, BatchNorm};
use crate::{
    ConvArgs, Init, Module, Result, Scope, Tensor,
    onednn::{self, ConvParams},
};
use serde::{Deserialize, Serialize};

/// Configuration of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvConfig {
    /// Number of input channels.
    pub in_channels: i64,
    /// Number of output channels.
    pub out_channels: i64,
    /// Size of the kernel, in samples or pixels.
    pub kernel_size: i64,
    /// Stride of the kernel.
    #[serde(default = "default_stride")]
    pub stride: i64,
    /// Zeros added on each side.
    #[serde(default)]
    pub padding: i64,
    /// Number of groups of channels that do not mix; as many as channels for a depthwise convolution.
    #[serde(default = "default_groups")]
    pub groups: i64,
    /// Whether it has a bias.
    #[serde(default)]
    pub bias: bool,
}

fn default_stride() -> i64 {
    1
}

fn default_groups() -> i64 {
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
        // For the rectifiers that follow (He et al., 2015, https://arxiv.org/abs/1502.01852).
        let weight = scope.param("weight", &shape, Init::Normal((2.0 / fan_in).sqrt()))?;
        let bias = self.bias.then(|| scope.param("bias", &[self.out_channels], Init::Zeros)).transpose()?;
        Ok((weight, bias))
    }
}

/// One-dimensional convolution of `[batch, channels, length]`.
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

    /// The convolution of `[batch, channels, 1, length]` in channels-last memory format: no layer transposes its input
    /// in memory, and pooling and normalization read adjacent channels.
    pub fn forward_channels_last(&self, input: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let weight = self.weight.unsqueeze(2)?;
        let (stride, padding) = ([1, c.stride], [0, c.padding]);
        let args = ConvArgs { stride, padding, groups: c.groups, ..ConvArgs::default() };
        input.conv2d(&weight, self.bias.as_ref(), args)
    }
}

impl Module for Conv1d {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        let c = &self.config;
        let (stride, padding) = ([c.stride], [c.padding]);
        let args = ConvArgs { stride, padding, groups: c.groups, ..ConvArgs::default() };
        input.conv1d(&self.weight, self.bias.as_ref(), args)
    }
}

/// Two-dimensional convolution of `[batch, channels, height, width]`.
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvConfig,
    /// Whether the weight is frozen.
    frozen: bool,
    /// Whether the weight is frozen and oneDNN has operators for it.
    use_onednn: bool,
}

impl Conv2d {
    /// A layer under `scope`.
    pub fn new(scope: &Scope<'_>, config: ConvConfig) -> Result<Self> {
        let (weight, bias) = config.weights(scope, &[config.kernel_size, config.kernel_size])?;
        if scope.is_frozen() {
            Self::frozen(weight, bias, config)
        } else {
            Ok(Self { weight, bias, config, frozen: false, use_onednn: false })
        }
    }

    fn frozen(weight: Tensor, bias: Option<Tensor>, config: ConvConfig) -> Result<Self> {
        let use_onednn = onednn::supports_weight(&weight);
        // Channels last: the layout of oneDNN's fused operators and of a GPU's tensor cores.
        let channels_last = use_onednn || weight.device() != crate::Device::Cpu;
        let weight =
            if channels_last { weight.permute(&[0, 2, 3, 1])?.contiguous()?.permute(&[0, 3, 1, 2])? } else { weight };
        Ok(Self { weight, bias, config, frozen: true, use_onednn })
    }

    /// A frozen layer under `scope` with the running statistics of a batch normalization folded into its weights, which
    /// saves a pass over the image.
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

    /// `activation(convolution(x) + residual)`, in one pass where oneDNN or cuDNN can. The result takes over the
    /// residual's memory where no other tensor refers to it.
    pub fn forward_fused(&self, input: &Tensor, activation: Activation, residual: Option<Tensor>) -> Result<Tensor> {
        let c = &self.config;
        let fits = input.rank() == 4 && input.size(1)? == c.in_channels;
        let residual_fits = residual.as_ref().is_none_or(|r| onednn::accepts_input(r, &self.weight));
        if self.use_onednn
            && fits
            && residual_fits
            && onednn::fuses_activation(activation)
            && onednn::accepts_input(input, &self.weight)
        {
            let params = ConvParams { padding: [c.padding; 2], stride: [c.stride; 2], groups: c.groups };
            // After a sum, oneDNN supports ReLU only.
            let sum = residual.is_some() && !matches!(activation, Activation::Identity | Activation::Relu);
            let (inside, after) =
                if sum { (Activation::Identity, activation) } else { (activation, Activation::Identity) };
            let bias = self.bias.as_ref();
            // oneDNN overwrites the residual.
            let residual = residual.map(Tensor::into_sole_owner).transpose()?;
            return after.apply(&onednn::convolution(input, &self.weight, bias, params, inside, residual.as_ref())?);
        }
        let bias = self.bias.as_ref();
        let on_gpu = self.frozen && activation == Activation::Relu && self.weight.device() != crate::Device::Cpu;
        if on_gpu && fits && residual_fits && onednn::accepts_input(input, &self.weight) {
            let params = [c.stride, c.padding, c.groups];
            if let Some(done) = input.conv2d_relu(&self.weight, bias, residual.as_ref(), params) {
                return Ok(done);
            }
        }
        let (stride, padding) = ([c.stride; 2], [c.padding; 2]);
        let args = ConvArgs { stride, padding, groups: c.groups, ..ConvArgs::default() };
        let x = input.conv2d(&self.weight, bias, args)?;
        activation.apply(&residual.map_or_else(|| Ok(x.clone()), |r| x.add(&r))?)
    }
}

impl Module for Conv2d {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        self.forward_fused(input, Activation::Identity, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device, Params, no_grad};

    #[test]
    fn a_residual_that_is_used_elsewhere_keeps_its_values() {
        let params = Params::new(Device::Cpu);
        let config = ConvConfig { bias: true, ..ConvConfig::same(4, 4, 3) };
        let conv = Conv2d::new(&params.scope().frozen(), config).unwrap();
        let x = Tensor::randn(&[2, 4, 8, 8], DType::F32, Device::Cpu).unwrap();
        let max_difference = |a: &Tensor, b: &Tensor| a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        let expected = no_grad(|| conv.forward(&x, false)?.add(&x)).unwrap();
        let before = x.copy().unwrap();
        // The input itself as the residual, and a view of a larger tensor.
        for activation in [Activation::Identity, Activation::Relu] {
            let found = no_grad(|| conv.forward_fused(&x, activation, Some(x.clone()))).unwrap();
            assert!(max_difference(&found, &activation.apply(&expected).unwrap()) < 1e-5);
            assert_eq!(max_difference(&x, &before), 0.0);
        }
        let both = Tensor::cat(&[&x, &x], 0).unwrap();
        let found = no_grad(|| conv.forward_fused(&x, Activation::Identity, Some(both.narrow(0, 2, 2)?))).unwrap();
        assert!(max_difference(&found, &expected) < 1e-5);
        assert_eq!(max_difference(&both.narrow(0, 2, 2).unwrap(), &before), 0.0);
    }
}
