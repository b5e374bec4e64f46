//! Multimodal autoencoders with one latent vector for all modalities, any of which may be missing.

mod experts;

use super::{
    gaussian::{DiagonalGaussian, importance_weighted_bound, standard_normal_log_prob},
    likelihood::Likelihood,
    networks::{DecoderNet, EncoderNet, NetworkConfig},
    spec::{InputSpec, InputSpecs},
    vae::VaeConfig,
    warmup::LinearWarmup,
};
use experts::{Expert, mean_of_experts, mixture_log_prob, product_of_experts, subsets};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor, distributed::sum_over_ranks, no_grad,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the posteriors of the modalities are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JointPosterior {
    /// No distribution: the mean of the latents of the present modalities, trained on every subset of them. *Multimodal
    /// Deep Learning* (Ngiam et al., 2011).
    Deterministic,
    /// Product of experts including the prior, trained on all modalities together and on each alone: MVAE, *Multimodal
    /// Generative Models for Scalable Weakly-Supervised Learning*
    /// ([Wu and Goodman, 2018](https://arxiv.org/abs/1802.05335)).
    ProductOfExperts,
    /// Mixture of experts: MMVAE, *Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models*
    /// ([Shi et al., 2019](https://arxiv.org/abs/1911.03393)).
    MixtureOfExperts,
    /// Mixture of the products of every subset: MoPoE-VAE, *Generalized Multimodal ELBO*
    /// ([Sutter et al., 2021](https://arxiv.org/abs/2105.02470)).
    #[default]
    MixtureOfProducts,
}

/// Settings of a [`MultimodalVae`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultimodalVaeConfig {
    /// Dimension of the latent vector.
    pub latent_dim: i64,
    /// Encoder and decoder of each modality; the default where a modality is not listed.
    pub networks: BTreeMap<String, NetworkConfig>,
    /// How the posteriors of the modalities are combined.
    pub joint_posterior: JointPosterior,
    /// Weight of the KL divergence.
    pub beta: f64,
    /// Training steps over which the weight of the KL divergence grows from 0 to `beta`.
    pub kl_warmup_steps: u64,
    /// Weight of each modality's log-likelihood; 1 where a modality is not listed.
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

impl MultimodalVaeConfig {
    fn validate(&self, specs: &InputSpecs) -> Result<()> {
        VaeConfig { latent_dim: self.latent_dim, beta: self.beta, ..VaeConfig::default() }.validate()?;
        if !(2..=6).contains(&specs.len()) {
            return Err(Error::config("inputs", specs.len(), "two to six modalities (every subset is computed)"));
        }
        let known = || specs.keys().map(Modality::name);
        let mut listed = self.networks.keys().chain(self.likelihood_weights.keys());
        if let Some(name) = listed.find(|name| !known().any(|k| k == name.as_str())) {
            return Err(Error::unknown("modality in model.networks or model.likelihood_weights", name, known()));
        }
        Ok(())
    }
}

struct ModalityBranch {
    encoder: EncoderNet,
    decoder: DecoderNet,
    likelihood: Likelihood,
    likelihood_weight: f64,
    numel: i64,
}

/// The sum of a loss term over rows, and the number of rows.
type Term = (Tensor, Tensor);

/// A variational autoencoder of several modalities with one latent vector. The loss is the mean of the negative
/// evidence lower bounds −Σₘ ln p(xₘ | z) + β KL(q(z | x) ‖ N(0, I)) of the posteriors in [`JointPosterior`].
pub struct MultimodalVae {
    branches: BTreeMap<Modality, ModalityBranch>,
    warmup: LinearWarmup,
    config: MultimodalVaeConfig,
}

impl MultimodalVae {
    /// Networks `NAME.encoder` and `NAME.decoder` under `scope` for each modality.
    ///
    /// # Errors
    /// A setting is out of range, a modality is unknown, or values are token ids.
    pub fn new(scope: &Scope<'_>, specs: &InputSpecs, config: &MultimodalVaeConfig) -> Result<Self> {
        config.validate(specs)?;
        let is_deterministic = config.joint_posterior == JointPosterior::Deterministic;
        let encoder_dim = if is_deterministic { config.latent_dim } else { 2 * config.latent_dim };
        let mut branches = BTreeMap::new();
        for (modality, spec) in specs {
            spec.require_numeric(modality)?;
            let scope = scope.pp(modality);
            let network = config.networks.get(modality.name()).cloned().unwrap_or_default();
            let branch = ModalityBranch {
                encoder: EncoderNet::new(&scope.pp("encoder"), spec, encoder_dim, &network)?,
                decoder: DecoderNet::new(&scope.pp("decoder"), config.latent_dim, spec, &network)?,
                likelihood: Likelihood::new(&scope.pp("likelihood"), spec)?,
                likelihood_weight: config.likelihood_weights.get(modality.name()).copied().unwrap_or(1.0),
                numel: InputSpec::numel(spec),
            };
            branches.insert(modality.clone(), branch);
        }
        let warmup = LinearWarmup::new(&scope.pp("kl_warmup"), config.kl_warmup_steps)?;
        Ok(Self { branches, warmup, config: config.clone() })
    }

