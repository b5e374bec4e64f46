//! The discriminator: a network whose steepness is bounded by spectral normalisation (Miyato 2018), the losses that it and the maker are
//! given, and the penalties on its gradient.

use crate::generative::InputSpec;
use mm_core::{DType, Error, Init, Result, Scope, Tensor, no_grad};
use serde::{Deserialize, Serialize};

/// What discriminator and maker minimise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GanLoss {
    /// Logistic, the maker maximising the discriminator's belief (Goodfellow 2014).
    #[default]
    NonSaturating,
    /// Squares (LSGAN, Mao 2017).
    LeastSquares,
    /// Hinge (Lim 2017).
    Hinge,
    /// Difference of means (Arjovsky 2017); with a gradient penalty it is WGAN-GP (Gulrajani 2017).
    Wasserstein,
}

impl GanLoss {
    /// The discriminator's loss from its scores of what is real and what is made.
    pub fn discriminator(self, real: &Tensor, made: &Tensor) -> Result<Tensor> {
        let (real, made) = match self {
            Self::NonSaturating => (real.neg()?.softplus()?, made.softplus()?),
            Self::LeastSquares => (real.add_scalar(-1.0)?.pow(2.0)?, made.pow(2.0)?),
            Self::Hinge => (real.neg()?.add_scalar(1.0)?.relu()?, made.add_scalar(1.0)?.relu()?),
            Self::Wasserstein => (real.neg()?, made.clone()),
        };
        real.mean()?.add(&made.mean()?)
    }

    /// The maker's loss from the discriminator's scores of what it made.
    pub fn generator(self, made: &Tensor) -> Result<Tensor> {
        match self {
            Self::NonSaturating => made.neg()?.softplus()?.mean(),
            Self::LeastSquares => made.add_scalar(-1.0)?.pow(2.0)?.mean(),
            Self::Hinge | Self::Wasserstein => made.neg()?.mean(),
        }
    }
}

/// Sizes and bounds of a [`Discriminator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscriminatorConfig {
    /// Channels of the convolutions on pictures, each halving the sides; none on vectors.
    pub channels: Vec<i64>,
    /// Widths of the layers after them.
    pub hidden_dims: Vec<i64>,
    /// Whether each layer's largest singular value is kept at one.
    pub spectral_norm: bool,
    /// What it and the maker minimise.
    pub loss: GanLoss,
    /// Weight of the squared gradient at what is real (R1, Mescheder 2018).
    pub r1_gamma: f64,
    /// Weight of (gradient's length − 1)² between what is real and what is made (Gulrajani 2017).
    pub gradient_penalty_weight: f64,
}

impl Default for DiscriminatorConfig {
    fn default() -> Self {
        let loss = GanLoss::default();
        Self {
            channels: Vec::new(),
            hidden_dims: vec![128],
            spectral_norm: true,
            loss,
            r1_gamma: 0.0,
            gradient_penalty_weight: 0.0,
        }
    }
}

/// A weight kept at a largest singular value of one by a step of power iteration each time it is used in training.
struct SpectralNorm {
    weight: Tensor,
    bias: Tensor,
    left: Option<Tensor>,
}

impl SpectralNorm {
    fn new(scope: &Scope<'_>, shape: &[i64], spectral: bool) -> Result<Self> {
        let fan_in: i64 = shape[1..].iter().product();
        let deviation = (2.0 / fan_in.max(1) as f64).sqrt();
        Ok(Self {
            weight: scope.param("weight", shape, Init::Normal(deviation))?,
            bias: scope.param("bias", &shape[..1], Init::Zeros)?,
            left: spectral.then(|| scope.buffer("weight_u", &shape[..1], Init::Normal(1.0))).transpose()?,
        })
    }

    /// The weight over its largest singular value.
    fn bounded(&self, train: bool) -> Result<Tensor> {
        let Some(left) = &self.left else { return Ok(self.weight.clone()) };
        let matrix = self.weight.flatten(1, -1)?; // [outputs, inputs]
        let (u, v) = no_grad(|| {
            let v = matrix.transpose(0, 1)?.matmul(left)?.normalize()?;
            let u = matrix.matmul(&v)?.normalize()?;
            if train {
                left.copy_(&u)?;
            }
            Ok::<_, Error>((u, v))
        })?;
        let largest = matrix.matmul(&v)?.mul(&u)?.sum()?;
        self.weight.div(&largest)
    }

