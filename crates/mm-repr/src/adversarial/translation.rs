//! Cycle-consistent translation between the features of two modalities.

use super::{
    discriminator::{DiscriminatorConfig, DiscriminatorPair},
    gan_loss::GanLoss,
};
use crate::generative::{
    InputSpec, InputSpecs, ValueType,
    batch::{LossTerms, PresentSum, present_rows},
    networks::{DecoderNet, EncoderNet, NetworkConfig},
};
use mm_core::{Error, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of a [`Translation`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TranslationConfig {
    /// Dimension of the latent vector between encoder and decoder.
    pub latent_dim: i64,
    /// Encoder and decoder of both modalities.
    pub network: NetworkConfig,
    /// Weight of the squared distance between a translation and the other half of its pair.
    pub paired_weight: f64,
    /// Weight of the cycle-consistency loss.
    pub cycle_weight: f64,
    /// Weight of the translations' adversarial loss; 0 disables the discriminators.
    pub adversarial_weight: f64,
    /// The discriminators.
    pub discriminator: DiscriminatorConfig,
}

impl Default for TranslationConfig {
    fn default() -> Self {
        Self {
            latent_dim: 256,
            network: NetworkConfig { hidden_dims: vec![512], channels: Vec::new(), dropout: 0.2 },
            paired_weight: 1.0,
            cycle_weight: 0.5,
            adversarial_weight: 0.02,
            discriminator: DiscriminatorConfig { loss: GanLoss::LeastSquares, ..DiscriminatorConfig::default() },
        }
    }
}

struct ModalityBranch {
    modality: Modality,
    encoder: EncoderNet,
    decoder: DecoderNet,
    /// Distinguishes real features of this modality from translations.
    discriminator: DiscriminatorPair,
}

/// Translation between the features of two modalities, trained on pairs, by cycle consistency (*Unpaired Image-to-Image
/// Translation using Cycle-Consistent Adversarial Networks*, [Zhu et al., 2017](https://arxiv.org/abs/1703.10593)) and
/// by a discriminator per modality. The latent is a joint representation that needs only one modality (*Found in
/// Translation*, [Pham et al., 2019](https://arxiv.org/abs/1812.07809)).
pub struct Translation {
    branches: [ModalityBranch; 2],
    config: TranslationConfig,
}

impl Translation {
    /// Networks `NAME.encoder`, `NAME.decoder` and `NAME.discriminator` under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, or the inputs are not two modalities with real values.
    pub fn new(scope: &Scope<'_>, specs: &InputSpecs, config: &TranslationConfig) -> Result<Self> {
        let c = config;
        let weights = [c.paired_weight, c.cycle_weight, c.adversarial_weight];
        if c.latent_dim < 1 || weights.iter().any(|w| w.is_nan() || *w < 0.0) || weights.iter().sum::<f64>() == 0.0 {
            let found = format!("{}, {weights:?}", c.latent_dim);
            let expected = "latent_dim of at least 1, no negative weight and at least one positive weight";
            let field = "model.latent_dim, paired_weight, cycle_weight, adversarial_weight";
            return Err(Error::config(field, found, expected));
        }
        let branch = |modality: &Modality, spec: &InputSpec| -> Result<ModalityBranch> {
            if matches!(spec.value_type, ValueType::Tokens(_) | ValueType::Binary) {
                let expected = "vectors (kind = \"features\" or \"vector\")";
                return Err(Error::config(format!("inputs.{modality}"), format!("{:?}", spec.value_type), expected));
            }
            let scope = scope.pp(modality);
            Ok(ModalityBranch {
                modality: modality.clone(),
                encoder: EncoderNet::new(&scope.pp("encoder"), spec, c.latent_dim, &c.network)?,
                decoder: DecoderNet::new(&scope.pp("decoder"), c.latent_dim, spec, &c.network)?,
                discriminator: DiscriminatorPair::new(&scope.pp("discriminator"), spec, 0, &c.discriminator)?,
            })
        };
        let branches = specs.iter().map(|(m, s)| branch(m, s)).collect::<Result<Vec<_>>>()?;
        let branches: [ModalityBranch; 2] = branches
            .try_into()
            .map_err(|b: Vec<_>| Error::config("inputs", format!("{} modalities", b.len()), "exactly two"))?;
        Ok(Self { branches, config: c.clone() })
    }

    fn translate(&self, from: usize, values: &Tensor, train: bool) -> Result<Tensor> {
        let latent = self.branches[from].encoder.forward(values, train)?;
        self.branches[1 - from].decoder.forward(&latent, train)
    }

    /// Adds the cycle-consistency and adversarial losses of one direction.
    fn add_unpaired_terms(&self, terms: &mut LossTerms, set: &InputSet, from: usize, train: bool) -> Result<()> {
        let c = &self.config;
        if c.cycle_weight == 0.0 && c.adversarial_weight == 0.0 {
            return Ok(());
        }
        let (source, target) = (&self.branches[from], &self.branches[1 - from]);
        let direction = format!("{}_{}", source.modality, target.modality);
        let Some(values) = present_rows(set, &source.modality)? else { return Ok(()) };
        let translated = self.translate(from, &values, train)?;
        if c.cycle_weight > 0.0 {
            let cycled = self.translate(1 - from, &translated, train)?;
            terms.add(format!("cycle_loss_{direction}"), &mse(&cycled, &values)?, c.cycle_weight)?;
        }
        if c.adversarial_weight > 0.0
            && let Some(real) = present_rows(set, &target.modality)?
        {
            let discriminator = &target.discriminator;
            let fake_detached = translated.detach()?;
            let (real_scores, fake_scores) =
                discriminator.trainable.scores((&real, None), (&fake_detached, None), train)?;
            let loss = discriminator.loss(&real_scores, &fake_scores)?;
            let discriminator_loss = discriminator.add_penalty(loss, (&real, None), &fake_detached, train)?;
            terms.add(format!("discriminator_loss_{}", target.modality), &discriminator_loss, 1.0)?;
            let generator_loss = discriminator.generator_loss(&translated, None)?;
            terms.add(format!("generator_loss_{direction}"), &generator_loss, c.adversarial_weight)?;
        }
        Ok(())
    }
}

fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.sub(b)?.pow(2.0)?.mean()
}

impl RepresentationLearner for Translation {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let mut terms = LossTerms::default();
        let has_both = set.get(&self.branches[0].modality)?.1.logical_and(&set.get(&self.branches[1].modality)?.1)?;
        let paired = has_both.nonzero()?;
        for from in [0, 1] {
            let (source, target) = (&self.branches[from], &self.branches[1 - from]);
            if self.config.paired_weight > 0.0 && paired.numel() > 0 {
                let input = set.get(&source.modality)?.0.values.index_select(0, &paired)?;
                let expected = set.get(&target.modality)?.0.values.index_select(0, &paired)?;
                let loss = mse(&self.translate(from, &input, train)?, &expected)?;
                let name = format!("paired_loss_{}_{}", source.modality, target.modality);
                terms.add(name, &loss, self.config.paired_weight)?;
            }
            self.add_unpaired_terms(&mut terms, set, from, train)?;
        }
        Ok(terms.finish())
    }

    /// The mean of the latents of the modalities that each row has.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let mut sum = PresentSum::default();
        for branch in &self.branches {
            if let Some((input, present)) = set.parts.get(&branch.modality) {
                sum.add(&branch.encoder.forward(&input.values, false)?, present)?;
            }
        }
        sum.mean()
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    /// The translation from the other modality, or the cycle through it where only `modality` is present.
    fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        let Some(target) = self.branches.iter().position(|b| b.modality == *modality) else { return Ok(None) };
        let source = 1 - target;
        if let Some((input, _)) = set.parts.get(&self.branches[source].modality) {
            return self.translate(source, &input.values, false).map(Some);
        }
        let translated = self.translate(target, &set.get(modality)?.0.values, false)?;
        self.translate(source, &translated, false).map(Some)
    }
}
