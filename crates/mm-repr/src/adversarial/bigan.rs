//! The bidirectional adversarial network (BiGAN, Donahue 2017; ALI, Dumoulin 2017): the critic sees a value beside a code, and the
//! encoder's pairs must not be told from the maker's: then each undoes the other.

use super::{Adversary, CriticConfig, spread};
use crate::generative::{
    Spec, Values,
    networks::{Down, Likelihood, NetworkConfig, Up},
    rows_with,
};
use mm_core::{
    DType, Error, Generative, InputSet, Learner, LossParts, Modality, Module, Result, Scope, Tensor, without_grad,
};
use serde::{Deserialize, Serialize};

/// Settings of a [`BiGan`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiGanConfig {
    /// Width of the code.
    pub width: i64,
    /// The networks of encoder and maker.
    pub network: NetworkConfig,
    /// The critic.
    pub critic: CriticConfig,
}

impl Default for BiGanConfig {
    fn default() -> Self {
        Self { width: 64, network: NetworkConfig::default(), critic: CriticConfig::default() }
    }
}

/// Values ↔ codes, neither ever compared with its own again.
pub struct BiGan {
    modality: Modality,
    down: Down,
    up: Up,
    likelihood: Likelihood,
    adversary: Adversary,
    config: BiGanConfig,
    device: mm_core::Device,
}

impl BiGan {
    /// Networks `encoder`, `decoder` and `critic` under `scope`.
    pub fn new(scope: &Scope<'_>, (modality, spec): (&Modality, &Spec), config: &BiGanConfig) -> Result<Self> {
        let c = config;
        if c.width < 1 || matches!(spec.values, Values::Symbols(_)) {
            let found = format!("{}, {:?}", c.width, spec.values);
            return Err(Error::config("model.width, inputs", found, "a width of at least 1, and numbers"));
        }
        Ok(Self {
            modality: modality.clone(),
            down: Down::new(&scope.pp("encoder"), spec, c.width, &c.network)?,
            up: Up::new(&scope.pp("decoder"), c.width, spec, &c.network)?,
            // Only to measure with: its scale is not learned here.
            likelihood: Likelihood::new(&scope.pp("likelihood").frozen(), spec)?,
            adversary: Adversary::new(&scope.pp("critic"), spec, c.width, &c.critic)?,
            config: c.clone(),
            device: scope.device(),
        })
    }
}

impl Learner for BiGan {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossParts>> {
        let Some((values, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let (adversary, losses) = (&self.adversary, self.config.critic.loss);
        let code = self.down.forward(&values, train)?;
        let drawn = Tensor::randn(&code.shape(), DType::F32, code.device())?;
        let made = self.up.forward(&drawn, train)?;
        let (still_code, still_made) = (code.detach()?, made.detach()?);
        let pair = (&values, Some(&still_code));
        let (real, fake) = adversary.critic.scores(pair, (&still_made, Some(&drawn)), train)?;
        let critic_loss = adversary.penalized(losses.critic(&real, &fake)?, pair, &still_made, train)?;
        // The maker wants its pairs taken for the encoder's, and the encoder its own for the maker's.
        let maker = losses.maker(&adversary.shadow_score(&made, Some(&drawn))?)?;
        let encoder = losses.maker(&adversary.shadow_score(&values, Some(&code))?.neg()?)?;
        let error = without_grad(|| self.likelihood.error(&self.up.forward(&code, false)?, &values)?.mean()?.to_f64())?;
        let parts = vec![
            ("critic_loss".to_owned(), critic_loss.to_f64()?),
            ("maker_loss".into(), maker.to_f64()?),
            ("encoder_loss".into(), encoder.to_f64()?),
            ("reconstruction".into(), error),
            ("diversity".into(), spread(&made)? / spread(&values)?.max(1e-9)),
        ];
        Ok(Some((critic_loss.add(&maker)?.add(&encoder)?, parts)))
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

impl Generative for BiGan {
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
