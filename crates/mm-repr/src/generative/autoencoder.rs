//! The autoencoder and its regularized variants.

use super::{
    batch::{LossTerms, present_rows},
    networks::NetworkConfig,
    single_modality::{EncoderDecoder, Prior},
    spec::InputSpec,
};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor,
    distributed::{mean_over_rows, rand_rows, randn_rows},
};
use serde::{Deserialize, Serialize};

/// Sparsity of the latent vector.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sparsity {
    /// Adds this weight times the mean absolute value of the latent to the loss.
    L1(f64),
    /// Keeps the k elements of each latent with the largest absolute values and sets the others to zero. *k-Sparse
    /// Autoencoders* ([Makhzani and Frey, 2014](https://arxiv.org/abs/1312.5663)).
    TopK(i64),
}

/// Settings of an [`Autoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoencoderConfig {
    /// Dimension of the latent vector.
    pub latent_dim: i64,
    /// Encoder and decoder.
    pub network: NetworkConfig,
    /// Standard deviation of the Gaussian noise added to the input in training.
    pub noise_std: f64,
    /// Fraction of the input elements set to zero in training.
    pub mask_ratio: f64,
    /// Sparsity of the latent vector.
    pub sparsity: Option<Sparsity>,
    /// Weight of the contractive penalty ‖∂z/∂x‖²_F.
    pub contractive_weight: f64,
}

impl Default for AutoencoderConfig {
    fn default() -> Self {
        Self {
            latent_dim: 64,
            network: NetworkConfig::default(),
            noise_std: 0.0,
            mask_ratio: 0.0,
            sparsity: None,
            contractive_weight: 0.0,
        }
    }
}

impl AutoencoderConfig {
    fn validate(&self, modality: &Modality, spec: &InputSpec) -> Result<()> {
        let is_valid = self.latent_dim >= 1 && self.noise_std >= 0.0 && self.contractive_weight >= 0.0;
        if !is_valid || !(0.0..1.0).contains(&self.mask_ratio) {
            let found =
                format!("{}, {}, {}, {}", self.latent_dim, self.noise_std, self.mask_ratio, self.contractive_weight);
            let expected = "latent_dim of at least 1, mask_ratio in [0, 1) and no negative value";
            let field = "model.latent_dim, noise_std, mask_ratio, contractive_weight";
            return Err(Error::config(field, found, expected));
        }
        if let Some(Sparsity::TopK(k)) = self.sparsity
            && !(1..=self.latent_dim).contains(&k)
        {
            let expected = format!("1 to {}, the latent_dim", self.latent_dim);
            return Err(Error::config("model.sparsity.top_k", k, expected));
        }
        let is_regularized =
            self.noise_std > 0.0 || self.mask_ratio > 0.0 || self.sparsity.is_some() || self.contractive_weight > 0.0;
        if self.latent_dim >= spec.numel() && !is_regularized {
            let expected = format!(
                "less than the {} elements of {modality}, or noise_std, mask_ratio, sparsity or contractive_weight: \
                 otherwise the identity is optimal",
                spec.numel()
            );
            return Err(Error::config("model.latent_dim", self.latent_dim, expected));
        }
        Ok(())
    }
}

/// An autoencoder ([Hinton and Salakhutdinov, 2006](https://doi.org/10.1126/science.1127647)) with loss
/// ‖x − x̂‖² / numel, or binary cross-entropy of binary values.
///
/// Denoising (`noise_std`, `mask_ratio`): *Extracting and Composing Robust Features with Denoising Autoencoders*
/// ([Vincent et al., 2008](https://doi.org/10.1145/1390156.1390294)). Contractive (`contractive_weight`): *Contractive
/// Auto-Encoders* (Rifai et al., 2011).
pub struct Autoencoder {
    networks: EncoderDecoder,
    config: AutoencoderConfig,
}

impl Autoencoder {
    /// Networks `encoder` and `decoder` under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, or the values are token ids.
    pub fn new(scope: &Scope<'_>, input: (&Modality, &InputSpec), config: &AutoencoderConfig) -> Result<Self> {
        config.validate(input.0, input.1)?;
        let dims = (config.latent_dim, config.latent_dim);
        let networks = EncoderDecoder::new(scope, input, dims, &config.network, Prior::None)?;
        Ok(Self { networks, config: config.clone() })
    }

