//! The bidirectional adversarial network (BiGAN, Donahue 2017; ALI, Dumoulin 2017): the discriminator sees a value beside a code, and the
//! encoder's pairs must not be told from the generator's: then each undoes the other.

use super::{DiscriminatorConfig, DiscriminatorPair, spread};
use crate::generative::{
    InputSpec, ValueType,
    networks::{DecoderNet, EncoderNet, Likelihood, NetworkConfig},
    rows_with,
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
    /// Width of the code.
    pub latent_dim: i64,
    /// The networks of encoder and generator.
    pub network: NetworkConfig,
    /// The discriminator.
    pub discriminator: DiscriminatorConfig,
}

impl Default for BiGanConfig {
    fn default() -> Self {
        Self { latent_dim: 64, network: NetworkConfig::default(), discriminator: DiscriminatorConfig::default() }
    }
}

/// ValueType ↔ codes, neither ever compared with its own again.
pub struct BiGan {
    modality: Modality,
    down: EncoderNet,
    up: DecoderNet,
    likelihood: Likelihood,
    adversary: DiscriminatorPair,
    config: BiGanConfig,
    device: mm_core::Device,
}

impl BiGan {
    /// Networks `encoder`, `decoder` and `discriminator` under `scope`.
    pub fn new(scope: &Scope<'_>, (modality, spec): (&Modality, &InputSpec), config: &BiGanConfig) -> Result<Self> {
        let c = config;
        if c.latent_dim < 1 || matches!(spec.value_type, ValueType::Tokens(_)) {
            let found = format!("{}, {:?}", c.latent_dim, spec.value_type);
            return Err(Error::config("model.latent_dim, inputs", found, "a width of at least 1, and numbers"));
        }
        Ok(Self {
            modality: modality.clone(),
            down: EncoderNet::new(&scope.pp("encoder"), spec, c.latent_dim, &c.network)?,
            up: DecoderNet::new(&scope.pp("decoder"), c.latent_dim, spec, &c.network)?,
            // Only to measure with: its scale is not learned here.
            likelihood: Likelihood::new(&scope.pp("likelihood").frozen(), spec)?,
            adversary: DiscriminatorPair::new(&scope.pp("discriminator"), spec, c.latent_dim, &c.discriminator)?,
            config: c.clone(),
            device: scope.device(),
        })
    }
}

impl RepresentationLearner for BiGan {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some((values, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let (adversary, losses) = (&self.adversary, self.config.discriminator.loss);
        let code = self.down.forward(&values, train)?;
        let drawn = Tensor::randn(&code.shape(), DType::F32, code.device())?;
        let made = self.up.forward(&drawn, train)?;
        let (still_code, still_made) = (code.detach()?, made.detach()?);
        let pair = (&values, Some(&still_code));
        let (real, fake) = adversary.discriminator.scores(pair, (&still_made, Some(&drawn)), train)?;
        let discriminator_loss = adversary.penalized(losses.discriminator(&real, &fake)?, pair, &still_made, train)?;
        // The generator wants its pairs taken for the encoder's, and the encoder its own for the generator's.
        let generator = losses.generator(&adversary.shadow_score(&made, Some(&drawn))?)?;
        let encoder = losses.generator(&adversary.shadow_score(&values, Some(&code))?.neg()?)?;
        let error = no_grad(|| self.likelihood.error(&self.up.forward(&code, false)?, &values)?.mean()?.to_f64())?;
        let parts = vec![
            ("discriminator_loss".to_owned(), discriminator_loss.to_f64()?),
            ("generator_loss".into(), generator.to_f64()?),
            ("encoder_loss".into(), encoder.to_f64()?),
            ("reconstruction_error".into(), error),
            ("diversity_ratio".into(), spread(&made)? / spread(&values)?.max(1e-9)),
        ];
        Ok(Some((discriminator_loss.add(&generator)?.add(&encoder)?, parts)))
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

impl GenerativeDecoder for BiGan {
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
