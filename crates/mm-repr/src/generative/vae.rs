//! The variational autoencoder (Kingma 2014) and β-VAE (Higgins 2017), with a warm-up of the divergence (Bowman 2016).

use super::{
    InputSpec, LinearWarmup, ValueType,
    networks::{DecoderNet, EncoderNet, Likelihood, NetworkConfig},
    rows_with,
};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor,
};
use serde::{Deserialize, Serialize};

/// Settings of a [`Vae`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaeConfig {
    /// Width of the code.
    pub latent_dim: i64,
    /// The networks.
    pub network: NetworkConfig,
    /// Weight of the divergence from the prior; 1 is the bound on the likelihood.
    pub beta: f64,
    /// Training steps over which that weight grows from 0.
    pub kl_warmup_steps: u64,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self { latent_dim: 64, network: NetworkConfig::default(), beta: 1.0, kl_warmup_steps: 0 }
    }
}

impl VaeConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.latent_dim < 1 || self.beta.is_nan() || self.beta < 0.0 {
            let found = format!("{}, {}", self.latent_dim, self.beta);
            return Err(Error::config("model.latent_dim, beta", found, "at least 1, and no negative number"));
        }
        Ok(())
    }
}

/// A normal distribution a row, without covariances: mean and logarithm of the variance, `[rows, width]` each.
#[derive(Debug, Clone)]
pub(crate) struct Normal {
    pub(crate) mean: Tensor,
    pub(crate) log_variance: Tensor,
}

impl Normal {
    /// From `[rows, 2 · width]`.
    pub(crate) fn split(both: &Tensor) -> Result<Self> {
        let width = both.size(1)? / 2;
        let log_variance = both.narrow(1, width, width)?.clamp(-10.0, 10.0)?;
        Ok(Self { mean: both.narrow(1, 0, width)?, log_variance })
    }

    /// One draw, through which gradients flow.
    pub(crate) fn draw(&self) -> Result<Tensor> {
        let noise = Tensor::randn(&self.mean.shape(), DType::F32, self.mean.device())?;
        self.mean.add(&self.log_variance.mul_scalar(0.5)?.exp()?.mul(&noise)?)
    }

    /// Divergence from the standard normal distribution by dimension, `[rows, width]`, in nats.
    pub(crate) fn divergence(&self) -> Result<Tensor> {
        let squares = self.mean.mul(&self.mean)?.add(&self.log_variance.exp()?)?;
        squares.sub(&self.log_variance)?.add_scalar(-1.0)?.mul_scalar(0.5)
    }

    /// log density of codes `[rows, width]`, `[rows]`.
    pub(crate) fn log_density(&self, code: &Tensor) -> Result<Tensor> {
        let off = code.sub(&self.mean)?;
        let squares = off.mul(&off)?.mul(&self.log_variance.neg()?.exp()?)?.add(&self.log_variance)?;
        squares.add_scalar(1.837_877_066_409_345_5)?.sum_dim(&[1], false)?.mul_scalar(-0.5)
    }
}

/// log density of codes `[rows, width]` under the standard normal distribution, `[rows]`.
pub(crate) fn prior_log_density(code: &Tensor) -> Result<Tensor> {
    code.mul(code)?.add_scalar(1.837_877_066_409_345_5)?.sum_dim(&[1], false)?.mul_scalar(-0.5)
}

/// The logarithm of the mean of so many weights, each given by its logarithm `[rows]`.
pub(crate) fn importance(samples: usize, mut log_weight: impl FnMut() -> Result<Tensor>) -> Result<Tensor> {
    let samples = samples.max(1);
    let weights: Vec<Tensor> = (0..samples).map(|_| log_weight()).collect::<Result<_>>()?;
    let all = Tensor::stack(&weights.iter().collect::<Vec<_>>(), 0)?; // [samples, rows]
    all.logsumexp(0)?.add_scalar(-(samples as f64).ln())
}

/// ValueType → a distribution of codes → the values again.
pub struct Vae {
    modality: Modality,
    down: EncoderNet,
    up: DecoderNet,
    likelihood: Likelihood,
    warm_up: LinearWarmup,
    config: VaeConfig,
}

impl Vae {
    /// Networks `encoder` and `decoder` under `scope`.
    pub fn new(scope: &Scope<'_>, (modality, spec): (&Modality, &InputSpec), config: &VaeConfig) -> Result<Self> {
        config.check()?;
        if matches!(spec.value_type, ValueType::Tokens(_)) {
            return Err(Error::config("model.kind", "vae on symbols", "kind = \"sequence_autoencoder\""));
        }
        Ok(Self {
            modality: modality.clone(),
            down: EncoderNet::new(&scope.pp("encoder"), spec, 2 * config.latent_dim, &config.network)?,
            up: DecoderNet::new(&scope.pp("decoder"), config.latent_dim, spec, &config.network)?,
            likelihood: Likelihood::new(&scope.pp("likelihood"), spec)?,
            warm_up: LinearWarmup::new(&scope.pp("warm_up"), config.kl_warmup_steps)?,
            config: config.clone(),
        })
    }

    fn posterior(&self, values: &Tensor, train: bool) -> Result<Normal> {
        Normal::split(&self.down.forward(values, train)?)
    }
}

impl RepresentationLearner for Vae {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some((values, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let posterior = self.posterior(&values, train)?;
        let decoded = self.up.forward(&posterior.draw()?, train)?;
        let nats = self.likelihood.nats(&decoded, &values)?.mean()?;
        let each = posterior.divergence()?.mean_dim(&[0], false)?; // [width]
        let divergence = each.sum()?;
        let weight = self.config.beta * self.warm_up.next(train)?;
        // A dimension that says less than a hundredth of a nat is asleep (Burda 2016).
        let awake = each.gt_scalar(0.01)?.to_dtype(DType::F32)?.sum()?.to_f64()?;
        let (n, d) = (nats.to_f64()?, divergence.to_f64()?);
        let parts = vec![
            ("elbo".to_owned(), -n - d),
            ("nll".into(), n),
            ("kl_divergence".into(), d),
            ("active_units".into(), awake),
            ("reconstruction_error".into(), self.likelihood.error(&decoded, &values)?.mean()?.to_f64()?),
        ];
        // Nats a number, so that one learning rate serves pictures and vectors alike.
        let numbers = values.numel() as f64 / values.size(0)? as f64;
        Ok(Some((nats.add(&divergence.mul_scalar(weight)?)?.mul_scalar(1.0 / numbers)?, parts)))
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        Ok(self.posterior(&set.get(&self.modality)?.0.values, false)?.mean)
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn log_likelihood(&self, set: &InputSet, samples: usize) -> Result<Option<Tensor>> {
        let values = &set.get(&self.modality)?.0.values;
        let posterior = self.posterior(values, false)?;
        importance(samples, || {
            let code = posterior.draw()?;
            let nats = self.likelihood.nats(&self.up.forward(&code, false)?, values)?;
            prior_log_density(&code)?.sub(&nats)?.sub(&posterior.log_density(&code)?)
        })
        .map(Some)
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(self)
    }
}

impl GenerativeDecoder for Vae {
    fn generates(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    fn decode(&self, code: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.up.forward(code, false)
    }

    fn sample_prior(&self, rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        Tensor::randn(&[rows, self.config.latent_dim], DType::F32, self.warm_up.device()).map(Some)
    }
}
