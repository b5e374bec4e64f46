//! The adversarial autoencoder (AAE, Makhzani 2016): an autoencoder whose codes pass for draws from a normal distribution.

use super::{Adversary, CriticConfig};
use crate::generative::{
    Spec, Values,
    networks::{Down, Likelihood, NetworkConfig, Up},
    rows_with,
};
use mm_core::{DType, Error, Generative, InputSet, Learner, LossParts, Modality, Module, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of an [`AdversarialAutoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdversarialAutoencoderConfig {
    /// Width of the code.
    pub width: i64,
    /// The networks.
    pub network: NetworkConfig,
    /// The critic of codes.
    pub critic: CriticConfig,
    /// Weight of passing for the prior beside making the values again.
    pub weight: f64,
}

impl Default for AdversarialAutoencoderConfig {
    fn default() -> Self {
        Self { width: 64, network: NetworkConfig::default(), critic: CriticConfig::default(), weight: 0.01 }
    }
}

/// Values → codes that look drawn from the prior → the values again.
pub struct AdversarialAutoencoder {
    modality: Modality,
    down: Down,
    up: Up,
    likelihood: Likelihood,
    adversary: Adversary,
    config: AdversarialAutoencoderConfig,
    device: mm_core::Device,
}

impl AdversarialAutoencoder {
    /// Networks `encoder`, `decoder` and `critic` under `scope`.
    pub fn new(
        scope: &Scope<'_>,
        (modality, spec): (&Modality, &Spec),
        config: &AdversarialAutoencoderConfig,
    ) -> Result<Self> {
        let c = config;
        if c.width < 1 || c.weight < 0.0 || matches!(spec.values, Values::Symbols(_)) {
            let found = format!("{}, {}, {:?}", c.width, c.weight, spec.values);
            return Err(Error::config(
                "model.width, weight, inputs",
                found,
                "a width of at least 1, no negative weight, numbers",
            ));
        }
        let codes = Spec { shape: vec![c.width], values: Values::Real };
        Ok(Self {
            modality: modality.clone(),
            down: Down::new(&scope.pp("encoder"), spec, c.width, &c.network)?,
            up: Up::new(&scope.pp("decoder"), c.width, spec, &c.network)?,
            likelihood: Likelihood::new(&scope.pp("likelihood"), spec)?,
            adversary: Adversary::new(&scope.pp("critic"), &codes, 0, &c.critic)?,
            config: c.clone(),
            device: scope.device(),
        })
    }
}

impl Learner for AdversarialAutoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossParts>> {
        let Some((values, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let c = &self.config;
        let code = self.down.forward(&values, train)?;
        let error = self.likelihood.error(&self.up.forward(&code, train)?, &values)?.mean()?;
        let prior = Tensor::randn(&code.shape(), DType::F32, code.device())?;
        let still = code.detach()?;
        let (adversary, losses) = (&self.adversary, c.critic.loss);
        let (real, made) = adversary.critic.scores((&prior, None), (&still, None), train)?;
        let critic_loss = adversary.penalized(losses.critic(&real, &made)?, (&prior, None), &still, train)?;
        let maker_loss = losses.maker(&adversary.shadow_score(&code, None)?)?;
        let parts = vec![
            ("reconstruction".to_owned(), error.to_f64()?),
            ("critic_loss".into(), critic_loss.to_f64()?),
            ("maker_loss".into(), maker_loss.to_f64()?),
            ("code_deviation".into(), still.std_dims(&[0], false, false)?.mean()?.to_f64()?),
        ];
        Ok(Some((error.add(&maker_loss.mul_scalar(c.weight)?)?.add(&critic_loss)?, parts)))
    }

    fn code(&self, set: &InputSet) -> Result<Tensor> {
        self.down.forward(&set.get(&self.modality)?.0.values, false)
    }

    fn width(&self) -> i64 {
        self.config.width
    }

    fn generative(&self) -> Option<&dyn Generative> {
        Some(self)
    }
}

impl Generative for AdversarialAutoencoder {
    fn makes(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    fn decode(&self, code: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.up.forward(code, false)
    }

    fn draw(&self, rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        Tensor::randn(&[rows, self.config.width], DType::F32, self.device).map(Some)
    }
}
