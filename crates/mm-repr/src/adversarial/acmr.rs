//! Adversarial cross-modal retrieval and domain-adversarial training.

use super::gradient_reversal::gradient_reversal;
use crate::generative::{
    InputSpecs,
    batch::{LossTerms, PresentSum},
    networks::{EncoderNet, NetworkConfig},
    warmup::LinearWarmup,
};
use mm_core::{
    DType, Error, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope, Tensor, nn::Linear,
    no_grad,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Factor on unit vectors before a softmax, which could not become confident otherwise.
const LOGIT_SCALE: f64 = 8.0;

/// How the encoders are trained against the modality discriminator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdversarialLoss {
    /// The discriminator's reversed gradient: *Domain-Adversarial Training of Neural Networks* ([Ganin et al.,
    /// 2016](https://arxiv.org/abs/1505.07818)). Its optimum is a wrong, not an uncertain discriminator.
    #[default]
    GradientReversal,
    /// Cross-entropy of the discriminator's output with the uniform distribution: *Simultaneous Deep Transfer Across
    /// Domains and Tasks* ([Tzeng et al., 2015](https://arxiv.org/abs/1510.02192)).
    DomainConfusion,
}

/// Settings of an [`Acmr`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmrConfig {
    /// Dimension of the shared space.
    pub embed_dim: i64,
    /// Encoder of each modality; the default where a modality is not listed.
    pub networks: BTreeMap<String, NetworkConfig>,
    /// Weight of the label classification loss.
    pub label_weight: f64,
    /// Modalities whose labels are used; all when empty.
    pub labeled_modalities: Vec<Modality>,
    /// Weight of the cross-modal triplet loss.
    pub triplet_weight: f64,
    /// Margin of the triplet loss, in cosine similarity.
    pub triplet_margin: f64,
    /// Weight of the squared distance between the embeddings of a row.
    pub pair_weight: f64,
    /// Weight of the adversarial loss after warm-up; 0 disables it.
    pub adversarial_weight: f64,
    /// The adversarial loss.
    pub adversarial_loss: AdversarialLoss,
    /// Hidden dimension of the modality discriminator.
    pub discriminator_hidden_dim: i64,
    /// Training steps over which the adversarial weight grows from 0.
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

impl AcmrConfig {
    fn validate(&self, specs: &InputSpecs, num_classes: i64) -> Result<()> {
        let weights =
            [self.label_weight, self.triplet_weight, self.triplet_margin, self.pair_weight, self.adversarial_weight];
        let dims = [self.embed_dim, self.discriminator_hidden_dim];
        if dims.iter().any(|d| *d < 1) || weights.iter().any(|w| w.is_nan() || *w < 0.0) {
            let field = "model.embed_dim, discriminator_hidden_dim, label_weight, triplet_weight, triplet_margin, \
                         pair_weight, adversarial_weight";
            let expected = "positive dimensions and no negative weight";
            return Err(Error::config(field, format!("{dims:?}, {weights:?}"), expected));
        }
        let known = || specs.keys().map(Modality::name);
        if specs.len() < 2 {
            return Err(Error::config("inputs", known().collect::<Vec<_>>().join(", "), "at least two modalities"));
        }
        if (self.label_weight > 0.0 || self.triplet_weight > 0.0) && num_classes < 2 {
            let expected =
                "rows of at least two labels (data.columns.label), or label_weight = 0 and triplet_weight = 0";
            let found = format!("{num_classes} labels");
            return Err(Error::config("model.label_weight, triplet_weight", found, expected));
        }
        if let Some(name) = self.labeled_modalities.iter().find(|m| !specs.contains_key(m)) {
            return Err(Error::unknown("modality in model.labeled_modalities", name.name(), known()));
        }
        Ok(())
    }
}

/// Embeddings of several modalities in a shared space, trained by label classification, a cross-modal triplet loss,
/// pair distances and an adversarial modality discriminator.
///
/// *Adversarial Cross-Modal Retrieval* ([Wang et al., 2017](https://doi.org/10.1145/3123266.3123326)). With labels of
/// some modalities only, this is domain-adversarial training ([Ganin et al., 2016](https://arxiv.org/abs/1505.07818)).
pub struct Acmr {
    encoders: BTreeMap<Modality, EncoderNet>,
    classifier: Linear,
    discriminator: ModalityDiscriminator,
    /// A copy of the discriminator that receives no gradient.
    detached_discriminator: ModalityDiscriminator,
    warmup: LinearWarmup,
    config: AcmrConfig,
}

/// Two linear layers: embeddings → logits of the modalities.
struct ModalityDiscriminator {
    hidden: Linear,
    output: Linear,
}