    fn linear(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        x.linear(&self.bounded(train)?, Some(&self.bias))
    }

    fn conv(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        x.conv2d(&self.bounded(train)?, Some(&self.bias), [2, 2], [1, 1], 1)
    }
}

fn leaky(x: &Tensor) -> Result<Tensor> {
    x.leaky_relu(0.2)
}

/// ValueType, and maybe a vector condition them → a score `[rows]`: how real they look, and how well they go together.
pub struct Discriminator {
    stages: Vec<SpectralNorm>,
    layers: Vec<SpectralNorm>,
    score: SpectralNorm,
    width: i64,
}

impl Discriminator {
    /// The network under `scope` for values of this shape with `condition` numbers condition them.
    pub fn new(scope: &Scope<'_>, spec: &InputSpec, condition: i64, config: &DiscriminatorConfig) -> Result<Self> {
        let c = config;
        let positive = c.hidden_dims.iter().chain(&c.channels).all(|s| *s > 0)
            && c.r1_gamma >= 0.0
            && c.gradient_penalty_weight >= 0.0;
        let step = 1i64 << c.channels.len();
        let pictures = spec.shape.len() == 3 && spec.shape[1] % step == 0 && spec.shape[2] % step == 0;
        if !positive || (!c.channels.is_empty() && !pictures) {
            let found = format!("{:?}, {:?}, {}, {}", c.channels, c.hidden_dims, c.r1_gamma, c.gradient_penalty_weight);
            let wanted = format!(
                "positive sizes, and for channels pictures (here {:?}) that can be halved as often",
                spec.shape
            );
            return Err(Error::config(
                "discriminator.channels, hidden_dims, r1_gamma, gradient_penalty_weight",
                found,
                wanted,
            ));
        }
        let (mut stages, mut width) = (Vec::new(), spec.numel());
        if !c.channels.is_empty() {
            let mut input = spec.shape[0];
            for (number, output) in c.channels.iter().enumerate() {
                stages.push(SpectralNorm::new(
                    &scope.pp("stages").pp(number),
                    &[*output, input, 4, 4],
                    c.spectral_norm,
                )?);
                input = *output;
            }
            width = input * (spec.shape[1] / step) * (spec.shape[2] / step);
        }
        let mut layers = Vec::new();
        let mut input = width + condition;
        for (number, output) in c.hidden_dims.iter().enumerate() {
            layers.push(SpectralNorm::new(&scope.pp("layers").pp(number), &[*output, input], c.spectral_norm)?);
            input = *output;
        }
        Ok(Self {
            stages,
            layers,
            score: SpectralNorm::new(&scope.pp("score"), &[1, input], c.spectral_norm)?,
            width: input,
        })
    }

    /// What the last layer before the score holds, `[rows, width]`.
    pub fn features(&self, x: &Tensor, condition: Option<&Tensor>, train: bool) -> Result<Tensor> {
        let mut x = if self.stages.is_empty() { x.clone() } else { x.channels_last()? };
        for stage in &self.stages {
            x = leaky(&stage.conv(&x, train)?)?;
        }
        x = x.flatten(1, -1)?;
        if let Some(condition) = condition {
            x = Tensor::cat(&[&x, condition], 1)?;
        }
        for layer in &self.layers {
            x = leaky(&layer.linear(&x, train)?)?;
        }
        Ok(x)
    }

    /// `[rows]`.
    pub fn score(&self, x: &Tensor, condition: Option<&Tensor>, train: bool) -> Result<Tensor> {
        self.score.linear(&self.features(x, condition, train)?, train)?.squeeze(-1)
    }

