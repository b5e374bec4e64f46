//! The discriminator and its gradient penalties.

use super::{gan_loss::GanLoss, spectral_norm::SpectralNorm};
use crate::generative::InputSpec;
use mm_core::{DType, Error, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of a [`Discriminator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscriminatorConfig {
    /// Channels of the convolutions on images, each of which halves height and width; empty for vectors.
    pub channels: Vec<i64>,
    /// Dimensions of the fully connected layers.
    pub hidden_dims: Vec<i64>,
    /// Whether all weights have spectral normalization.
    pub spectral_norm: bool,
    /// The losses of discriminator and generator.
    pub loss: GanLoss,
    /// Weight γ of the R1 penalty γ/2 ‖∇D(x)‖² at real samples. *Which Training Methods for GANs do actually Converge?*
    /// ([Mescheder et al., 2018](https://arxiv.org/abs/1801.04406)).
    pub r1_gamma: f64,
    /// Weight λ of the penalty λ (‖∇D(x)‖ − 1)² between real and generated samples: WGAN-GP, *Improved Training of
    /// Wasserstein GANs* ([Gulrajani et al., 2017](https://arxiv.org/abs/1704.00028)).
    pub gradient_penalty_weight: f64,
}

impl Default for DiscriminatorConfig {
    fn default() -> Self {
        Self {
            channels: Vec::new(),
            hidden_dims: vec![128],
            spectral_norm: true,
            loss: GanLoss::default(),
            r1_gamma: 0.0,
            gradient_penalty_weight: 0.0,
        }
    }
}

impl DiscriminatorConfig {
    fn validate(&self, spec: &InputSpec) -> Result<()> {
        let is_valid = self.hidden_dims.iter().chain(&self.channels).all(|size| *size > 0)
            && self.r1_gamma >= 0.0
            && self.gradient_penalty_weight >= 0.0;
        let stride = 1i64 << self.channels.len();
        let fits = spec.shape.len() == 3 && spec.shape[1] % stride == 0 && spec.shape[2] % stride == 0;
        if !is_valid || (!self.channels.is_empty() && !fits) {
            let found = format!(
                "{:?}, {:?}, {}, {}, values of shape {:?}",
                self.channels, self.hidden_dims, self.r1_gamma, self.gradient_penalty_weight, spec.shape
            );
            let expected = "positive sizes, no negative weight, and for convolutions images whose height and width can \
                            be halved by each";
            let field = "discriminator.channels, hidden_dims, r1_gamma, gradient_penalty_weight";
            return Err(Error::config(field, found, expected));
        }
        Ok(())
    }
}

fn leaky_relu(x: &Tensor) -> Result<Tensor> {
    x.leaky_relu(0.2)
}

/// Values, and optionally a condition vector per row → a score `[rows]`.
pub struct Discriminator {
    convs: Vec<SpectralNorm>,
    linears: Vec<SpectralNorm>,
    pub(super) head: SpectralNorm,
    feature_dim: i64,
}

impl Discriminator {
    /// The network under `scope`; `condition_dim` is the dimension of the condition, 0 without one.
    ///
    /// # Errors
    /// A setting is out of range, or convolutions do not fit the shape.
    pub fn new(scope: &Scope<'_>, spec: &InputSpec, condition_dim: i64, config: &DiscriminatorConfig) -> Result<Self> {
        config.validate(spec)?;
        let layer = |scope: Scope<'_>, shape: &[i64]| SpectralNorm::new(&scope, shape, config.spectral_norm);
        let (mut convs, mut dim) = (Vec::new(), spec.numel());
        if !config.channels.is_empty() {
            let mut channels = spec.shape[0];
            for (index, out_channels) in config.channels.iter().enumerate() {
                convs.push(layer(scope.pp("convs").pp(index), &[*out_channels, channels, 4, 4])?);
                channels = *out_channels;
            }
            dim = channels * (spec.shape[1] >> convs.len()) * (spec.shape[2] >> convs.len());
        }
        let mut linears = Vec::new();
        let mut feature_dim = dim + condition_dim;
        for (index, out_dim) in config.hidden_dims.iter().enumerate() {
            linears.push(layer(scope.pp("linears").pp(index), &[*out_dim, feature_dim])?);
            feature_dim = *out_dim;
        }
        let head = layer(scope.pp("head"), &[1, feature_dim])?;
        Ok(Self { convs, linears, head, feature_dim })
    }

    /// The activations before the head, `[rows, feature_dim]`.
    pub fn features(&self, x: &Tensor, condition: Option<&Tensor>, train: bool) -> Result<Tensor> {
        let mut x = if self.convs.is_empty() { x.clone() } else { x.channels_last()? };
        for conv in &self.convs {
            x = leaky_relu(&conv.conv2d(&x, train)?)?;
        }
        x = x.flatten(1, -1)?;
        if let Some(condition) = condition {
            x = Tensor::cat(&[&x, condition], 1)?;
        }
        for linear in &self.linears {
            x = leaky_relu(&linear.linear(&x, train)?)?;
        }
        Ok(x)
    }

    /// Scores `[rows]`.
    pub fn score(&self, x: &Tensor, condition: Option<&Tensor>, train: bool) -> Result<Tensor> {
        self.head.linear(&self.features(x, condition, train)?, train)?.squeeze(-1)
    }

    /// Scores of real and generated samples, `[rows]` each, in one pass, so that the weights are normalized only once.
    pub fn scores(
        &self,
        real: (&Tensor, Option<&Tensor>),
        fake: (&Tensor, Option<&Tensor>),
        train: bool,
    ) -> Result<(Tensor, Tensor)> {
        let condition = match (real.1, fake.1) {
            (Some(real), Some(fake)) => Some(Tensor::cat(&[real, fake], 0)?),
            _ => None,
        };
        let scores = self.score(&Tensor::cat(&[real.0, fake.0], 0)?, condition.as_ref(), train)?;
        let rows = real.0.size(0)?;
        Ok((scores.narrow(0, 0, rows)?, scores.narrow(0, rows, fake.0.size(0)?)?))
    }

    /// Dimension of the features.
    pub fn dim(&self) -> i64 {
        self.feature_dim
    }

    /// The sum of the configured gradient penalties; `None` without any. The penalty between real and generated samples
    /// pairs them row by row, as far as the shorter of both goes.
    pub fn penalty(
        &self,
        config: &DiscriminatorConfig,
        real: &Tensor,
        fake: &Tensor,
        condition: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        let mut total: Option<Tensor> = None;
        if config.r1_gamma > 0.0 {
            let x = real.detach()?.set_requires_grad(true)?;
            let penalty = self.squared_gradient_norms(&x, condition)?.mean()?;
            total = Some(penalty.mul_scalar(config.r1_gamma / 2.0)?);
        }
        if config.gradient_penalty_weight > 0.0 {
            let rows = real.size(0)?.min(fake.size(0)?);
            let (real, fake) = (real.narrow(0, 0, rows)?, fake.narrow(0, 0, rows)?);
            let condition = condition.map(|c| c.narrow(0, 0, rows)).transpose()?;
            let shape: Vec<i64> = std::iter::once(rows).chain(std::iter::repeat_n(1, real.rank() - 1)).collect();
            let ratio = Tensor::rand(&shape, DType::F32, real.device())?;
            let x = real.sub(&fake)?.mul(&ratio)?.add(&fake)?.detach()?.set_requires_grad(true)?;
            let norms = self.squared_gradient_norms(&x, condition.as_ref())?.add_scalar(1e-12)?.sqrt()?;
            let penalty = norms.add_scalar(-1.0)?.pow(2.0)?.mean()?.mul_scalar(config.gradient_penalty_weight)?;
            total = Some(total.map_or_else(|| Ok(penalty.clone()), |t| t.add(&penalty))?);
        }
        Ok(total)
    }

    /// ‖∇D(x)‖² of each row, `[rows]`.
    fn squared_gradient_norms(&self, x: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        let gradient = self.score(x, condition, true)?.sum()?.autograd_grad(&[x])?;
        gradient[0].pow(2.0)?.flatten(1, -1)?.sum_dim(&[1], false)
    }
}

/// A discriminator, and a detached copy with the same weights through which the generator is trained.
pub(super) struct DiscriminatorPair {
    pub(super) trainable: Discriminator,
    detached: Discriminator,
    config: DiscriminatorConfig,
}

impl DiscriminatorPair {
    /// A discriminator under `scope`.
    pub(super) fn new(
        scope: &Scope<'_>,
        spec: &InputSpec,
        condition_dim: i64,
        config: &DiscriminatorConfig,
    ) -> Result<Self> {
        Ok(Self {
            trainable: Discriminator::new(scope, spec, condition_dim, config)?,
            detached: Discriminator::new(&scope.detached(), spec, condition_dim, config)?,
            config: config.clone(),
        })
    }

    /// The discriminator's loss from scores of real and generated samples.
    pub(super) fn loss(&self, real: &Tensor, fake: &Tensor) -> Result<Tensor> {
        self.config.loss.discriminator(real, fake)
    }

    /// Adds the gradient penalties to the discriminator's loss in training; `fake` must be detached from the generator.
    pub(super) fn add_penalty(
        &self,
        loss: Tensor,
        real: (&Tensor, Option<&Tensor>),
        fake: &Tensor,
        train: bool,
    ) -> Result<Tensor> {
        match if train { self.trainable.penalty(&self.config, real.0, fake, real.1)? } else { None } {
            Some(penalty) => loss.add(&penalty),
            None => Ok(loss),
        }
    }

    /// Scores whose gradients reach the samples and not the discriminator.
    pub(super) fn detached_score(&self, x: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        self.detached.score(x, condition, false)
    }

    /// The generator's loss on generated samples.
    pub(super) fn generator_loss(&self, fake: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        self.config.loss.generator(&self.detached_score(fake, condition)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generative::ValueType;
    use mm_core::{Device, Params};

    #[test]
    fn penalties_equal_the_squared_gradient_norm_and_reach_the_weights() {
        let params = Params::new(Device::Cpu);
        let spec = InputSpec { shape: vec![3], value_type: ValueType::Real };
        let config =
            DiscriminatorConfig { hidden_dims: vec![], spectral_norm: false, r1_gamma: 2.0, ..Default::default() };
        let discriminator = Discriminator::new(&params.scope(), &spec, 0, &config).unwrap();
        let x = Tensor::randn(&[4, 3], DType::F32, Device::Cpu).unwrap();
        // The gradient of a linear discriminator is its weight everywhere.
        let weight = discriminator.head.weight.to_vec::<f64>().unwrap();
        let squares: f64 = weight.iter().map(|w| w * w).sum();
        let penalty = discriminator.penalty(&config, &x, &x, None).unwrap().unwrap();
        assert!((penalty.to_f64().unwrap() - squares).abs() < 1e-5);
        penalty.backward().unwrap();
        let grad = discriminator.head.weight.grad().unwrap().to_vec::<f64>().unwrap();
        assert!(grad.iter().zip(&weight).all(|(g, w)| (g - 2.0 * w).abs() < 1e-4));
        let config = DiscriminatorConfig { r1_gamma: 0.0, gradient_penalty_weight: 3.0, ..config };
        let penalty = discriminator.penalty(&config, &x, &x, None).unwrap().unwrap().to_f64().unwrap();
        assert!((penalty - 3.0 * (squares.sqrt() - 1.0).powi(2)).abs() < 1e-4);
    }

    #[test]
    fn a_detached_copy_gives_the_same_scores_and_receives_no_gradient() {
        let params = Params::new(Device::Cpu);
        let spec = InputSpec { shape: vec![3, 8, 8], value_type: ValueType::UnitInterval };
        let config = DiscriminatorConfig { channels: vec![4], hidden_dims: vec![6], ..Default::default() };
        let trainable = Discriminator::new(&params.scope(), &spec, 0, &config).unwrap();
        let detached = Discriminator::new(&params.scope().detached(), &spec, 0, &config).unwrap();
        let x = Tensor::rand(&[2, 3, 8, 8], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let equal = |a: &Discriminator, b: &Discriminator| {
            let difference = a.score(&x, None, false).unwrap().sub(&b.score(&x, None, false).unwrap()).unwrap();
            difference.abs().unwrap().max().unwrap().to_f64().unwrap() == 0.0
        };
        assert!(equal(&trainable, &detached));
        detached.score(&x, None, false).unwrap().sum().unwrap().backward().unwrap();
        assert!(x.grad().is_some() && trainable.head.weight.grad().is_none());
        trainable.head.weight.mul_scalar_(3.0).unwrap();
        trainable.head.bias.copy_(&Tensor::from_slice(&[0.5f32]).unwrap()).unwrap();
        assert!(equal(&trainable, &detached));
    }
}
