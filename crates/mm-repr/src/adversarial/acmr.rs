//! Adversarial cross-modal retrieval (ACMR, Wang 2017): features of each modality go into one space in which labels can be read, what is
//! alike lies together across modalities (triplets), and a discriminator behind a gradient reversal cannot tell which modality a vector
//! came from. With labels of some modalities alone it is domain-adversarial training (DANN, Ganin 2016), the others being the domain
//! without labels.

use super::gradient_reversal;
use crate::generative::{
    InputSpecs, LinearWarmup, ValueType,
    networks::{EncoderNet, NetworkConfig},
};
use mm_core::{
    DType, Error, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope, Tensor, nn::Linear,
    no_grad,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a discriminator drives modalities together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdversarialLoss {
    /// The discriminator's gradient turned round (Ganin 2016): it may overshoot, for being wrong is worth more than knowing nothing.
    #[default]
    GradientReversal,
    /// The discriminator should find every modality as likely (domain confusion, Tzeng 2015): at rest when nothing can be told.
    DomainConfusion,
}

/// Settings of an [`Acmr`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmrConfig {
    /// Width of the space.
    pub embed_dim: i64,
    /// The networks of each modality; the usual ones where a modality is not named.
    pub networks: BTreeMap<String, NetworkConfig>,
    /// Weight of reading the label.
    pub label_weight: f64,
    /// Modalities whose labels are used; all when empty.
    pub labeled_modalities: Vec<Modality>,
    /// Weight of the triplets: a vector and one of another modality with its label, against one without.
    pub triplet_weight: f64,
    /// Margin of the triplets, in cosines.
    pub triplet_margin: f64,
    /// Weight of the distance between the vectors of one row.
    pub pair_weight: f64,
    /// Weight of what the discriminator does to the space, reached over the warm-up; 0 for none.
    pub adversarial_weight: f64,
    /// How it does so.
    pub adversarial_loss: AdversarialLoss,
    /// Width of the discriminator's layer.
    pub discriminator_hidden_dim: i64,
    /// Training steps over which the adversary's weight grows.
    pub adversarial_warmup_steps: u64,
}

impl Default for AcmrConfig {
    fn default() -> Self {
        Self {
            embed_dim: 64,
            networks: BTreeMap::new(),
            label_weight: 1.0,
            labeled_modalities: Vec::new(),
            triplet_weight: 1.0,
            triplet_margin: 0.2,
            pair_weight: 0.0,
            adversarial_weight: 0.1,
            adversarial_loss: AdversarialLoss::default(),
            discriminator_hidden_dim: 64,
            adversarial_warmup_steps: 200,
        }
    }
}

/// Features of several modalities → one space.
pub struct Acmr {
    ways: BTreeMap<Modality, EncoderNet>,
    classifier: Linear,
    discriminator: (Linear, Linear),
    shadow: (Linear, Linear),
    warm_up: LinearWarmup,
    config: AcmrConfig,
}

/// The vectors of one modality's rows that are there: unit length, their rows, their labels.
struct Side {
    modality: Modality,
    code: Tensor,
    rows: Tensor,
    labels: Option<Tensor>,
}

