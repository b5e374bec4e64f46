//! The generative adversarial network for small pictures (DCGAN's shape, Radford 2016), maybe told what to make: then the discriminator also
//! sees real pictures beside a wrong condition (Reed 2016). With little data both sides see every picture changed alike (DiffAugment,
//! Zhao 2020).

use super::{DiscriminatorConfig, DiscriminatorPair, spread};
use crate::generative::{
    InputSpec, InputSpecs, ValueType,
    networks::{DecoderNet, NetworkConfig},
};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor,
    nn::{Linear, Norm, NormConfig},
};
use serde::{Deserialize, Serialize};

/// Settings of a [`Gan`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GanConfig {
    /// Width of the noise that pictures are made of.
    pub latent_dim: i64,
    /// Width that the condition is brought to.
    pub condition_dim: i64,
    /// The modality that says what to make; none when absent.
    pub condition: Option<Modality>,
    /// The generator's network.
    pub generator: NetworkConfig,
    /// The discriminator.
    pub discriminator: DiscriminatorConfig,
    /// Whether pictures are shifted, brightened and partly covered before the discriminator sees them.
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

struct Told {
    modality: Modality,
    linear: Linear,
    norm: Norm,
    width: i64,
}

/// Noise (and a condition) → pictures that pass for real.
pub struct Gan {
    modality: Modality,
    told: Option<Told>,
    up: DecoderNet,
    adversary: DiscriminatorPair,
    config: GanConfig,
}

impl Gan {
    /// Networks `generator` and `discriminator` under `scope`.
    pub fn new(scope: &Scope<'_>, specs: &InputSpecs, config: &GanConfig) -> Result<Self> {
        let c = config;
        let known = || specs.keys().map(Modality::name);
        if c.latent_dim < 1 || c.condition_dim < 1 {
            return Err(Error::config(
                "model.latent_dim, condition_dim",
                format!("{}, {}", c.latent_dim, c.condition_dim),
                "positive widths",
            ));
        }
        if let Some(name) = c.condition.as_ref().filter(|m| !specs.contains_key(m)) {
            return Err(Error::unknown("modality in model.condition", name.name(), known()));
        }
        let made: Vec<(&Modality, &InputSpec)> =
            specs.iter().filter(|(m, _)| Some(*m) != c.condition.as_ref()).collect();
        let [(modality, spec)] = made.as_slice() else {
            let found = known().collect::<Vec<_>>().join(", ");
            return Err(Error::config("inputs", found, "one modality to make, beside the condition if there is one"));
        };
        let generator = scope.pp("generator");
        let told = match c.condition.as_ref().and_then(|m| specs.get_key_value(m)) {
            None => None,
            Some((name, spec)) => {
                if matches!(spec.value_type, ValueType::Tokens(_)) {
                    let wanted = "numbers: words (kind = \"bag_of_words\") or an encoder's vectors";
                    return Err(Error::config(format!("inputs.{name}"), "symbols", wanted));
                }
                Some(Told {
                    modality: name.clone(),
                    linear: Linear::new(&generator.pp("told"), spec.numel(), c.condition_dim, true)?,
                    norm: Norm::new(&generator.pp("told_norm"), c.condition_dim, NormConfig::default())?,
                    width: spec.numel(),
                })
            }
        };
        let beside = told.as_ref().map_or(0, |t| t.width);
        let inputs = c.latent_dim + told.as_ref().map_or(0, |_| c.condition_dim);
        Ok(Self {
            modality: (*modality).clone(),
            up: DecoderNet::new(&generator.pp("network"), inputs, spec, &c.generator)?,
            adversary: DiscriminatorPair::new(&scope.pp("discriminator"), spec, beside, &c.discriminator)?,
            told,
            config: c.clone(),
        })
    }

    /// Noise, and beside it what the generator is told.
    fn latent(&self, rows: i64, condition: Option<&Tensor>, like: &Tensor) -> Result<Tensor> {
        let noise = Tensor::randn(&[rows, self.config.latent_dim], DType::F32, like.device())?;
        match (&self.told, condition) {
            (Some(told), Some(condition)) => {
                let told = told.norm.forward(&told.linear.forward(condition, false)?, false)?;
                Tensor::cat(&[&noise, &told], 1)
            }
            _ => Ok(noise),
        }
    }
}

/// The same change for a whole batch: shifted by up to an eighth, brighter or darker, a quarter of it covered.
struct DiffAugment {
    shift: [i64; 2],
    brightness: f64,
    cover: [i64; 2],
}

