//! The adversarial autoencoder (AAE, Makhzani 2016): an autoencoder whose codes pass for draws from a normal distribution.

use super::{DiscriminatorConfig, DiscriminatorPair};
use crate::generative::{
    InputSpec, ValueType,
    networks::{DecoderNet, EncoderNet, Likelihood, NetworkConfig},
    rows_with,
};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor,
};
use serde::{Deserialize, Serialize};

/// Settings of an [`AdversarialAutoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdversarialAutoencoderConfig {
    /// Width of the code.
    pub latent_dim: i64,
    /// The networks.
    pub network: NetworkConfig,
    /// The discriminator of codes.
    pub discriminator: DiscriminatorConfig,
    /// Weight of passing for the prior beside making the values again.
    pub adversarial_weight: f64,
}

impl Default for AdversarialAutoencoderConfig {
    fn default() -> Self {
        Self {
            latent_dim: 64,
            network: NetworkConfig::default(),
            discriminator: DiscriminatorConfig::default(),
            adversarial_weight: 0.01,
        }
    }
}

/// ValueType → codes that look drawn from the prior → the values again.
pub struct AdversarialAutoencoder {
    modality: Modality,
    down: EncoderNet,
    up: DecoderNet,
    likelihood: Likelihood,
    adversary: DiscriminatorPair,
    config: AdversarialAutoencoderConfig,
    device: mm_core::Device,
}

impl AdversarialAutoencoder {
    /// Networks `encoder`, `decoder` and `discriminator` under `scope`.
    pub fn new(
        scope: &Scope<'_>,
        (modality, spec): (&Modality, &InputSpec),
        config: &AdversarialAutoencoderConfig,
    ) -> Result<Self> {
        let c = config;
        if c.latent_dim < 1 || c.adversarial_weight < 0.0 || matches!(spec.value_type, ValueType::Tokens(_)) {
            let found = format!("{}, {}, {:?}", c.latent_dim, c.adversarial_weight, spec.value_type);
            return Err(Error::config(
                "model.latent_dim, adversarial_weight, inputs",
                found,
                "a width of at least 1, no negative weight, numbers",
            ));
        }
        let codes = InputSpec { shape: vec![c.latent_dim], value_type: ValueType::Real };
        Ok(Self {
            modality: modality.clone(),
            down: EncoderNet::new(&scope.pp("encoder"), spec, c.latent_dim, &c.network)?,
            up: DecoderNet::new(&scope.pp("decoder"), c.latent_dim, spec, &c.network)?,
            likelihood: Likelihood::new(&scope.pp("likelihood"), spec)?,
            adversary: DiscriminatorPair::new(&scope.pp("discriminator"), &codes, 0, &c.discriminator)?,
            config: c.clone(),
            device: scope.device(),
        })
    }
}

impl RepresentationLearner for AdversarialAutoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some((values, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let c = &self.config;
        let code = self.down.forward(&values, train)?;
        let error = self.likelihood.error(&self.up.forward(&code, train)?, &values)?.mean()?;
        let prior = Tensor::randn(&code.shape(), DType::F32, code.device())?;
        let fake_detached = code.detach()?;
        let (adversary, losses) = (&self.adversary, c.discriminator.loss);
        let (real, made) = adversary.discriminator.scores((&prior, None), (&fake_detached, None), train)?;
        let discriminator_loss =
            adversary.penalized(losses.discriminator(&real, &made)?, (&prior, None), &fake_detached, train)?;
        let generator_loss = losses.generator(&adversary.shadow_score(&code, None)?)?;
        let parts = vec![
            ("reconstruction_error".to_owned(), error.to_f64()?),
            ("discriminator_loss".into(), discriminator_loss.to_f64()?),
            ("generator_loss".into(), generator_loss.to_f64()?),
            ("latent_std".into(), fake_detached.std_dim(&[0], false, false)?.mean()?.to_f64()?),
        ];
        Ok(Some((error.add(&generator_loss.mul_scalar(c.adversarial_weight)?)?.add(&discriminator_loss)?, parts)))
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.down.forward(&set.get(&self.modality)?.0.values, false)
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(self)
    }
}

impl GenerativeDecoder for AdversarialAutoencoder {
    fn generates(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    fn decode(&self, code: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.up.forward(code, false)
    }

    fn sample_prior(&self, rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        Tensor::randn(&[rows, self.config.latent_dim], DType::F32, self.device).map(Some)
    }
}