    /// Scores of what is real and of what is made, `[rows]` each, in one pass: its weights are bounded once for both.
    pub fn scores(
        &self,
        real: (&Tensor, Option<&Tensor>),
        made: (&Tensor, Option<&Tensor>),
        train: bool,
    ) -> Result<(Tensor, Tensor)> {
        let condition = match (real.1, made.1) {
            (Some(real), Some(made)) => Some(Tensor::cat(&[real, made], 0)?),
            _ => None,
        };
        let both = self.score(&Tensor::cat(&[real.0, made.0], 0)?, condition.as_ref(), train)?;
        let rows = real.0.size(0)?;
        Ok((both.narrow(0, 0, rows)?, both.narrow(0, rows, made.0.size(0)?)?))
    }

    /// Width of its features.
    pub fn dim(&self) -> i64 {
        self.width
    }

    /// The penalties of its config on its gradient, summed; none when there is none.
    pub fn penalty(
        &self,
        config: &DiscriminatorConfig,
        real: &Tensor,
        made: &Tensor,
        condition: Option<&Tensor>,
    ) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        if config.r1_gamma > 0.0 {
            let at = real.detach()?.set_requires_grad(true)?;
            let slope = self.score(&at, condition, true)?.sum()?.autograd_grad(&[&at])?;
            let squares = slope[0].pow(2.0)?.flatten(1, -1)?.sum_dim(&[1], false)?.mean()?;
            sum = Some(squares.mul_scalar(config.r1_gamma / 2.0)?);
        }
        if config.gradient_penalty_weight > 0.0 {
            let shape: Vec<i64> =
                std::iter::once(real.size(0)?).chain(std::iter::repeat_n(1, real.rank() - 1)).collect();
            let share = Tensor::rand(&shape, DType::F32, real.device())?;
            let between = real.sub(made)?.mul(&share)?.add(made)?.detach()?.set_requires_grad(true)?;
            let slope = self.score(&between, condition, true)?.sum()?.autograd_grad(&[&between])?;
            let squares = slope[0].pow(2.0)?.flatten(1, -1)?.sum_dim(&[1], false)?;
            let length = squares.add_scalar(1e-12)?.sqrt()?;
            let penalty = length.add_scalar(-1.0)?.pow(2.0)?.mean()?.mul_scalar(config.gradient_penalty_weight)?;
            sum = Some(sum.map_or_else(|| Ok(penalty.clone()), |s| s.add(&penalty))?);
        }
        Ok(sum)
    }
}

/// A discriminator, and its shadow that the maker learns from.
pub(crate) struct DiscriminatorPair {
    pub(crate) discriminator: Discriminator,
    shadow: Discriminator,
    pub(crate) config: DiscriminatorConfig,
}

impl DiscriminatorPair {
    /// A discriminator under `scope`.
    pub(crate) fn new(
        scope: &Scope<'_>,
        spec: &InputSpec,
        condition: i64,
        config: &DiscriminatorConfig,
    ) -> Result<Self> {
        Ok(Self {
            discriminator: Discriminator::new(scope, spec, condition, config)?,
            shadow: Discriminator::new(&scope.detached(), spec, condition, config)?,
            config: config.clone(),
        })
    }

    /// The discriminator's loss with its penalties added while training; `made` must not lead back to the maker.
    pub(crate) fn penalized(
        &self,
        loss: Tensor,
        real: (&Tensor, Option<&Tensor>),
        made: &Tensor,
        train: bool,
    ) -> Result<Tensor> {
        match if train { self.discriminator.penalty(&self.config, real.0, made, real.1)? } else { None } {
            Some(penalty) => Ok(loss.add(&penalty)?),
            None => Ok(loss),
        }
    }

