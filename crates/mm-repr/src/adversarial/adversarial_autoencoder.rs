//! The adversarial autoencoder.

use super::discriminator::{DiscriminatorConfig, DiscriminatorPair};
use crate::generative::{
    InputSpec, ValueType,
    batch::present_rows,
    networks::NetworkConfig,
    single_modality::{EncoderDecoder, Prior},
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
    /// Dimension of the latent vector.
    pub latent_dim: i64,
    /// Encoder and decoder.
    pub network: NetworkConfig,
    /// The discriminator of latents.
    pub discriminator: DiscriminatorConfig,
    /// Weight of the encoder's adversarial loss relative to the reconstruction error.
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

/// An autoencoder whose latents are matched to N(0, I) by a discriminator. *Adversarial Autoencoders*
/// ([Makhzani et al., 2016](https://arxiv.org/abs/1511.05644)).
pub struct AdversarialAutoencoder {
    networks: EncoderDecoder,
    discriminator: DiscriminatorPair,
    config: AdversarialAutoencoderConfig,
}

impl AdversarialAutoencoder {
    /// Networks `encoder`, `decoder` and `discriminator` under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, or the values are token ids.
    pub fn new(
        scope: &Scope<'_>,
        input: (&Modality, &InputSpec),
        config: &AdversarialAutoencoderConfig,
    ) -> Result<Self> {
        let c = config;
        if c.latent_dim < 1 || c.adversarial_weight < 0.0 {
            let found = format!("{}, {}", c.latent_dim, c.adversarial_weight);
            let expected = "latent_dim of at least 1 and no negative weight";
            return Err(Error::config("model.latent_dim, adversarial_weight", found, expected));
        }
        let latent_spec = InputSpec { shape: vec![c.latent_dim], value_type: ValueType::Real };
        let dims = (c.latent_dim, c.latent_dim);
        Ok(Self {
            networks: EncoderDecoder::new(scope, input, dims, &c.network, Prior::StandardNormal)?,
            discriminator: DiscriminatorPair::new(&scope.pp("discriminator"), &latent_spec, 0, &c.discriminator)?,
            config: c.clone(),
        })
    }
}

impl RepresentationLearner for AdversarialAutoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some(values) = present_rows(set, &self.networks.modality)? else { return Ok(None) };
        let latent = self.networks.encoder.forward(&values, train)?;
        let error = self.networks.reconstruction_error(&latent, &values, train)?;
        let prior = Tensor::randn(&latent.shape(), DType::F32, latent.device())?;
        let latent_detached = latent.detach()?;
        let discriminator = &self.discriminator;
        let (real_scores, fake_scores) =
            discriminator.trainable.scores((&prior, None), (&latent_detached, None), train)?;
        let discriminator_loss = discriminator.loss(&real_scores, &fake_scores)?;
        let discriminator_loss =
            discriminator.add_penalty(discriminator_loss, (&prior, None), &latent_detached, train)?;
        let generator_loss = discriminator.generator_loss(&latent, None)?;
        let metrics = vec![
            ("reconstruction_error".to_owned(), error.to_f64()?),
            ("discriminator_loss".into(), discriminator_loss.to_f64()?),
            ("generator_loss".into(), generator_loss.to_f64()?),
            ("latent_std".into(), latent_detached.std_dim(&[0], false, false)?.mean()?.to_f64()?),
        ];
        let loss = error.add(&generator_loss.mul_scalar(self.config.adversarial_weight)?)?.add(&discriminator_loss)?;
        Ok(Some((loss, metrics)))
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.networks.encoder.forward(self.networks.values(set)?, false)
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(&self.networks)
    }
}