impl DiffAugment {
    fn draw(shape: &[i64]) -> Result<Self> {
        let random = Tensor::rand(&[5], DType::F64, mm_core::Device::Cpu)?.to_vec::<f64>()?;
        let (height, width) = (shape[2], shape[3]);
        let within = |r: f64, most: i64| ((r * 2.0 - 1.0) * most as f64).round() as i64;
        Ok(Self {
            shift: [within(random[0], height / 8), within(random[1], width / 8)],
            brightness: (random[2] - 0.5) * 0.5,
            cover: [(random[3] * (height / 2 + 1) as f64) as i64, (random[4] * (width / 2 + 1) as f64) as i64],
        })
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (height, width) = (x.size(2)?, x.size(3)?);
        let [dy, dx] = self.shift;
        let (my, mx) = (dy.abs(), dx.abs());
        let moved = x.pad(&[mx, mx, my, my], 1.0)?.narrow(2, my - dy, height)?.narrow(3, mx - dx, width)?;
        let rows = Tensor::arange(0, height, x.device())?.unsqueeze(1)?;
        let columns = Tensor::arange(0, width, x.device())?.unsqueeze(0)?;
        let inside = |places: &Tensor, from: i64, length: i64| -> Result<Tensor> {
            places
                .gt_scalar(from as f64 - 0.5)?
                .logical_and(&places.gt_scalar((from + length) as f64 - 0.5)?.logical_not()?)
        };
        let covered =
            inside(&rows, self.cover[0], height / 2)?.logical_and(&inside(&columns, self.cover[1], width / 2)?)?;
        moved.add_scalar(self.brightness)?.masked_fill(&covered, 0.5)
    }
}

impl RepresentationLearner for Gan {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let (input, present) = set.get(&self.modality)?;
        let mut there = present.clone();
        let mut condition = None;
        if let Some(told) = &self.told {
            let (values, also) = set.get(&told.modality)?;
            there = there.logical_and(also)?;
            condition = Some(&values.values);
        }
        let rows = there.nonzero()?;
        if rows.numel() < 2 {
            return Ok(None);
        }
        let real = input.values.index_select(0, &rows)?;
        let condition = condition.map(|c| c.index_select(0, &rows)).transpose()?;
        let count = real.size(0)?;
        let made = self.up.forward(&self.latent(count, condition.as_ref(), &real)?, train)?;
        let diversity = spread(&made)? / spread(&real)?.max(1e-9);
        let change =
            if self.config.diff_augment && real.rank() == 4 { Some(DiffAugment::draw(&real.shape())?) } else { None };
        let changed = |x: &Tensor| change.as_ref().map_or_else(|| Ok(x.clone()), |c| c.apply(x));
        let (real, made) = (changed(&real)?, changed(&made)?);
        let (beside, adversary, losses) = (condition.as_ref(), &self.adversary, self.config.discriminator.loss);
        let fake_detached = made.detach()?;
        let (real_scores, made_scores) =
            adversary.discriminator.scores((&real, beside), (&fake_detached, beside), train)?;
        let mut discriminator_loss = losses.discriminator(&real_scores, &made_scores)?;
        if let Some(condition) = &condition {
            // A real picture of something else: half of what is wrong.
            let wrong = adversary.discriminator.score(&real, Some(&condition.roll(&[1], &[0])?), train)?;
            discriminator_loss =
                discriminator_loss.add(&losses.discriminator(&real_scores, &wrong)?)?.mul_scalar(0.5)?;
        }
        let discriminator_loss = adversary.penalized(discriminator_loss, (&real, beside), &fake_detached, train)?;
        let generator_loss = losses.generator(&adversary.shadow_score(&made, beside)?)?;
        let parts = vec![
            ("discriminator_loss".to_owned(), discriminator_loss.to_f64()?),
            ("generator_loss".into(), generator_loss.to_f64()?),
            ("score_real".into(), real_scores.mean()?.to_f64()?),
            ("score_fake".into(), made_scores.mean()?.to_f64()?),
            // Near 1 what is made is as various as what is real; towards 0 the generator has collapsed.
            ("diversity_ratio".into(), diversity),
        ];
        Ok(Some((discriminator_loss.add(&generator_loss)?, parts)))
    }

    /// The discriminator's features.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let values = &set.get(&self.modality)?.0.values;
        let beside = match &self.told {
            None => None,
            Some(told) => match set.parts.get(&told.modality) {
                Some((input, _)) => Some(input.values.clone()),
                None => Some(Tensor::zeros(&[set.rows, told.width], DType::F32, values.device())?),
            },
        };
        self.adversary.discriminator.features(values, beside.as_ref(), false)
    }

    fn dim(&self) -> i64 {
        self.adversary.discriminator.dim()
    }

    /// What it is told is no value that it judges.
    fn accepts(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    /// Its code is what the discriminator sees, which the generator does not read.
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

    fn decode(&self, code: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.up.forward(code, false)
    }

    fn sample_prior(&self, rows: i64, condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        let condition = match (&self.told, condition) {
            (Some(told), Some(set)) => Some(set.get(&told.modality)?.0.values.clone()),
            (Some(_), None) => return Ok(None),
            (None, _) => None,
        };
        let like = condition.clone().map_or_else(|| Tensor::zeros(&[1], DType::F32, mm_core::Device::Cpu), Ok)?;
        self.latent(rows, condition.as_ref(), &like).map(Some)
    }
}