    /// Scores through which the maker learns, and the discriminator does not.
    pub(crate) fn shadow_score(&self, made: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        self.shadow.score(made, condition, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generative::ValueType;
    use mm_core::{Device, Params};

    #[test]
    fn a_bounded_layer_has_a_largest_singular_value_of_one() {
        let params = Params::new(Device::Cpu);
        let layer = SpectralNorm::new(&params.scope(), &[7, 5], true).unwrap();
        for _ in 0..200 {
            layer.bounded(true).unwrap();
        }
        let (_, s, _) = layer.bounded(false).unwrap().svd().unwrap();
        assert!((s.max().unwrap().to_f64().unwrap() - 1.0).abs() < 1e-4);
    }

    #[test]
    fn losses_are_those_of_the_papers_at_known_scores() {
        let (real, made) = (Tensor::from_slice(&[0.5f32, 2.0]).unwrap(), Tensor::from_slice(&[-0.5f32, 1.0]).unwrap());
        let soft = |x: f64| (1.0 + x.exp()).ln();
        for (loss, discriminator, maker) in [
            (
                GanLoss::NonSaturating,
                (soft(-0.5) + soft(-2.0) + soft(-0.5) + soft(1.0)) / 2.0,
                (soft(0.5) + soft(-1.0)) / 2.0,
            ),
            (GanLoss::LeastSquares, (0.25 + 1.0 + 0.25 + 1.0) / 2.0, (2.25 + 0.0) / 2.0),
            (GanLoss::Hinge, (0.5 + 0.0 + 0.5 + 2.0) / 2.0, -0.25),
            (GanLoss::Wasserstein, -1.25 + 0.25, -0.25),
        ] {
            assert!(
                (loss.discriminator(&real, &made).unwrap().to_f64().unwrap() - discriminator).abs() < 1e-5,
                "{loss:?}"
            );
            assert!((loss.generator(&made).unwrap().to_f64().unwrap() - maker).abs() < 1e-5, "{loss:?}");
        }
    }

    #[test]
    fn penalties_are_the_squared_slope_and_reach_the_weights() {
        let params = Params::new(Device::Cpu);
        let spec = InputSpec { shape: vec![3], value_type: ValueType::Real };
        let config = DiscriminatorConfig {
            hidden_dims: vec![],
            spectral_norm: false,
            r1_gamma: 2.0,
            ..DiscriminatorConfig::default()
        };
        let discriminator = Discriminator::new(&params.scope(), &spec, 0, &config).unwrap();
        let x = Tensor::randn(&[4, 3], DType::F32, Device::Cpu).unwrap();
        // Of a linear discriminator the slope is its weight everywhere.
        let weight = discriminator.score.weight.to_vec::<f64>().unwrap();
        let squares: f64 = weight.iter().map(|w| w * w).sum();
        let penalty = discriminator.penalty(&config, &x, &x, None).unwrap().unwrap();
        assert!((penalty.to_f64().unwrap() - squares).abs() < 1e-5);
        penalty.backward().unwrap();
        let grad = discriminator.score.weight.grad().unwrap().to_vec::<f64>().unwrap();
        assert!(grad.iter().zip(&weight).all(|(g, w)| (g - 2.0 * w).abs() < 1e-4));
        let config = DiscriminatorConfig { r1_gamma: 0.0, gradient_penalty_weight: 3.0, ..config };
        let penalty = discriminator.penalty(&config, &x, &x, None).unwrap().unwrap().to_f64().unwrap();
        assert!((penalty - 3.0 * (squares.sqrt() - 1.0).powi(2)).abs() < 1e-4);
    }

    #[test]
    fn a_shadow_judges_alike_and_learns_nothing() {
        let params = Params::new(Device::Cpu);
        let spec = InputSpec { shape: vec![3, 8, 8], value_type: ValueType::UnitInterval };
        let config = DiscriminatorConfig { channels: vec![4], hidden_dims: vec![6], ..DiscriminatorConfig::default() };
        let discriminator = Discriminator::new(&params.scope(), &spec, 0, &config).unwrap();
        let shadow = Discriminator::new(&params.scope().detached(), &spec, 0, &config).unwrap();
        let x = Tensor::rand(&[2, 3, 8, 8], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let same = |a: &Discriminator, b: &Discriminator| {
            let off = a.score(&x, None, false).unwrap().sub(&b.score(&x, None, false).unwrap()).unwrap();
            off.abs().unwrap().max().unwrap().to_f64().unwrap() == 0.0
        };
        assert!(same(&discriminator, &shadow));
        shadow.score(&x, None, false).unwrap().sum().unwrap().backward().unwrap();
        assert!(x.grad().is_some() && discriminator.score.weight.grad().is_none());
        discriminator.score.weight.mul_scalar_(3.0).unwrap();
        discriminator.score.bias.copy_(&Tensor::from_slice(&[0.5f32]).unwrap()).unwrap();
        assert!(same(&discriminator, &shadow));
    }
}