    fn is_deterministic(&self) -> bool {
        self.config.joint_posterior == JointPosterior::Deterministic
    }

    /// The posterior of each modality in the set. Deterministic latents are the means of Gaussians whose variance is
    /// not used.
    fn experts<'a>(&'a self, set: &InputSet, train: bool) -> Result<Vec<Expert<'a>>> {
        let mut experts = Vec::new();
        for (modality, branch) in &self.branches {
            let Some((input, present)) = set.parts.get(modality) else { continue };
            let params = branch.encoder.forward(&input.values, train)?;
            let posterior = if self.is_deterministic() {
                DiagonalGaussian { log_var: params.zeros_like()?, mean: params }
            } else {
                DiagonalGaussian::from_params(&params)?
            };
            experts.push(Expert { modality, posterior, present: present.to_dtype(DType::F32)? });
        }
        if experts.is_empty() {
            return Err(Error::config("inputs", "none of the model's modalities", "at least one of them"));
        }
        Ok(experts)
    }

    fn all_modalities(&self) -> Vec<&Modality> {
        self.branches.keys().collect()
    }

    /// −Σₘ ln p(xₘ | z) over the modalities in `targets` that each row has, `[rows]`; the reconstruction error for
    /// deterministic latents.
    fn nll(
        &self,
        set: &InputSet,
        latent: &Tensor,
        targets: &[&Modality],
        use_weights: bool,
        train: bool,
    ) -> Result<Tensor> {
        let mut sum = Tensor::zeros(&[set.rows], DType::F32, latent.device())?;
        for modality in targets {
            let (Some(branch), Some((input, present))) = (self.branches.get(*modality), set.parts.get(*modality))
            else {
                continue;
            };
            let decoded = branch.decoder.forward(latent, train)?;
            let nll = if self.is_deterministic() {
                branch.likelihood.reconstruction_error(&decoded, &input.values)?
            } else {
                branch.likelihood.nll(&decoded, &input.values)?
            };
            let weight = if use_weights { branch.likelihood_weight } else { 1.0 };
            sum = sum.add(&nll.mul(&present.to_dtype(DType::F32)?)?.mul_scalar(weight)?)?;
        }
        Ok(sum)
    }

    /// The negative evidence lower bound of a posterior over the rows (`[rows]`, 1 or 0) that have its modalities.
    fn negative_elbo(
        &self,
        set: &InputSet,
        posterior: &DiagonalGaussian,
        targets: &[&Modality],
        rows: &Tensor,
        (beta, train): (f64, bool),
    ) -> Result<Term> {
        let latent = posterior.rsample()?;
        let kl = posterior.kl_from_standard_normal()?.sum_dim(&[1], false)?;
        let per_row = self.nll(set, &latent, targets, true, train)?.add(&kl.mul_scalar(beta)?)?;
        Ok((per_row.mul(rows)?.sum()?, rows.sum()?))
    }

    fn loss_terms(&self, set: &InputSet, experts: &[Expert<'_>], beta: f64, train: bool) -> Result<Vec<Term>> {
        let all = self.all_modalities();
        let like = &experts[0].posterior.mean;
        let mut terms = Vec::new();
        match self.config.joint_posterior {
            JointPosterior::Deterministic => {
                for (subset, rows) in subsets(experts)? {
                    let nll = self.nll(set, &mean_of_experts(subset)?, &all, true, train)?;
                    terms.push((nll.mul(&rows)?.sum()?, rows.sum()?));
                }
            }
            JointPosterior::ProductOfExperts => {
                let mut any = experts[0].present.clone();
                for expert in experts {
                    any = any.maximum(&expert.present)?;
                }
                let joint = product_of_experts(experts, like)?;
                terms.push(self.negative_elbo(set, &joint, &all, &any, (beta, train))?);
                for expert in experts {
                    let unimodal = product_of_experts([expert], like)?;
                    let rows = &expert.present;
                    terms.push(self.negative_elbo(set, &unimodal, &[expert.modality], rows, (beta, train))?);
                }
            }
            JointPosterior::MixtureOfExperts => {
                for expert in experts {
                    let latent = expert.posterior.rsample()?;
                    let kl = mixture_log_prob(experts, &latent)?.sub(&standard_normal_log_prob(&latent)?)?;
                    let per_row = self.nll(set, &latent, &all, true, train)?.add(&kl.mul_scalar(beta)?)?;
                    terms.push((per_row.mul(&expert.present)?.sum()?, expert.present.sum()?));
                }
            }
            JointPosterior::MixtureOfProducts => {
                for (subset, rows) in subsets(experts)? {
                    let posterior = product_of_experts(subset, like)?;
                    terms.push(self.negative_elbo(set, &posterior, &all, &rows, (beta, train))?);
                }
            }
        }
        Ok(terms)
    }

    /// The reconstruction error of each modality from the latents of all present ones.
    fn reconstruction_errors(&self, set: &InputSet) -> Result<Vec<(String, f64)>> {
        let latent = self.encode(set)?;
        let mut errors = Vec::new();
        for (modality, branch) in &self.branches {
            let Some((input, present)) = set.parts.get(modality) else { continue };
            let present = present.to_dtype(DType::F32)?;
            let decoded = branch.decoder.forward(&latent, false)?;
            let error = branch.likelihood.reconstruction_error(&decoded, &input.values)?.mul(&present)?;
            let count = sum_over_ranks(&present.sum()?)?.clamp_min(1.0)?;
            let mean = sum_over_ranks(&error.sum()?)?.div(&count)?.to_f64()?;
            errors.push((format!("reconstruction_error_{modality}"), mean));
        }
        Ok(errors)
    }
}

