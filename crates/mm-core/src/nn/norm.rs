//! Normalisation: layer (Ba 2016), root-mean-square (Zhang 2019), group (Wu 2018), batch (Ioffe 2015).

use crate::{Init, Module, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Which normalisation of the last dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Mean and variance.
    #[default]
    LayerNorm,
    /// Root mean square alone.
    RmsNorm,
}

/// A normalisation of the last dimension.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NormConfig {
    /// Which one.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
    /// Whether it also shifts (layer normalisation only).
    pub bias: bool,
}

impl Default for NormConfig {
    fn default() -> Self {
        Self { kind: NormKind::LayerNorm, eps: 1e-5, bias: true }
    }
}

/// Normalises the last dimension.
pub struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    config: NormConfig,
}

impl Norm {
    /// A layer with `weight` `[width]` and maybe `bias` `[width]` under `scope`.
    pub fn new(scope: &Scope<'_>, width: i64, config: NormConfig) -> Result<Self> {
        let bias = config.bias && config.kind == NormKind::LayerNorm;
        Ok(Self {
            weight: scope.param("weight", &[width], Init::Ones)?,
            bias: bias.then(|| scope.param("bias", &[width], Init::Zeros)).transpose()?,
            config,
        })
    }
}

impl Module for Norm {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        match self.config.kind {
            NormKind::LayerNorm => input.layer_norm(Some(&self.weight), self.bias.as_ref(), self.config.eps),
            NormKind::RmsNorm => input.rms_norm(Some(&self.weight), self.config.eps),
        }
    }
}

/// Normalises each channel of `[batch, channels, …]` by the batch while training, by its running statistics otherwise.
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: f64,
    momentum: f64,
}

impl BatchNorm {
    /// A layer over `channels`; `momentum` is the weight of the newest batch.
    pub fn new(scope: &Scope<'_>, channels: i64, epsilon: f64, momentum: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.param("weight", &[channels], Init::Ones)?,
            bias: scope.param("bias", &[channels], Init::Zeros)?,
            mean: scope.buffer("running_mean", &[channels], Init::Zeros)?,
            variance: scope.buffer("running_var", &[channels], Init::Ones)?,
            epsilon,
            momentum,
        })
    }

    /// The scale and shift that it amounts to outside training, for folding into the convolution before it.
    pub fn scale_and_shift(&self) -> Result<(Tensor, Tensor)> {
        let scale = self.variance.add_scalar(self.epsilon)?.rsqrt()?.mul(&self.weight)?;
        let shift = self.bias.sub(&self.mean.mul(&scale)?)?;
        Ok((scale, shift))
    }
}

impl Module for BatchNorm {
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        // One row with one place has no variance; libtorch would refuse it, and the running statistics serve.
        let rows = input.size(0)? * input.shape().iter().skip(2).product::<i64>();
        let train = train && rows > 1;
        input.batch_norm(&self.weight, &self.bias, &self.mean, &self.variance, train, self.momentum, self.epsilon)
    }
}

/// Normalises groups of channels of `[batch, channels, …]`.
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    epsilon: f64,
}

impl GroupNorm {
    /// A layer over `channels` in `groups`.
    pub fn new(scope: &Scope<'_>, groups: i64, channels: i64, epsilon: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.param("weight", &[channels], Init::Ones)?,
            bias: scope.param("bias", &[channels], Init::Zeros)?,
            groups,
            epsilon,
        })
    }
}

impl Module for GroupNorm {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        input.group_norm(self.groups, &self.weight, &self.bias, self.epsilon)
    }
}