    fn latent(&self, values: &Tensor, train: bool) -> Result<Tensor> {
        let latent = self.networks.encoder.forward(values, train)?; // [rows, latent_dim]
        let Some(Sparsity::TopK(k)) = self.config.sparsity else { return Ok(latent) };
        let magnitude = latent.abs()?;
        let threshold = magnitude.topk(k)?.0.narrow(-1, k - 1, 1)?; // [rows, 1]
        latent.mul(&threshold.le(&magnitude)?.to_dtype(latent.dtype()?)?)
    }

    /// The input of a denoising autoencoder.
    fn corrupt(&self, values: &Tensor) -> Result<Tensor> {
        let AutoencoderConfig { noise_std, mask_ratio, .. } = self.config;
        let mut x = values.clone();
        if noise_std > 0.0 {
            x = x.add(&randn_rows(&x.shape(), x.device())?.mul_scalar(noise_std)?)?;
        }
        if mask_ratio > 0.0 {
            let keep = rand_rows(&x.shape(), x.device())?.gt_scalar(mask_ratio)?;
            x = x.mul(&keep.to_dtype(DType::F32)?)?;
        }
        Ok(x)
    }
}

/// An unbiased estimate of the mean over rows of ‖∂z/∂x‖²_F from one random projection of the latent, instead of one
/// backward pass per dimension (*A Stochastic Estimator of the Trace of the Influence Matrix*,
/// [Hutchinson, 1990](https://doi.org/10.1080/03610919008812866)).
fn jacobian_norm_estimate(latent: &Tensor, input: &Tensor) -> Result<Tensor> {
    let projection = randn_rows(&latent.shape(), latent.device())?;
    let product = latent.mul(&projection)?.sum()?.autograd_grad(&[input])?;
    mean_over_rows(&product[0].mul(&product[0])?.flatten(1, -1)?.sum_dim(&[1], false)?)
}

impl RepresentationLearner for Autoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some(values) = present_rows(set, &self.networks.modality)? else { return Ok(None) };
        let mut input = if train { self.corrupt(&values)? } else { values.clone() };
        let is_contractive = train && self.config.contractive_weight > 0.0;
        if is_contractive {
            input = input.detach()?.set_requires_grad(true)?;
        }
        let latent = self.latent(&input, train)?;
        let mut terms = LossTerms::default();
        terms.add("reconstruction_error", &self.networks.reconstruction_error(&latent, &values, train)?, 1.0)?;
        if let Some(Sparsity::L1(weight)) = self.config.sparsity {
            terms.add("l1_penalty", &mean_over_rows(&latent.abs()?.mean_dim(&[1], false)?)?, weight)?;
        }
        if is_contractive {
            let penalty = jacobian_norm_estimate(&latent, &input)?;
            terms.add("contractive_penalty", &penalty, self.config.contractive_weight)?;
        }
        Ok(terms.finish())
    }

    fn supports_process_groups(&self) -> bool {
        true
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.latent(self.networks.values(set)?, false)
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(&self.networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
    }

    #[test]
    fn the_jacobian_norm_estimate_is_unbiased() {
        manual_seed(1);
        let (weight, x) = (randn(&[3, 5]), randn(&[4, 5]));
        // The Jacobian of tanh(W x) is diag(1 − tanh²(W x)) W.
        let exact = {
            let slope = x.linear(&weight, None).unwrap().tanh().unwrap().pow(2.0).unwrap().neg().unwrap();
            let slope = slope.add_scalar(1.0).unwrap().pow(2.0).unwrap(); // [4, 3]
            let squares = weight.pow(2.0).unwrap().sum_dim(&[1], false).unwrap(); // [3]
            slope.mul(&squares).unwrap().sum().unwrap().to_f64().unwrap() / 4.0
        };
        let mut sum = 0.0;
        for _ in 0..3000 {
            let x = x.detach().unwrap().set_requires_grad(true).unwrap();
            let latent = x.linear(&weight, None).unwrap().tanh().unwrap();
            sum += jacobian_norm_estimate(&latent, &x).unwrap().to_f64().unwrap();
        }
        assert!((sum / 3000.0 / exact - 1.0).abs() < 0.05, "{} for {exact}", sum / 3000.0);
    }
}