impl ModalityDiscriminator {
    fn new(scope: &Scope<'_>, embed_dim: i64, hidden_dim: i64, num_modalities: i64) -> Result<Self> {
        Ok(Self {
            hidden: Linear::new(&scope.pp("hidden"), embed_dim, hidden_dim, true)?,
            output: Linear::new(&scope.pp("output"), hidden_dim, num_modalities, true)?,
        })
    }
}

impl Module for ModalityDiscriminator {
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.output.forward(&self.hidden.forward(x, train)?.relu()?, train)
    }
}

/// The embeddings of the rows that have a modality.
struct Embedded<'a> {
    modality: &'a Modality,
    /// Index of the modality among all.
    index: usize,
    /// Unit vectors, `[present, embed_dim]`.
    embeddings: Tensor,
    /// Indices of the rows, `[present]`.
    rows: Tensor,
    /// Class indices `[present]`, −1 where unknown.
    labels: Option<Tensor>,
}

impl Acmr {
    /// Networks `NAME`, `classifier` and `discriminator` under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, there are too few modalities or labels, or values are token ids.
    pub fn new(scope: &Scope<'_>, specs: &InputSpecs, num_classes: i64, config: &AcmrConfig) -> Result<Self> {
        config.validate(specs, num_classes)?;
        let c = config;
        let mut encoders = BTreeMap::new();
        for (modality, spec) in specs {
            spec.require_numeric(modality)?;
            let network = c.networks.get(modality.name()).cloned().unwrap_or_default();
            encoders.insert(modality.clone(), EncoderNet::new(&scope.pp(modality), spec, c.embed_dim, &network)?);
        }
        let num_modalities = encoders.len() as i64;
        let classifier = Linear::new(&scope.pp("classifier"), c.embed_dim, num_classes.max(1), true)?;
        let discriminator = |scope: &Scope<'_>| {
            ModalityDiscriminator::new(scope, c.embed_dim, c.discriminator_hidden_dim, num_modalities)
        };
        let discriminator_scope = scope.pp("discriminator");
        Ok(Self {
            classifier,
            discriminator: discriminator(&discriminator_scope)?,
            detached_discriminator: discriminator(&discriminator_scope.detached())?,
            encoders,
            warmup: LinearWarmup::new(&scope.pp("adversarial_warmup"), c.adversarial_warmup_steps)?,
            config: c.clone(),
        })
    }

    fn embed(&self, set: &InputSet, train: bool) -> Result<Vec<Embedded<'_>>> {
        let mut embedded = Vec::new();
        for (index, (modality, encoder)) in self.encoders.iter().enumerate() {
            let Some((input, present)) = set.parts.get(modality) else { continue };
            let rows = present.nonzero()?;
            if rows.numel() == 0 {
                continue;
            }
            let embeddings = encoder.forward(&input.values.index_select(0, &rows)?, train)?.normalize()?;
            let labeled = &self.config.labeled_modalities;
            let is_labeled = labeled.is_empty() || labeled.contains(modality);
            let labels = set.labels.as_ref().filter(|_| is_labeled).map(|l| l.index_select(0, &rows)).transpose()?;
            embedded.push(Embedded { modality, index, embeddings, rows, labels });
        }
        Ok(embedded)
    }

    /// For each pair of equal labels across modalities, max(0, hardest negative − positive + margin) in cosine
    /// similarity.
    fn triplet_loss(&self, a: &Embedded<'_>, b: &Embedded<'_>) -> Result<Option<Tensor>> {
        let (Some(labels_a), Some(labels_b)) = (&a.labels, &b.labels) else { return Ok(None) };
        let is_known = |labels: &Tensor| labels.gt_scalar(-0.5);
        let both_known = is_known(labels_a)?.unsqueeze(1)?.logical_and(&is_known(labels_b)?.unsqueeze(0)?)?;
        let positive = labels_a.unsqueeze(1)?.eq(&labels_b.unsqueeze(0)?)?.logical_and(&both_known)?; // [rows a, rows b]
        let negative = positive.logical_not()?.logical_and(&both_known)?;
        let cosine = a.embeddings.matmul(&b.embeddings.transpose(0, 1)?)?;
        let hardest = cosine.masked_fill(&negative.logical_not()?, -2.0)?.amax(1, true)?; // [rows a, 1]
        let violation = hardest.sub(&cosine)?.add_scalar(self.config.triplet_margin)?.relu()?;
        let weight = positive.to_dtype(DType::F32)?;
        violation.mul(&weight)?.sum()?.div(&weight.sum()?.clamp_min(1.0)?).map(Some)
    }

    /// The mean squared distance ‖a − b‖² = 2 (1 − a·b) between the unit embeddings of rows that have both modalities.
    fn pair_loss(a: &Embedded<'_>, b: &Embedded<'_>) -> Result<Tensor> {
        let same_row = a.rows.unsqueeze(1)?.eq(&b.rows.unsqueeze(0)?)?.to_dtype(DType::F32)?;
        let cosine = a.embeddings.matmul(&b.embeddings.transpose(0, 1)?)?;
        let distance = cosine.neg()?.add_scalar(1.0)?.mul_scalar(2.0)?;
        distance.mul(&same_row)?.sum()?.div(&same_row.sum()?.clamp_min(1.0)?)
    }

    fn add_label_losses(&self, terms: &mut LossTerms, embedded: &[Embedded<'_>], train: bool) -> Result<()> {
        if self.config.label_weight == 0.0 {
            return Ok(());
        }
        for e in embedded {
            let has_known = |l: &&Tensor| l.max().and_then(|max| max.to_f64()).unwrap_or(-1.0) >= 0.0;
            if let Some(labels) = e.labels.as_ref().filter(has_known) {
                let logits = self.classifier.forward(&e.embeddings.mul_scalar(LOGIT_SCALE)?, train)?;
                let loss = logits.cross_entropy(labels, -1, 0.0)?;
                terms.add(format!("label_loss_{}", e.modality), &loss, self.config.label_weight)?;
            }
        }
        Ok(())
    }

    fn add_cross_modal_losses(&self, terms: &mut LossTerms, embedded: &[Embedded<'_>]) -> Result<()> {
        let c = &self.config;
        for a in embedded {
            for b in embedded.iter().filter(|b| b.modality != a.modality) {
                if c.triplet_weight > 0.0
                    && let Some(loss) = self.triplet_loss(a, b)?
                {
                    terms.add(format!("triplet_loss_{}_{}", a.modality, b.modality), &loss, c.triplet_weight)?;
                }
                if c.pair_weight > 0.0 && a.modality < b.modality {
                    let loss = Self::pair_loss(a, b)?;
                    terms.add(format!("pair_loss_{}_{}", a.modality, b.modality), &loss, c.pair_weight)?;
                }
            }
        }
        Ok(())
    }

    /// The discriminator is always trained, so that its accuracy can be logged; `adversarial_weight` only affects the
    /// encoders.
    fn add_adversarial_losses(&self, terms: &mut LossTerms, embedded: &[Embedded<'_>], train: bool) -> Result<()> {
        let weight = self.config.adversarial_weight * self.warmup.step(train)?;
        let embeddings: Vec<&Tensor> = embedded.iter().map(|e| &e.embeddings).collect();
        let modalities: Vec<i64> = embedded.iter().flat_map(|e| vec![e.index as i64; e.rows.numel()]).collect();
        let target = Tensor::from_slice(&modalities)?.to_device(embeddings[0].device())?;
        let x = Tensor::cat(&embeddings, 0)?.mul_scalar(LOGIT_SCALE)?;
        let is_confusion = self.config.adversarial_loss == AdversarialLoss::DomainConfusion;
        let input = if is_confusion { x.detach()? } else { gradient_reversal(&x, weight)? };
        let logits = self.discriminator.forward(&input, train)?;
        if is_confusion && weight > 0.0 {
            let confusion = self.detached_discriminator.forward(&x, train)?.log_softmax(1)?.mean()?.neg()?;
            terms.add("confusion_loss", &confusion, weight)?;
        }
        terms.add("discriminator_loss", &logits.cross_entropy(&target, -1, 0.0)?, 1.0)?;
        let accuracy = no_grad(|| logits.argmax(1)?.eq(&target)?.to_dtype(DType::F32)?.mean()?.to_f64())?;
        terms.log("modality_accuracy", accuracy);
        Ok(())
    }
}

impl RepresentationLearner for Acmr {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let embedded = self.embed(set, train)?;
        if embedded.len() < 2 {
            return Ok(None);
        }
        let mut terms = LossTerms::default();
        self.add_label_losses(&mut terms, &embedded, train)?;
        self.add_cross_modal_losses(&mut terms, &embedded)?;
        self.add_adversarial_losses(&mut terms, &embedded, train)?;
        Ok(terms.finish())
    }

    /// The normalized mean of the embeddings of the modalities that each row has.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let mut sum = PresentSum::default();
        for (modality, encoder) in &self.encoders {
            if let Some((input, present)) = set.parts.get(modality) {
                sum.add(&encoder.forward(&input.values, false)?.normalize()?, present)?;
            }
        }
        sum.sum()?.normalize()
    }

    fn dim(&self) -> i64 {
        self.config.embed_dim
    }

    fn is_joint(&self) -> bool {
        true
    }
}
