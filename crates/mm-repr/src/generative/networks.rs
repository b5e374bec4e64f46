//! The networks on both sides of a code: layers on vectors, convolutions on pictures and spectrograms (DCGAN's shape, Radford 2016,
//! with nearest-neighbour growth instead of transposed convolutions, Odena 2016).

use super::{InputSpec, ValueType};
use mm_core::{
    Init, Module, Result, Scope, Tensor,
    nn::{Conv2d, ConvConfig, GroupNorm, Linear, Norm, NormConfig},
};
use serde::{Deserialize, Serialize};

/// Sizes of the networks of one modality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Widths of the layers on vectors, from the values to the code; the other side has them in the opposite order.
    pub hidden_dims: Vec<i64>,
    /// Channels of the convolutions on pictures, each halving the sides; layers on their numbers as a vector when empty.
    pub channels: Vec<i64>,
    /// Rate of dropout between layers on vectors while training.
    pub dropout: f64,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { hidden_dims: vec![256], channels: Vec::new(), dropout: 0.0 }
    }
}

impl NetworkConfig {
    fn check(&self, spec: &InputSpec) -> Result<()> {
        let sizes = self.hidden_dims.iter().chain(&self.channels);
        if sizes.clone().any(|s| *s < 1) || !(0.0..1.0).contains(&self.dropout) {
            let found = format!("{:?}, {:?}, {}", self.hidden_dims, self.channels, self.dropout);
            return Err(mm_core::Error::config(
                "network.hidden_dims, channels, dropout",
                found,
                "positive sizes and a rate in [0, 1)",
            ));
        }
        if !self.channels.is_empty() {
            let shape = &spec.shape;
            let step = 1i64 << self.channels.len();
            if shape.len() != 3 || shape[1] % step != 0 || shape[2] % step != 0 {
                let wanted = format!("pictures whose sides are multiples of {step} ({} halvings)", self.channels.len());
                return Err(mm_core::Error::config("network.channels", format!("values of {shape:?}"), wanted));
            }
        }
        Ok(())
    }
}

/// Groups for a normalisation of so many channels.
fn groups(channels: i64) -> i64 {
    [8, 4, 2].into_iter().find(|g| channels % g == 0).unwrap_or(1)
}

struct Stage {
    conv: Conv2d,
    norm: GroupNorm,
}

impl Stage {
    fn new(scope: &Scope<'_>, input: i64, output: i64, stride: i64) -> Result<Self> {
        let config = ConvConfig { stride, bias: true, ..ConvConfig::same(input, output, 3) };
        Ok(Self {
            conv: Conv2d::new(&scope.pp("conv"), config)?,
            norm: GroupNorm::new(&scope.pp("norm"), groups(output), output, 1e-5)?,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.norm.forward(&self.conv.forward(x, train)?, train)?.silu()
    }
}

/// Layers on vectors, each normalised and bent.
struct Layers {
    layers: Vec<(Linear, Norm)>,
    dropout: f64,
}

impl Layers {
    fn new(scope: &Scope<'_>, widths: &[i64], dropout: f64) -> Result<Self> {
        let layers = widths.windows(2).enumerate().map(|(number, pair)| {
            let place = scope.pp(number);
            let norm = Norm::new(&place.pp("norm"), pair[1], NormConfig::default())?;
            Ok((Linear::new(&place.pp("linear"), pair[0], pair[1], true)?, norm))
        });
        Ok(Self { layers: layers.collect::<Result<_>>()?, dropout })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = x.clone();
        for (linear, norm) in &self.layers {
            x = norm.forward(&linear.forward(&x, train)?, train)?.gelu()?.dropout(self.dropout, train)?;
        }
        Ok(x)
    }
}

/// ValueType `[rows, …]` → `[rows, outputs]`.
pub struct EncoderNet {
    stages: Vec<Stage>,
    layers: Layers,
    last: Option<Linear>,
}

impl EncoderNet {
    /// The network under `scope`; without its last layer when `outputs` is none.
    pub fn new(
        scope: &Scope<'_>,
        spec: &InputSpec,
        outputs: impl Into<Option<i64>>,
        config: &NetworkConfig,
    ) -> Result<Self> {
        config.check(spec)?;
        let mut stages = Vec::new();
        let mut width = spec.numel();
        if let Some(first) = spec.shape.first().filter(|_| !config.channels.is_empty()) {
            let mut input = *first;
            for (number, output) in config.channels.iter().enumerate() {
                stages.push(Stage::new(&scope.pp("stages").pp(number), input, *output, 2)?);
                input = *output;
            }
            width = input * (spec.shape[1] >> stages.len()) * (spec.shape[2] >> stages.len());
        }
        let widths: Vec<i64> = std::iter::once(width).chain(config.hidden_dims.iter().copied()).collect();
        Ok(Self {
            stages,
            layers: Layers::new(&scope.pp("layers"), &widths, config.dropout)?,
            last: outputs
                .into()
                .map(|outputs| Linear::new(&scope.pp("last"), widths[widths.len() - 1], outputs, true))
                .transpose()?,
        })
    }

    /// What the convolutions make of the values: `[rows, channels, height, width]`, or the values.
    pub fn grid(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = x.clone();
        for stage in &self.stages {
            x = stage.forward(&x, train)?;
        }
        Ok(x)
    }
}

impl Module for EncoderNet {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.grid(x, train)?.flatten(1, -1)?; // [rows, numbers]
        let x = self.layers.forward(&x, train)?;
        self.last.as_ref().map_or_else(|| Ok(x.clone()), |last| last.forward(&x, train))
    }
}

/// Codes `[rows, inputs]` → values `[rows, …]`: means of pixels in [0, 1], logits of what is there or not, other numbers as they are.
pub struct DecoderNet {
    layers: Layers,
    seed: Option<Linear>,
    stages: Vec<Stage>,
    last: Option<Conv2d>,
    grid: [i64; 3],
    spec: InputSpec,
}

impl DecoderNet {
    /// The network under `scope`; for grids alone ([`DecoderNet::grow`]) when `inputs` is none.
    pub fn new(
        scope: &Scope<'_>,
        inputs: impl Into<Option<i64>>,
        spec: &InputSpec,
        config: &NetworkConfig,
    ) -> Result<Self> {
        config.check(spec)?;
        let inputs: Option<i64> = inputs.into();
        let widths: Vec<i64> = inputs.into_iter().chain(config.hidden_dims.iter().rev().copied()).collect();
        let mut channels: Vec<i64> = config.channels.iter().rev().copied().collect();
        let halvings = channels.len();
        let (mut stages, mut last, mut grid) = (Vec::new(), None, [spec.numel(), 1, 1]);
        if let Some(&first) = channels.first() {
            grid = [first, spec.shape[1] >> halvings, spec.shape[2] >> halvings];
            channels.push(channels[halvings - 1]);
            for (number, pair) in channels.windows(2).enumerate() {
                stages.push(Stage::new(&scope.pp("stages").pp(number), pair[0], pair[1], 1)?);
            }
            let config = ConvConfig { bias: true, ..ConvConfig::same(channels[halvings], spec.shape[0], 3) };
            last = Some(Conv2d::new(&scope.pp("last"), config)?);
        }
        let layers = Layers::new(&scope.pp("layers"), &widths, config.dropout)?;
        let seed = inputs
            .map(|_| Linear::new(&scope.pp("seed"), widths[widths.len() - 1], grid.iter().product(), true))
            .transpose()?;
        Ok(Self { layers, seed, stages, last, grid, spec: spec.clone() })
    }

