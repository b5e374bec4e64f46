//! The generative adversarial network, optionally conditional.

use super::{
    diff_augment::DiffAugment,
    discriminator::{DiscriminatorConfig, DiscriminatorPair},
    diversity::diversity_ratio,
};
use crate::generative::{
    InputSpec, InputSpecs,
    networks::{DecoderNet, NetworkConfig},
};
use mm_core::{
    DType, Device, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result,
    Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};
use serde::{Deserialize, Serialize};

/// Settings of a [`Gan`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GanConfig {
    /// Dimension of the noise vector.
    pub latent_dim: i64,
    /// Dimension that the condition is projected to.
    pub condition_dim: i64,
    /// The modality that generation is conditioned on; `None` for an unconditional model.
    pub condition: Option<Modality>,
    /// The generator.
    pub generator: NetworkConfig,
    /// The discriminator.
    pub discriminator: DiscriminatorConfig,
    /// Whether images are augmented before the discriminator sees them (DiffAugment).
    pub diff_augment: bool,
}

impl Default for GanConfig {
    fn default() -> Self {
        Self {
            latent_dim: 64,
            condition_dim: 64,
            condition: None,
            generator: NetworkConfig { hidden_dims: vec![], channels: vec![64, 128, 256], dropout: 0.0 },
            discriminator: DiscriminatorConfig { channels: vec![64, 128, 256], ..DiscriminatorConfig::default() },
            diff_augment: true,
        }
    }
}

/// The condition and its projection.
struct ConditionProjection {
    modality: Modality,
    linear: Linear,
    norm: Norm,
    /// Number of elements of the condition.
    numel: i64,
}

/// A generative adversarial network of images in the shape of DCGAN ([Radford et al.,
/// 2016](https://arxiv.org/abs/1511.06434)). A conditional discriminator also sees real images with mismatched
/// conditions: *Generative Adversarial Text to Image Synthesis* ([Reed et al.,
/// 2016](https://arxiv.org/abs/1605.05396)). The representation is the discriminator's last hidden layer.
pub struct Gan {
    modality: Modality,
    condition: Option<ConditionProjection>,
    generator: DecoderNet,
    discriminator: DiscriminatorPair,
    config: GanConfig,
    device: Device,
}

impl Gan {
    /// Networks `generator` and `discriminator` under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, the condition is no input or holds token ids, or there is not exactly one modality to
    /// generate.
    pub fn new(scope: &Scope<'_>, specs: &InputSpecs, config: &GanConfig) -> Result<Self> {
        let c = config;
        let known = || specs.keys().map(Modality::name);
        if c.latent_dim < 1 || c.condition_dim < 1 {
            let found = format!("{}, {}", c.latent_dim, c.condition_dim);
            return Err(Error::config("model.latent_dim, condition_dim", found, "at least 1"));
        }
        if let Some(name) = c.condition.as_ref().filter(|m| !specs.contains_key(m)) {
            return Err(Error::unknown("modality in model.condition", name.name(), known()));
        }
        let generated: Vec<(&Modality, &InputSpec)> =
            specs.iter().filter(|(m, _)| Some(*m) != c.condition.as_ref()).collect();
        let [(modality, spec)] = generated.as_slice() else {
            let found = known().collect::<Vec<_>>().join(", ");
            return Err(Error::config("inputs", found, "one modality to generate, and the condition if there is one"));
        };
        let generator_scope = scope.pp("generator");
        let condition = match c.condition.as_ref().and_then(|m| specs.get_key_value(m)) {
            None => None,
            Some((modality, spec)) => {
                spec.require_numeric(modality)?;
                let scope = generator_scope.pp("condition");
                Some(ConditionProjection {
                    modality: modality.clone(),
                    linear: Linear::new(&scope.pp("linear"), spec.numel(), c.condition_dim, true)?,
                    norm: Norm::new(&scope.pp("norm"), c.condition_dim, NormConfig::default())?,
                    numel: spec.numel(),
                })
            }
        };
        let (numel, projected_dim) = condition.as_ref().map_or((0, 0), |condition| (condition.numel, c.condition_dim));
        let generator_dim = c.latent_dim + projected_dim;
        Ok(Self {
            modality: (*modality).clone(),
            generator: DecoderNet::new(&generator_scope.pp("network"), generator_dim, spec, &c.generator)?,
            discriminator: DiscriminatorPair::new(&scope.pp("discriminator"), spec, numel, &c.discriminator)?,
            condition,
            config: c.clone(),
            device: scope.device(),
        })
    }

