//! The variational autoencoder.

use super::{
    batch::present_rows,
    gaussian::{DiagonalGaussian, importance_weighted_bound, standard_normal_log_prob},
    networks::NetworkConfig,
    single_modality::{EncoderDecoder, Prior},
    spec::InputSpec,
    warmup::LinearWarmup,
};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor, distributed::mean_over_rows,
};
use serde::{Deserialize, Serialize};

/// KL divergence in nats above which a latent dimension counts as active.
const ACTIVE_UNIT_THRESHOLD: f64 = 0.01;

/// Settings of a [`Vae`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaeConfig {
    /// Dimension of the latent vector.
    pub latent_dim: i64,
    /// Encoder and decoder.
    pub network: NetworkConfig,
    /// Weight of the KL divergence; with 1, the loss is the negative evidence lower bound.
    pub beta: f64,
    /// Training steps over which the weight of the KL divergence grows from 0 to `beta`.
    pub kl_warmup_steps: u64,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self { latent_dim: 64, network: NetworkConfig::default(), beta: 1.0, kl_warmup_steps: 0 }
    }
}

impl VaeConfig {
    pub(super) fn validate(&self) -> Result<()> {
        if self.latent_dim < 1 {
            return Err(Error::config("model.latent_dim", self.latent_dim, "at least 1"));
        }
        if self.beta.is_nan() || self.beta < 0.0 {
            return Err(Error::config("model.beta", self.beta, "at least 0"));
        }
        Ok(())
    }
}

/// A variational autoencoder with loss (−ln p(x | z) + β KL(q(z | x) ‖ N(0, I))) / numel, z ~ q(z | x).
///
/// *Auto-Encoding Variational Bayes* ([Kingma and Welling, 2014](https://arxiv.org/abs/1312.6114)); β-VAE
/// ([Higgins et al., 2017](https://openreview.net/forum?id=Sy2fzU9gl)); KL warm-up, *Generating Sentences from a
/// Continuous Space* ([Bowman et al., 2016](https://arxiv.org/abs/1511.06349)).
pub struct Vae {
    networks: EncoderDecoder,
    warmup: LinearWarmup,
    config: VaeConfig,
}

impl Vae {
    /// Networks `encoder` and `decoder` under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, or the values are token ids.
    pub fn new(scope: &Scope<'_>, input: (&Modality, &InputSpec), config: &VaeConfig) -> Result<Self> {
        config.validate()?;
        let dims = (2 * config.latent_dim, config.latent_dim);
        Ok(Self {
            networks: EncoderDecoder::new(scope, input, dims, &config.network, Prior::StandardNormal)?,
            warmup: LinearWarmup::new(&scope.pp("kl_warmup"), config.kl_warmup_steps)?,
            config: config.clone(),
        })
    }

    fn posterior(&self, values: &Tensor, train: bool) -> Result<DiagonalGaussian> {
        DiagonalGaussian::from_params(&self.networks.encoder.forward(values, train)?)
    }
}

impl RepresentationLearner for Vae {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some(values) = present_rows(set, &self.networks.modality)? else { return Ok(None) };
        let posterior = self.posterior(&values, train)?;
        let decoded = self.networks.decoder.forward(&posterior.rsample()?, train)?;
        let likelihood = &self.networks.likelihood;
        let nll = mean_over_rows(&likelihood.nll(&decoded, &values)?)?;
        let kl_per_dim = mean_over_rows(&posterior.kl_from_standard_normal()?)?; // [latent_dim]
        let kl = kl_per_dim.sum()?;
        let kl_weight = self.config.beta * self.warmup.step(train)?;
        let active_units = kl_per_dim.gt_scalar(ACTIVE_UNIT_THRESHOLD)?.to_dtype(DType::F32)?.sum()?.to_f64()?;
        let (nll_value, kl_value) = (nll.to_f64()?, kl.to_f64()?);
        let metrics = vec![
            ("elbo".to_owned(), -nll_value - kl_value),
            ("nll".into(), nll_value),
            ("kl_divergence".into(), kl_value),
            ("active_units".into(), active_units),
            (
                "reconstruction_error".into(),
                mean_over_rows(&likelihood.reconstruction_error(&decoded, &values)?)?.to_f64()?,
            ),
        ];
        // Per element, so that one learning rate suits images and vectors.
        let numel = values.numel() as f64 / values.size(0)? as f64;
        Ok(Some((nll.add(&kl.mul_scalar(kl_weight)?)?.mul_scalar(1.0 / numel)?, metrics)))
    }

    fn supports_process_groups(&self) -> bool {
        true
    }

    /// The means of the posteriors.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        Ok(self.posterior(self.networks.values(set)?, false)?.mean)
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn log_likelihood(&self, set: &InputSet, samples: usize) -> Result<Option<Tensor>> {
        let values = self.networks.values(set)?;
        let posterior = self.posterior(values, false)?;
        importance_weighted_bound(samples, || {
            let latent = posterior.rsample()?;
            let nll = self.networks.likelihood.nll(&self.networks.decoder.forward(&latent, false)?, values)?;
            standard_normal_log_prob(&latent)?.sub(&nll)?.sub(&posterior.log_prob(&latent)?)
        })
        .map(Some)
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(&self.networks)
    }
}
