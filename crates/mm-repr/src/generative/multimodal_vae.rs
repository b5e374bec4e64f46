//! One code for several modalities, any of which may be missing: the bimodal deep autoencoder (Ngiam 2011) and variational ones that join
//! the modalities' posteriors as a product of experts (MVAE, Wu 2018), a mixture (MMVAE, Shi 2019) or a mixture of the products of every
//! subset (MoPoE, Sutter 2021).

use super::{
    InputSpec, InputSpecs, LinearWarmup, VaeConfig, ValueType,
    networks::{DecoderNet, EncoderNet, Likelihood, NetworkConfig},
    vae::{Normal, importance, prior_log_density},
};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor, no_grad,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the modalities are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JointPosterior {
    /// No distribution: the mean of what each modality that is there makes; trained with each missing in turn (Ngiam 2011).
    Deterministic,
    /// Product of experts, the prior among them; trained on the whole and on each modality alone.
    ProductOfExperts,
    /// Mixture of experts.
    MixtureOfExperts,
    /// Mixture of the products of every subset.
    #[default]
    MixtureOfProducts,
}

/// Settings of a [`MultimodalVae`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultimodalVaeConfig {
    /// Width of the code.
    pub latent_dim: i64,
    /// The networks of each modality; the usual ones where a modality is not named.
    pub networks: BTreeMap<String, NetworkConfig>,
    /// How the modalities are joined.
    pub joint_posterior: JointPosterior,
    /// Weight of the divergence from the prior.
    pub beta: f64,
    /// Training steps over which that weight grows from 0.
    pub kl_warmup_steps: u64,
    /// Weight of each modality's likelihood; 1 where it is not named.
    pub likelihood_weights: BTreeMap<String, f64>,
}

impl Default for MultimodalVaeConfig {
    fn default() -> Self {
        Self {
            latent_dim: 64,
            networks: BTreeMap::new(),
            joint_posterior: JointPosterior::default(),
            beta: 1.0,
            kl_warmup_steps: 0,
            likelihood_weights: BTreeMap::new(),
        }
    }
}

struct Way {
    down: EncoderNet,
    up: DecoderNet,
    likelihood: Likelihood,
    weight: f64,
    numbers: i64,
}

/// ValueType of several modalities → one code → the values of all of them.
pub struct MultimodalVae {
    ways: BTreeMap<Modality, Way>,
    warm_up: LinearWarmup,
    config: MultimodalVaeConfig,
}

/// What one modality says of the code, and which rows have it (`[rows]`, 1 or 0).
struct Expert<'a> {
    modality: &'a Modality,
    normal: Normal,
    present: Tensor,
}

impl MultimodalVae {
    /// Networks `NAME.encoder` and `NAME.decoder` under `scope` for each modality.
    pub fn new(scope: &Scope<'_>, specs: &InputSpecs, config: &MultimodalVaeConfig) -> Result<Self> {
        VaeConfig { latent_dim: config.latent_dim, beta: config.beta, ..VaeConfig::default() }.check()?;
        if !(2..=6).contains(&specs.len()) {
            return Err(Error::config(
                "inputs",
                specs.len(),
                "two to six modalities (every subset of them is visited)",
            ));
        }
        let known = || specs.keys().map(Modality::name);
        let named = config.networks.keys().chain(config.likelihood_weights.keys());
        if let Some(name) = named.into_iter().find(|n| !known().any(|k| k == n.as_str())) {
            return Err(Error::unknown("modality in model.networks or model.likelihood_weights", name, known()));
        }
        let outputs = if config.joint_posterior == JointPosterior::Deterministic {
            config.latent_dim
        } else {
            2 * config.latent_dim
        };
        let mut ways = BTreeMap::new();
        for (modality, spec) in specs {
            if matches!(spec.value_type, ValueType::Tokens(_)) {
                let wanted = "numbers: words (kind = \"bag_of_words\") or an encoder's vectors";
                return Err(Error::config(format!("inputs.{modality}"), "symbols", wanted));
            }
            let place = scope.pp(modality);
            let network = config.networks.get(modality.name()).cloned().unwrap_or_default();
            let way = Way {
                down: EncoderNet::new(&place.pp("encoder"), spec, outputs, &network)?,
                up: DecoderNet::new(&place.pp("decoder"), config.latent_dim, spec, &network)?,
                likelihood: Likelihood::new(&place.pp("likelihood"), spec)?,
                weight: config.likelihood_weights.get(modality.name()).copied().unwrap_or(1.0),
                numbers: InputSpec::numel(spec),
            };
            ways.insert(modality.clone(), way);
        }
        let warm_up = LinearWarmup::new(&scope.pp("warm_up"), config.kl_warmup_steps)?;
        Ok(Self { ways, warm_up, config: config.clone() })
    }