    /// Noise, followed by the projected condition, `[rows, latent_dim + condition_dim]`.
    fn sample_latent(&self, rows: i64, condition: Option<&Tensor>) -> Result<Tensor> {
        let noise = Tensor::randn(&[rows, self.config.latent_dim], DType::F32, self.device)?;
        match (&self.condition, condition) {
            (Some(projection), Some(condition)) => {
                let projected = projection.norm.forward(&projection.linear.forward(condition, false)?, false)?;
                Tensor::cat(&[&noise, &projected], 1)
            }
            _ => Ok(noise),
        }
    }

    /// Real images and their conditions, of the rows that have both; `None` for less than two.
    fn real_samples(&self, set: &InputSet) -> Result<Option<(Tensor, Option<Tensor>)>> {
        let (input, present) = set.get(&self.modality)?;
        let mut present = present.clone();
        let mut condition = None;
        if let Some(projection) = &self.condition {
            let (values, has_condition) = set.get(&projection.modality)?;
            present = present.logical_and(has_condition)?;
            condition = Some(&values.values);
        }
        let rows = present.nonzero()?;
        if rows.numel() < 2 {
            return Ok(None);
        }
        let condition = condition.map(|c| c.index_select(0, &rows)).transpose()?;
        Ok(Some((input.values.index_select(0, &rows)?, condition)))
    }
}

impl RepresentationLearner for Gan {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some((real, condition)) = self.real_samples(set)? else { return Ok(None) };
        let condition = condition.as_ref();
        let latent = self.sample_latent(real.size(0)?, condition)?;
        let fake = self.generator.forward(&latent, train)?;
        let diversity_ratio = diversity_ratio(&fake, &real)?;
        let (real, fake) = if self.config.diff_augment && real.rank() == 4 {
            let augment = DiffAugment::sample(&real.shape())?;
            (augment.apply(&real)?, augment.apply(&fake)?)
        } else {
            (real, fake)
        };
        let fake_detached = fake.detach()?;
        let discriminator = &self.discriminator;
        let (real_scores, fake_scores) =
            discriminator.trainable.scores((&real, condition), (&fake_detached, condition), train)?;
        let mut discriminator_loss = discriminator.loss(&real_scores, &fake_scores)?;
        if let Some(condition) = condition {
            // Real images with mismatched conditions are the other half of the negatives.
            let mismatched = condition.roll(&[1], &[0])?;
            let mismatched_scores = discriminator.trainable.score(&real, Some(&mismatched), train)?;
            let mismatched_loss = discriminator.loss(&real_scores, &mismatched_scores)?;
            discriminator_loss = discriminator_loss.add(&mismatched_loss)?.mul_scalar(0.5)?;
        }
        let discriminator_loss =
            discriminator.add_penalty(discriminator_loss, (&real, condition), &fake_detached, train)?;
        let generator_loss = discriminator.generator_loss(&fake, condition)?;
        let metrics = vec![
            ("discriminator_loss".to_owned(), discriminator_loss.to_f64()?),
            ("generator_loss".into(), generator_loss.to_f64()?),
            ("score_real".into(), real_scores.mean()?.to_f64()?),
            ("score_fake".into(), fake_scores.mean()?.to_f64()?),
            ("diversity_ratio".into(), diversity_ratio),
        ];
        Ok(Some((discriminator_loss.add(&generator_loss)?, metrics)))
    }

    /// The discriminator's features, with a zero condition where there is none.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let values = &set.get(&self.modality)?.0.values;
        let condition = match &self.condition {
            None => None,
            Some(projection) => match set.parts.get(&projection.modality) {
                Some((input, _)) => Some(input.values.clone()),
                None => Some(Tensor::zeros(&[set.rows, projection.numel], DType::F32, values.device())?),
            },
        };
        self.discriminator.trainable.features(values, condition.as_ref(), false)
    }

    fn dim(&self) -> i64 {
        self.discriminator.trainable.dim()
    }

    /// Only the generated modality: the condition alone has no representation.
    fn accepts(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    /// `None`: the generator does not decode the discriminator's features.
    fn reconstruct(&self, _set: &InputSet, _modality: &Modality) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(self)
    }
}

impl GenerativeDecoder for Gan {
    fn generates(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    fn decode(&self, latent: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.generator.forward(latent, false)
    }

    fn sample_prior(&self, rows: i64, condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        let condition = match (&self.condition, condition) {
            (Some(projection), Some(set)) => Some(&set.get(&projection.modality)?.0.values),
            (Some(_), None) => return Ok(None),
            (None, _) => None,
        };
        self.sample_latent(rows, condition).map(Some)
    }
}
