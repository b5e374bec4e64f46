//! Translation between the features of two modalities and back: what is translated there and back must be what it was (CycleGAN, Zhu
//! 2017), must pass for the other modality (a discriminator for each), and where pairs are known must be the other's. The code on the way is a
//! representation of both that needs one of them alone (MCTN, Pham 2019).

use super::{DiscriminatorConfig, DiscriminatorPair, GanLoss};
use crate::generative::{
    InputSpec, InputSpecs, ValueType,
    networks::{DecoderNet, EncoderNet, NetworkConfig},
    rows_with,
};
use mm_core::{DType, Error, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of a [`Translation`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TranslationConfig {
    /// Width of the code on the way.
    pub latent_dim: i64,
    /// The networks of both ways.
    pub network: NetworkConfig,
    /// Weight of the distance to the other half of a pair.
    pub paired_weight: f64,
    /// Weight of the distance to what it was, after there and back.
    pub cycle_weight: f64,
    /// Weight of passing for the other modality; 0 for no critics.
    pub adversarial_weight: f64,
    /// The critics.
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

struct Side {
    modality: Modality,
    down: EncoderNet,
    up: DecoderNet,
    adversary: DiscriminatorPair,
}

/// Features of one modality ↔ features of the other.
pub struct Translation {
    sides: [Side; 2],
    config: TranslationConfig,
}

impl Translation {
    /// Networks `NAME.encoder`, `NAME.decoder` and `NAME.discriminator` under `scope`.
    pub fn new(scope: &Scope<'_>, specs: &InputSpecs, config: &TranslationConfig) -> Result<Self> {
        let c = config;
        let weights = [c.paired_weight, c.cycle_weight, c.adversarial_weight];
        if c.latent_dim < 1 || weights.iter().any(|w| w.is_nan() || *w < 0.0) || weights.iter().sum::<f64>() == 0.0 {
            let found = format!("{}, {weights:?}", c.latent_dim);
            let wanted = "a width of at least 1, and weights of which one at least is positive and none negative";
            return Err(Error::config(
                "model.latent_dim, paired_weight, cycle_weight, adversarial_weight",
                found,
                wanted,
            ));
        }
        let side = |modality: &Modality, spec: &InputSpec| -> Result<Side> {
            if matches!(spec.value_type, ValueType::Tokens(_) | ValueType::Binary) {
                let found = format!("{:?}", spec.value_type);
                return Err(Error::config(
                    format!("inputs.{modality}"),
                    found,
                    "vectors (kind = \"features\" or \"vector\")",
                ));
            }
            let place = scope.pp(modality);
            Ok(Side {
                modality: modality.clone(),
                down: EncoderNet::new(&place.pp("encoder"), spec, c.latent_dim, &c.network)?,
                up: DecoderNet::new(&place.pp("decoder"), c.latent_dim, spec, &c.network)?,
                adversary: DiscriminatorPair::new(&place.pp("discriminator"), spec, 0, &c.discriminator)?,
            })
        };
        let sides = specs.iter().map(|(m, s)| side(m, s)).collect::<Result<Vec<_>>>()?;
        let sides: [Side; 2] = sides
            .try_into()
            .map_err(|s: Vec<_>| Error::config("inputs", format!("{} modalities", s.len()), "exactly two"))?;
        Ok(Self { sides, config: c.clone() })
    }

    fn translate(&self, from: usize, values: &Tensor, train: bool) -> Result<Tensor> {
        self.sides[1 - from].up.forward(&self.sides[from].down.forward(values, train)?, train)
    }
}

fn squared(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.sub(b)?.pow(2.0)?.mean()
}

impl RepresentationLearner for Translation {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let c = &self.config;
        let (mut total, mut parts): (Option<Tensor>, Vec<(String, f64)>) = (None, Vec::new());
        let mut add = |name: String, value: &Tensor, weight: f64| -> Result<()> {
            parts.push((name, value.to_f64()?));
            let term = value.mul_scalar(weight)?;
            total = Some(match &total {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
            Ok(())
        };
        let both = set.get(&self.sides[0].modality)?.1.logical_and(&set.get(&self.sides[1].modality)?.1)?;
        let paired = both.nonzero()?;
        for from in [0, 1] {
            let (own, other) = (&self.sides[from], &self.sides[1 - from]);
            let name = format!("{}_{}", own.modality, other.modality);
            if c.paired_weight > 0.0 && paired.numel() > 0 {
                let given = set.get(&own.modality)?.0.values.index_select(0, &paired)?;
                let wanted = set.get(&other.modality)?.0.values.index_select(0, &paired)?;
                add(
                    format!("paired_loss_{name}"),
                    &squared(&self.translate(from, &given, train)?, &wanted)?,
                    c.paired_weight,
                )?;
            }
            if c.cycle_weight == 0.0 && c.adversarial_weight == 0.0 {
                continue;
            }
            let Some((values, _)) = rows_with(set, &own.modality)? else { continue };
            let there = self.translate(from, &values, train)?;
            if c.cycle_weight > 0.0 {
                add(
                    format!("cycle_loss_{name}"),
                    &squared(&self.translate(1 - from, &there, train)?, &values)?,
                    c.cycle_weight,
                )?;
            }
            if c.adversarial_weight > 0.0
                && let Some((real, _)) = rows_with(set, &other.modality)?
            {
                let fake_detached = there.detach()?;
                let (yes, no) = other.adversary.discriminator.scores((&real, None), (&fake_detached, None), train)?;
                add(
                    format!("discriminator_loss_{}", other.modality),
                    &c.discriminator.loss.discriminator(&yes, &no)?,
                    1.0,
                )?;
                let passed = c.discriminator.loss.generator(&other.adversary.shadow_score(&there, None)?)?;
                add(format!("generator_loss_{name}"), &passed, c.adversarial_weight)?;
            }
        }
        Ok(total.map(|t| (t, parts)))
    }

    /// The mean of the codes of the modalities that a row has.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let (mut sum, mut count): (Option<Tensor>, Option<Tensor>) = (None, None);
        for side in &self.sides {
            let Some((input, present)) = set.parts.get(&side.modality) else { continue };
            let there = present.to_dtype(DType::F32)?.unsqueeze(1)?;
            let code = side.down.forward(&input.values, false)?.mul(&there)?;
            sum = Some(sum.map_or_else(|| Ok(code.clone()), |s| s.add(&code))?);
            count = Some(count.map_or_else(|| Ok(there.clone()), |s| s.add(&there))?);
        }
        match (sum, count) {
            (Some(sum), Some(count)) => sum.div(&count.clamp_min(1.0)?),
            _ => Err(Error::config("inputs", "none of the learner's modalities", "at least one of them")),
        }
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    /// The other modality's, translated; its own, when that alone is there, there and back.
    fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        let Some(to) = self.sides.iter().position(|s| s.modality == *modality) else { return Ok(None) };
        let from = 1 - to;
        if let Some((input, _)) = set.parts.get(&self.sides[from].modality) {
            return self.translate(from, &input.values, false).map(Some);
        }
        let there = self.translate(to, &set.get(modality)?.0.values, false)?;
        self.translate(from, &there, false).map(Some)
    }
}