impl Acmr {
    /// Networks `NAME`, `classifier` and `discriminator` under `scope`, for labels of so many classes.
    pub fn new(scope: &Scope<'_>, specs: &InputSpecs, classes: i64, config: &AcmrConfig) -> Result<Self> {
        let c = config;
        let weights = [c.label_weight, c.triplet_weight, c.pair_weight, c.adversarial_weight, c.triplet_margin];
        if c.embed_dim < 1 || c.discriminator_hidden_dim < 1 || weights.iter().any(|w| w.is_nan() || *w < 0.0) {
            let found = format!("{}, {}, {weights:?}", c.embed_dim, c.discriminator_hidden_dim);
            return Err(Error::config(
                "model.width, discriminator, weights",
                found,
                "positive widths, no negative weight",
            ));
        }
        let known = || specs.keys().map(Modality::name);
        if specs.len() < 2 {
            return Err(Error::config("inputs", known().collect::<Vec<_>>().join(", "), "at least two modalities"));
        }
        if (c.label_weight > 0.0 || c.triplet_weight > 0.0) && classes < 2 {
            let wanted = "rows of at least two labels (data.columns.label), or label = 0 and triplet = 0";
            return Err(Error::config("model.label, triplet", format!("{classes} labels"), wanted));
        }
        if let Some(name) = c.labeled_modalities.iter().find(|m| !specs.contains_key(m)) {
            return Err(Error::unknown("modality in model.labelled", name.name(), known()));
        }
        let mut ways = BTreeMap::new();
        for (modality, spec) in specs {
            if matches!(spec.value_type, ValueType::Tokens(_)) {
                let wanted = "numbers: words (kind = \"bag_of_words\") or an encoder's vectors";
                return Err(Error::config(format!("inputs.{modality}"), "symbols", wanted));
            }
            let network = c.networks.get(modality.name()).cloned().unwrap_or_default();
            ways.insert(modality.clone(), EncoderNet::new(&scope.pp(modality), spec, c.embed_dim, &network)?);
        }
        let count = ways.len() as i64;
        let layers = |place: &Scope<'_>| -> Result<(Linear, Linear)> {
            Ok((
                Linear::new(&place.pp("first"), c.embed_dim, c.discriminator_hidden_dim, true)?,
                Linear::new(&place.pp("second"), c.discriminator_hidden_dim, count, true)?,
            ))
        };
        let discriminator = scope.pp("discriminator");
        Ok(Self {
            classifier: Linear::new(&scope.pp("classifier"), c.embed_dim, classes.max(1), true)?,
            discriminator: layers(&discriminator)?,
            shadow: layers(&discriminator.detached())?,
            ways,
            warm_up: LinearWarmup::new(&scope.pp("warm_up"), c.adversarial_warmup_steps)?,
            config: c.clone(),
        })
    }

    fn sides(&self, set: &InputSet, train: bool) -> Result<Vec<Side>> {
        let mut out = Vec::new();
        for (modality, way) in &self.ways {
            let Some((input, present)) = set.parts.get(modality) else { continue };
            let rows = present.nonzero()?;
            if rows.numel() == 0 {
                continue;
            }
            let code = way.forward(&input.values.index_select(0, &rows)?, train)?.normalize()?;
            let used = self.config.labeled_modalities.is_empty() || self.config.labeled_modalities.contains(modality);
            let labels = set.labels.as_ref().filter(|_| used).map(|l| l.index_select(0, &rows)).transpose()?;
            out.push(Side { modality: modality.clone(), code, rows, labels });
        }
        Ok(out)
    }

    /// Each vector of `a` with each of `b` of its label must lie nearer than the nearest of another label, by the margin.
    fn triplets(&self, a: &Side, b: &Side) -> Result<Option<Tensor>> {
        let (Some(left), Some(right)) = (&a.labels, &b.labels) else { return Ok(None) };
        let known = |l: &Tensor| l.gt_scalar(-0.5);
        let both = known(left)?.unsqueeze(1)?.logical_and(&known(right)?.unsqueeze(0)?)?;
        let same = left.unsqueeze(1)?.eq(&right.unsqueeze(0)?)?.logical_and(&both)?; // [rows of a, rows of b]
        let other = same.logical_not()?.logical_and(&both)?;
        let cosine = a.code.matmul(&b.code.transpose(0, 1)?)?;
        let hardest = cosine.masked_fill(&other.logical_not()?, -2.0)?.amax(1, true)?; // [rows of a, 1]
        let short = hardest.sub(&cosine)?.add_scalar(self.config.triplet_margin)?.relu()?;
        let counted = same.to_dtype(DType::F32)?;
        short.mul(&counted)?.sum()?.div(&counted.sum()?.clamp_min(1.0)?).map(Some)
    }

    /// The mean squared distance between the vectors of rows that have both.
    fn pairs(a: &Side, b: &Side) -> Result<Tensor> {
        let same = a.rows.unsqueeze(1)?.eq(&b.rows.unsqueeze(0)?)?.to_dtype(DType::F32)?;
        let off = a.code.matmul(&b.code.transpose(0, 1)?)?.neg()?.add_scalar(1.0)?.mul_scalar(2.0)?;
        off.mul(&same)?.sum()?.div(&same.sum()?.clamp_min(1.0)?)
    }

    fn place(&self, modality: &Modality) -> i64 {
        self.ways.keys().position(|m| m == modality).unwrap_or(0) as i64
    }
}