impl RepresentationLearner for MultimodalVae {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let experts = self.experts(set, train)?;
        let beta = self.config.beta * self.warmup.step(train)?;
        let (mut sum, mut num_terms): (Option<Tensor>, f64) = (None, 0.0);
        for (value, rows) in self.loss_terms(set, &experts, beta, train)? {
            let (value, rows) = (sum_over_ranks(&value)?, sum_over_ranks(&rows)?);
            if rows.to_f64()? < 0.5 {
                continue;
            }
            let mean = value.div(&rows)?;
            num_terms += 1.0;
            sum = Some(sum.map_or_else(|| Ok(mean.clone()), |s| s.add(&mean))?);
        }
        let Some(sum) = sum else { return Ok(None) };
        let negative_elbo = sum.mul_scalar(1.0 / num_terms)?;
        let mut metrics = vec![("negative_elbo".to_owned(), negative_elbo.to_f64()?)];
        metrics.extend(no_grad(|| self.reconstruction_errors(set))?);
        // Per element, so that one learning rate suits images and vectors.
        let numel: i64 = self.branches.values().map(|b| b.numel).sum();
        let scale = if self.is_deterministic() { 1.0 } else { 1.0 / numel as f64 };
        Ok(Some((negative_elbo.mul_scalar(scale)?, metrics)))
    }

    fn supports_process_groups(&self) -> bool {
        true
    }

    /// The mean of the joint posterior given the modalities that each row has.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        let experts = self.experts(set, false)?;
        match self.config.joint_posterior {
            JointPosterior::Deterministic | JointPosterior::MixtureOfExperts => mean_of_experts(&experts),
            JointPosterior::ProductOfExperts | JointPosterior::MixtureOfProducts => {
                Ok(product_of_experts(&experts, &experts[0].posterior.mean)?.mean)
            }
        }
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn log_likelihood(&self, set: &InputSet, samples: usize) -> Result<Option<Tensor>> {
        if self.is_deterministic() {
            return Ok(None);
        }
        let experts = self.experts(set, false)?;
        let all = self.all_modalities();
        let product = product_of_experts(&experts, &experts[0].posterior.mean)?;
        let is_mixture = self.config.joint_posterior == JointPosterior::MixtureOfExperts;
        let mut sample = 0;
        importance_weighted_bound(samples, || {
            // Stratified: samples of a mixture come from its experts in turn.
            let proposal = if is_mixture { &experts[sample % experts.len()].posterior } else { &product };
            sample += 1;
            let latent = proposal.rsample()?;
            let log_prob = if is_mixture { mixture_log_prob(&experts, &latent)? } else { product.log_prob(&latent)? };
            let nll = self.nll(set, &latent, &all, false, false)?;
            standard_normal_log_prob(&latent)?.sub(&nll)?.sub(&log_prob)
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
        self.branches.contains_key(modality)
    }

    fn decode(&self, latent: &Tensor, modality: &Modality) -> Result<Tensor> {
        let known = self.branches.keys().map(Modality::name);
        let branch = self.branches.get(modality).ok_or_else(|| Error::unknown("modality", modality.name(), known))?;
        branch.decoder.forward(latent, false)
    }

    fn sample_prior(&self, rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        if self.is_deterministic() {
            return Ok(None);
        }
        Tensor::randn(&[rows, self.config.latent_dim], DType::F32, self.warmup.device()).map(Some)
    }
}
