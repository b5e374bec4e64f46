//! The bidirectional generative adversarial network.

use super::{
    discriminator::{DiscriminatorConfig, DiscriminatorPair},
    diversity::diversity_ratio,
};
use crate::generative::{
    InputSpec,
    batch::present_rows,
    networks::NetworkConfig,
    single_modality::{EncoderDecoder, Prior},
};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor, no_grad,
};
use serde::{Deserialize, Serialize};

/// Settings of a [`BiGan`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiGanConfig {
    /// Dimension of the latent vector.
    pub latent_dim: i64,
    /// Encoder and generator.
    pub network: NetworkConfig,
    /// The discriminator of pairs of values and latents.
    pub discriminator: DiscriminatorConfig,
}

impl Default for BiGanConfig {
    fn default() -> Self {
        Self { latent_dim: 64, network: NetworkConfig::default(), discriminator: DiscriminatorConfig::default() }
    }
}

/// A BiGAN: the discriminator distinguishes pairs (x, E(x)) of the encoder from pairs (G(z), z) of the generator, which
/// thereby learn to invert each other without a reconstruction loss.
///
/// *Adversarial Feature Learning* ([Donahue et al., 2017](https://arxiv.org/abs/1605.09782)); *Adversarially Learned
/// Inference* ([Dumoulin et al., 2017](https://arxiv.org/abs/1606.00704)).
pub struct BiGan {
    networks: EncoderDecoder,
    discriminator: DiscriminatorPair,
    config: BiGanConfig,
}

impl BiGan {
    /// Networks `encoder`, `decoder` and `discriminator` under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, or the values are token ids.
    pub fn new(scope: &Scope<'_>, input: (&Modality, &InputSpec), config: &BiGanConfig) -> Result<Self> {
        let c = config;
        if c.latent_dim < 1 {
            return Err(Error::config("model.latent_dim", c.latent_dim, "at least 1"));
        }
        let dims = (c.latent_dim, c.latent_dim);
        // The likelihood only measures the reconstruction error and is not trained.
        let likelihood_scope = scope.pp("likelihood").frozen();
        let prior = Prior::StandardNormal;
        Ok(Self {
            networks: EncoderDecoder::with_likelihood(scope, &likelihood_scope, input, dims, &c.network, prior)?,
            discriminator: DiscriminatorPair::new(&scope.pp("discriminator"), input.1, c.latent_dim, &c.discriminator)?,
            config: c.clone(),
        })
    }
}

impl RepresentationLearner for BiGan {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some(values) = present_rows(set, &self.networks.modality)? else { return Ok(None) };
        let discriminator = &self.discriminator;
        let encoded = self.networks.encoder.forward(&values, train)?;
        let latent = Tensor::randn(&encoded.shape(), DType::F32, encoded.device())?;
        let fake = self.networks.decoder.forward(&latent, train)?;
        let (encoded_detached, fake_detached) = (encoded.detach()?, fake.detach()?);
        let encoder_pair = (&values, Some(&encoded_detached));
        let (real_scores, fake_scores) =
            discriminator.trainable.scores(encoder_pair, (&fake_detached, Some(&latent)), train)?;
        let discriminator_loss = discriminator.loss(&real_scores, &fake_scores)?;
        let discriminator_loss = discriminator.add_penalty(discriminator_loss, encoder_pair, &fake_detached, train)?;
        let generator_loss = discriminator.generator_loss(&fake, Some(&latent))?;
        // The encoder is trained so that its pairs are classified as the generator's.
        let encoder_scores = discriminator.detached_score(&values, Some(&encoded))?;
        let encoder_loss = self.config.discriminator.loss.encoder(&encoder_scores)?;
        let error = no_grad(|| self.networks.reconstruction_error(&encoded, &values, false)?.to_f64())?;
        let metrics = vec![
            ("discriminator_loss".to_owned(), discriminator_loss.to_f64()?),
            ("generator_loss".into(), generator_loss.to_f64()?),
            ("encoder_loss".into(), encoder_loss.to_f64()?),
            ("reconstruction_error".into(), error),
            ("diversity_ratio".into(), diversity_ratio(&fake, &values)?),
        ];
        Ok(Some((discriminator_loss.add(&generator_loss)?.add(&encoder_loss)?, metrics)))
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