    fn deterministic(&self) -> bool {
        self.config.joint_posterior == JointPosterior::Deterministic
    }

    /// What each modality of the set says. Deterministic codes are the means of distributions whose width nobody asks for.
    fn experts<'a>(&'a self, set: &InputSet, train: bool) -> Result<Vec<Expert<'a>>> {
        let mut out = Vec::new();
        for (modality, way) in &self.ways {
            let Some((input, present)) = set.parts.get(modality) else { continue };
            let both = way.down.forward(&input.values, train)?;
            let normal = if self.deterministic() {
                Normal { log_variance: both.zeros_like()?, mean: both }
            } else {
                Normal::split(&both)?
            };
            out.push(Expert { modality, normal, present: present.to_dtype(DType::F32)? });
        }
        if out.is_empty() {
            return Err(Error::config("inputs", "none of the learner's modalities", "at least one of them"));
        }
        Ok(out)
    }

    /// The product of some experts and the prior, for each row of those that it has.
    fn product(experts: &[&Expert<'_>]) -> Result<Normal> {
        let mut precision = experts[0].normal.mean.ones_like()?;
        let mut weighted = precision.zeros_like()?;
        for expert in experts {
            let own = expert.normal.log_variance.neg()?.exp()?.mul(&expert.present.unsqueeze(1)?)?;
            precision = precision.add(&own)?;
            weighted = weighted.add(&expert.normal.mean.mul(&own)?)?;
        }
        Ok(Normal { mean: weighted.div(&precision)?, log_variance: precision.log()?.neg()? })
    }

    /// The mean of the experts' means over those that a row has; the prior's mean for a row that has none.
    fn mean(experts: &[Expert<'_>]) -> Result<Tensor> {
        let mut sum = experts[0].normal.mean.zeros_like()?;
        let mut count = experts[0].present.zeros_like()?;
        for expert in experts {
            sum = sum.add(&expert.normal.mean.mul(&expert.present.unsqueeze(1)?)?)?;
            count = count.add(&expert.present)?;
        }
        sum.div(&count.clamp_min(1.0)?.unsqueeze(1)?)
    }

    /// log density of codes under the mixture of the experts that each row has, `[rows]`.
    fn mixture_log_density(experts: &[Expert<'_>], code: &Tensor) -> Result<Tensor> {
        let mut each = Vec::new();
        let mut count = experts[0].present.zeros_like()?;
        for expert in experts {
            let missing = expert.present.gt_scalar(0.5)?.logical_not()?;
            each.push(expert.normal.log_density(code)?.masked_fill(&missing, -1e30)?);
            count = count.add(&expert.present)?;
        }
        Tensor::stack(&each.iter().collect::<Vec<_>>(), 0)?.logsumexp(0)?.sub(&count.clamp_min(1.0)?.log()?)
    }

    /// −log p of the values that each row has, given codes, over these modalities: `[rows]`.
    fn nats(&self, set: &InputSet, code: &Tensor, over: &[&Modality], weighted: bool, train: bool) -> Result<Tensor> {
        let mut sum = Tensor::zeros(&[set.rows], DType::F32, code.device())?;
        for modality in over {
            let (Some(way), Some((input, present))) = (self.ways.get(*modality), set.parts.get(*modality)) else {
                continue;
            };
            let decoded = way.up.forward(code, train)?;
            let nats = if self.deterministic() {
                way.likelihood.error(&decoded, &input.values)?
            } else {
                way.likelihood.nats(&decoded, &input.values)?
            };
            let weight = if weighted { way.weight } else { 1.0 };
            sum = sum.add(&nats.mul(&present.to_dtype(DType::F32)?)?.mul_scalar(weight)?)?;
        }
        Ok(sum)
    }

    /// The negative bound of one posterior, for the rows (`[rows]`, 1 or 0) that have what it is made of: its sum and their number.
    fn bound(
        &self,
        set: &InputSet,
        posterior: &Normal,
        over: &[&Modality],
        rows: &Tensor,
        beta: f64,
        train: bool,
    ) -> Result<(Tensor, Tensor)> {
        let code = posterior.draw()?;
        let divergence = posterior.divergence()?.sum_dim(&[1], false)?;
        let each = self.nats(set, &code, over, true, train)?.add(&divergence.mul_scalar(beta)?)?;
        Ok((each.mul(rows)?.sum()?, rows.sum()?))
    }

    fn terms(&self, set: &InputSet, experts: &[Expert<'_>], beta: f64, train: bool) -> Result<Vec<(Tensor, Tensor)>> {
        let all: Vec<&Modality> = self.ways.keys().collect();
        let every: Vec<&Expert<'_>> = experts.iter().collect();
        let mut any = experts[0].present.clone();
        for expert in experts {
            any = any.maximum(&expert.present)?;
        }
        let mut terms = Vec::new();
        match self.config.joint_posterior {
            JointPosterior::Deterministic => {
                for (subset, rows) in subsets(experts)? {
                    // From the subset alone all that the row has is made.
                    let alone: Vec<Expert<'_>> = subset.iter().map(|e| e.copy()).collect();
                    let nats = self.nats(set, &Self::mean(&alone)?, &all, true, train)?;
                    terms.push((nats.mul(&rows)?.sum()?, rows.sum()?));
                }
            }
            JointPosterior::ProductOfExperts => {
                terms.push(self.bound(set, &Self::product(&every)?, &all, &any, beta, train)?);
                for expert in experts {
                    let own = Self::product(&[expert])?;
                    terms.push(self.bound(set, &own, &[expert.modality], &expert.present, beta, train)?);
                }
            }
            JointPosterior::MixtureOfExperts => {
                for expert in experts {
                    let code = expert.normal.draw()?;
                    let divergence = Self::mixture_log_density(experts, &code)?.sub(&prior_log_density(&code)?)?;
                    let each = self.nats(set, &code, &all, true, train)?.add(&divergence.mul_scalar(beta)?)?;
                    terms.push((each.mul(&expert.present)?.sum()?, expert.present.sum()?));
                }
            }
            JointPosterior::MixtureOfProducts => {
                for (subset, rows) in subsets(experts)? {
                    terms.push(self.bound(set, &Self::product(&subset)?, &all, &rows, beta, train)?);
                }
            }
        }
        Ok(terms)
    }
}

impl Expert<'_> {
    fn copy(&self) -> Self {
        Self { modality: self.modality, normal: self.normal.clone(), present: self.present.clone() }
    }
}

/// Every subset of the experts that is not empty, with the rows that have all of it.
fn subsets<'a, 'b>(experts: &'a [Expert<'b>]) -> Result<Vec<(Vec<&'a Expert<'b>>, Tensor)>> {
    let mut out = Vec::new();
    for mask in 1..1usize << experts.len() {
        let subset: Vec<&Expert<'_>> =
            experts.iter().enumerate().filter(|(place, _)| mask >> place & 1 == 1).map(|(_, e)| e).collect();
        let mut rows = subset[0].present.clone();
        for expert in &subset[1..] {
            rows = rows.mul(&expert.present)?;
        }
        out.push((subset, rows));
    }
    Ok(out)
}

impl RepresentationLearner for MultimodalVae {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let experts = self.experts(set, train)?;
        let beta = self.config.beta * self.warm_up.next(train)?;
        let terms = self.terms(set, &experts, beta, train)?;
        let (mut sum, mut count): (Option<Tensor>, f64) = (None, 0.0);
        for (value, rows) in &terms {
            if rows.to_f64()? < 0.5 {
                continue;
            }
            let mean = value.div(rows)?;
            count += 1.0;
            sum = Some(sum.map_or_else(|| Ok(mean.clone()), |s| s.add(&mean))?);
        }
        let Some(sum) = sum else { return Ok(None) };
        let mean = sum.mul_scalar(1.0 / count)?;
        let mut parts = vec![("negative_elbo".to_owned(), mean.to_f64()?)];
        no_grad(|| {
            let code = self.encode(set)?;
            for (modality, way) in &self.ways {
                let Some((input, present)) = set.parts.get(modality) else { continue };
                let there = present.to_dtype(DType::F32)?;
                let error = way.likelihood.error(&way.up.forward(&code, false)?, &input.values)?.mul(&there)?;
                parts.push((
                    format!("reconstruction_error_{modality}"),
                    error.sum()?.div(&there.sum()?.clamp_min(1.0)?)?.to_f64()?,
                ));
            }
            Ok::<_, Error>(())
        })?;
        let numbers: i64 = self.ways.values().map(|w| w.numbers).sum();
        let scale = if self.deterministic() { 1.0 } else { 1.0 / numbers as f64 };
        Ok(Some((mean.mul_scalar(scale)?, parts)))
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let experts = self.experts(set, false)?;
        match self.config.joint_posterior {
            JointPosterior::Deterministic | JointPosterior::MixtureOfExperts => Self::mean(&experts),
            JointPosterior::ProductOfExperts | JointPosterior::MixtureOfProducts => {
                Ok(Self::product(&experts.iter().collect::<Vec<_>>())?.mean)
            }
        }
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn log_likelihood(&self, set: &InputSet, samples: usize) -> Result<Option<Tensor>> {
        if self.deterministic() {
            return Ok(None);
        }
        let experts = self.experts(set, false)?;
        let all: Vec<&Modality> = self.ways.keys().collect();
        let product = Self::product(&experts.iter().collect::<Vec<_>>())?;
        let mut turn = 0;
        importance(samples, || {
            // Of a mixture the experts are drawn in turn, which is no less likely to be right than by lot.
            let mixture = self.config.joint_posterior == JointPosterior::MixtureOfExperts;
            let code = if mixture { experts[turn % experts.len()].normal.draw()? } else { product.draw()? };
            turn += 1;
            let density =
                if mixture { Self::mixture_log_density(&experts, &code)? } else { product.log_density(&code)? };
            prior_log_density(&code)?.sub(&self.nats(set, &code, &all, false, false)?)?.sub(&density)
        })
        .map(Some)
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(self)
    }

    fn is_joint(&self) -> bool {
        true
    }
}

impl GenerativeDecoder for MultimodalVae {
    fn generates(&self, modality: &Modality) -> bool {
        self.ways.contains_key(modality)
    }

    fn decode(&self, code: &Tensor, modality: &Modality) -> Result<Tensor> {
        let known = self.ways.keys().map(Modality::name);
        let way = self.ways.get(modality).ok_or_else(|| Error::unknown("modality", modality.name(), known))?;
        way.up.forward(code, false)
    }

    fn sample_prior(&self, rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        if self.deterministic() {
            return Ok(None);
        }
        Tensor::randn(&[rows, self.config.latent_dim], DType::F32, self.warm_up.device()).map(Some)
    }
}