impl RepresentationLearner for Acmr {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let c = &self.config;
        let sides = self.sides(set, train)?;
        if sides.len() < 2 {
            return Ok(None);
        }
        let (mut total, mut parts): (Option<Tensor>, Vec<(String, f64)>) = (None, Vec::new());
        let mut add = |name: &str, value: &Tensor, weight: f64| -> Result<()> {
            parts.push((name.to_owned(), value.to_f64()?));
            let term = value.mul_scalar(weight)?;
            total = Some(match &total {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
            Ok(())
        };
        if c.label_weight > 0.0 {
            for side in &sides {
                if let Some(labels) =
                    side.labels.as_ref().filter(|l| l.max().and_then(|m| m.to_f64()).unwrap_or(-1.0) >= 0.0)
                {
                    // Vectors of unit length are stretched, or the softmax could not be sure of anything.
                    let logits = self.classifier.forward(&side.code.mul_scalar(8.0)?, train)?;
                    add(
                        &format!("label_loss_{}", side.modality),
                        &logits.cross_entropy(labels, -1, 0.0)?,
                        c.label_weight,
                    )?;
                }
            }
        }
        for a in &sides {
            for b in sides.iter().filter(|b| b.modality != a.modality) {
                if c.triplet_weight > 0.0
                    && let Some(value) = self.triplets(a, b)?
                {
                    add(&format!("triplet_loss_{}_{}", a.modality, b.modality), &value, c.triplet_weight)?;
                }
                if c.pair_weight > 0.0 && a.modality < b.modality {
                    add(&format!("pair_loss_{}_{}", a.modality, b.modality), &Self::pairs(a, b)?, c.pair_weight)?;
                }
            }
        }
        // The discriminator always learns, so that its accuracy can be read; what it tells the rest is the adversary's weight.
        let weight = c.adversarial_weight * self.warm_up.next(train)?;
        let codes: Vec<&Tensor> = sides.iter().map(|s| &s.code).collect();
        let truth: Vec<i64> = sides.iter().flat_map(|s| vec![self.place(&s.modality); s.rows.numel()]).collect();
        let truth = Tensor::from_slice(&truth)?.to_device(codes[0].device())?;
        // Vectors of unit length are stretched, as for the classifier.
        let all = Tensor::cat(&codes, 0)?.mul_scalar(8.0)?;
        let read = |(first, second): &(Linear, Linear), x: &Tensor| -> Result<Tensor> {
            second.forward(&first.forward(x, train)?.relu()?, train)
        };
        let confuses = c.adversarial_loss == AdversarialLoss::DomainConfusion;
        let seen = if confuses { all.detach()? } else { gradient_reversal(&all, weight)? };
        let logits = read(&self.discriminator, &seen)?;
        if confuses && weight > 0.0 {
            // Cross-entropy with all modalities as likely.
            let even = read(&self.shadow, &all)?.log_softmax(1)?.mean()?.neg()?;
            add("confusion_loss", &even, weight)?;
        }
        add("discriminator_loss", &logits.cross_entropy(&truth, -1, 0.0)?, 1.0)?;
        let told = no_grad(|| logits.argmax(1)?.eq(&truth)?.to_dtype(DType::F32)?.mean()?.to_f64())?;
        parts.push(("modality_accuracy".into(), told));
        Ok(total.map(|t| (t, parts)))
    }

    /// The mean of the vectors of the modalities that a row has.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (modality, way) in &self.ways {
            let Some((input, present)) = set.parts.get(modality) else { continue };
            let code = way.forward(&input.values, false)?.normalize()?;
            let code = code.mul(&present.to_dtype(DType::F32)?.unsqueeze(1)?)?;
            sum = Some(sum.map_or_else(|| Ok(code.clone()), |s| s.add(&code))?);
        }
        let none = || Error::config("inputs", "none of the learner's modalities", "at least one of them");
        sum.ok_or_else(none)?.normalize()
    }

    fn dim(&self) -> i64 {
        self.config.embed_dim
    }

    fn is_joint(&self) -> bool {
        true
    }
}
