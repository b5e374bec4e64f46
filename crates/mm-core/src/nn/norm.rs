//! Normalization layers.
//!
//! *Layer Normalization* (Ba et al., 2016), <https://arxiv.org/abs/1607.06450>; *Root Mean Square Layer Normalization*
//! (Zhang & Sennrich, 2019), <https://arxiv.org/abs/1910.07467>; *Group Normalization* (Wu & He, 2018),
//! <https://arxiv.org/abs/1803.08494>; *Batch Normalization* (Ioffe & Szegedy, 2015),
//! <https://arxiv.org/abs/1502.03167>.

use crate::{
    BatchNormArgs, Init, Module, Result, Scope, Tensor,
    distributed::{ProcessGroup, process_group},
};
use serde::{Deserialize, Serialize};

/// Kind of normalization of the last dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// By mean and variance.
    #[default]
    LayerNorm,
    /// By the root mean square only.
    RmsNorm,
}

/// Configuration of a [`Norm`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NormConfig {
    /// Kind of normalization.
    pub kind: NormKind,
    /// Added to the variance for numerical stability.
    pub eps: f64,
    /// Whether it has a bias (layer normalization only).
    pub bias: bool,
}

impl Default for NormConfig {
    fn default() -> Self {
        Self { kind: NormKind::LayerNorm, eps: 1e-5, bias: true }
    }
}

/// Normalizes the last dimension.
pub struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    config: NormConfig,
}

impl Norm {
    /// A layer with `weight` `[dim]` and maybe `bias` `[dim]` under `scope`.
    pub fn new(scope: &Scope<'_>, dim: i64, config: NormConfig) -> Result<Self> {
        let bias = config.bias && config.kind == NormKind::LayerNorm;
        Ok(Self {
            weight: scope.param("weight", &[dim], Init::Ones)?,
            bias: bias.then(|| scope.param("bias", &[dim], Init::Zeros)).transpose()?,
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

/// Normalizes each channel of `[batch, channels, …]`, by the statistics of the batch during training (of the batches of
/// all processes that train together, as `SyncBatchNorm`) and by running statistics otherwise.
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: f64,
    momentum: f64,
}

impl BatchNorm {
    /// A layer over `channels`; `momentum` is the weight of the newest batch in the running statistics.
    pub fn new(scope: &Scope<'_>, channels: i64, eps: f64, momentum: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.param("weight", &[channels], Init::Ones)?,
            bias: scope.param("bias", &[channels], Init::Zeros)?,
            mean: scope.buffer("running_mean", &[channels], Init::Zeros)?,
            variance: scope.buffer("running_var", &[channels], Init::Ones)?,
            eps,
            momentum,
        })
    }

    /// By the statistics of the batches of all processes.
    fn forward_synchronized(&self, input: &Tensor, group: &dyn ProcessGroup) -> Result<Tensor> {
        let [output, mean, variance] = group.batch_norm(input, &self.weight, &self.bias, self.eps)?;
        let average = |running: &Tensor, new: &Tensor| running.scale_add_(1.0 - self.momentum, new, self.momentum);
        average(&self.mean, &mean)?;
        average(&self.variance, &variance)?;
        Ok(output)
    }

    /// The scale and shift that it applies outside training, to be folded into the convolution before it.
    pub fn scale_and_shift(&self) -> Result<(Tensor, Tensor)> {
        let scale = self.variance.add_scalar(self.eps)?.rsqrt()?.mul(&self.weight)?;
        let shift = self.bias.sub(&self.mean.mul(&scale)?)?;
        Ok((scale, shift))
    }
}

impl Module for BatchNorm {
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        if let Some(group) = process_group().filter(|_| train) {
            return self.forward_synchronized(input, group.as_ref());
        }
        // A single value per channel has no variance, which libtorch rejects; the running statistics are used instead.
        let rows = input.size(0)? * input.shape().iter().skip(2).product::<i64>();
        let train = train && rows > 1;
        let Self { weight, bias, mean, variance, momentum, eps, .. } = self;
        input.batch_norm(BatchNormArgs { weight, bias, mean, variance, train, momentum: *momentum, eps: *eps })
    }
}

/// Normalizes groups of channels of `[batch, channels, …]`.
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// A layer over `channels` channels in `groups` groups.
    pub fn new(scope: &Scope<'_>, groups: i64, channels: i64, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: scope.param("weight", &[channels], Init::Ones)?,
            bias: scope.param("bias", &[channels], Init::Zeros)?,
            groups,
            eps,
        })
    }
}

impl Module for GroupNorm {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        input.group_norm(self.groups, &self.weight, &self.bias, self.eps)
    }
}