    /// ValueType from a grid `[rows, channels, height, width]` as [`EncoderNet::grid`] gives.
    pub fn grow(&self, grid: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = grid.clone();
        for stage in &self.stages {
            let size = [x.size(2)? * 2, x.size(3)? * 2];
            x = stage.forward(&x.interpolate(size, mm_core::Interpolation::Nearest)?, train)?;
        }
        if let Some(last) = &self.last {
            x = last.forward(&x, train)?;
        }
        let shape: Vec<i64> = std::iter::once(-1).chain(self.spec.shape.iter().copied()).collect();
        let x = x.reshape(&shape)?;
        if self.spec.value_type == ValueType::UnitInterval { x.sigmoid() } else { Ok(x) }
    }
}

impl Module for DecoderNet {
    fn forward(&self, code: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = self.layers.forward(code, train)?;
        if let Some(seed) = &self.seed {
            x = seed.forward(&x, train)?;
        }
        let [channels, height, width] = self.grid;
        self.grow(&x.reshape(&[-1, channels, height, width])?, train)
    }
}

/// How much less likely values are for lying off what was decoded, and the scale of the normal distribution that says so.
pub struct Likelihood {
    values: ValueType,
    log_scale: Option<Tensor>,
}

impl Likelihood {
    /// For numbers a normal distribution, its scale learned with everything else (Rybkin 2021: no weight to be tuned by hand); for what
    /// is there or not a Bernoulli distribution.
    pub fn new(scope: &Scope<'_>, spec: &InputSpec) -> Result<Self> {
        let learned = spec.value_type != ValueType::Binary;
        let log_scale = learned.then(|| scope.param("log_scale", &[1], Init::Constant(-1.0))).transpose()?;
        Ok(Self { values: spec.value_type, log_scale })
    }

    /// −log p(values | decoded) of each row in nats, `[rows]`.
    pub fn nats(&self, decoded: &Tensor, values: &Tensor) -> Result<Tensor> {
        let each = if let Some(log_scale) = &self.log_scale {
            // SpectralNorm: on data that can be met exactly the density would grow without end.
            let log_scale = log_scale.clamp(-4.0, 4.0)?;
            let off = decoded.sub(values)?.mul(&log_scale.neg()?.exp()?)?;
            let half_log_two_pi = 0.918_938_533_204_672_8;
            off.mul(&off)?.mul_scalar(0.5)?.add(&log_scale)?.add_scalar(half_log_two_pi)?
        } else {
            binary_cross_entropy(decoded, values)?
        };
        each.flatten(1, -1)?.sum_dim(&[1], false)
    }

    /// Mean error of each row `[rows]`: squared for numbers, cross-entropy in nats for what is there or not.
    pub fn error(&self, decoded: &Tensor, values: &Tensor) -> Result<Tensor> {
        let each = if self.values == ValueType::Binary {
            binary_cross_entropy(decoded, values)?
        } else {
            let off = decoded.sub(values)?;
            off.mul(&off)?
        };
        each.flatten(1, -1)?.mean_dim(&[1], false)
    }
}

/// Of logits with zeros and ones, number by number.
pub fn binary_cross_entropy(logits: &Tensor, values: &Tensor) -> Result<Tensor> {
    logits.softplus()?.sub(&logits.mul(values)?)
}
