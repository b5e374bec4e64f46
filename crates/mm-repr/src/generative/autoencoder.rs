//! The autoencoder (Hinton 2006) with what keeps it from copying: noise on what goes in (denoising, Vincent 2008), a code that is mostly
//! zero (L1, or the k largest: Makhzani 2014), or a penalty on how fast the code changes (contractive, Rifai 2011).

use super::{
    InputSpec, ValueType,
    networks::{DecoderNet, EncoderNet, Likelihood, NetworkConfig},
    rows_with,
};
use mm_core::{
    DType, Error, GenerativeDecoder, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope,
    Tensor,
};
use serde::{Deserialize, Serialize};

/// What makes a code mostly zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sparsity {
    /// This weight on the mean absolute value of the code.
    L1(f64),
    /// The so many largest (by absolute value) of each row are kept, the rest are set to zero.
    TopK(i64),
}

/// Settings of an [`Autoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoencoderConfig {
    /// Width of the code.
    pub latent_dim: i64,
    /// The networks.
    pub network: NetworkConfig,
    /// Standard deviation of the noise on what goes in while training.
    pub noise_std: f64,
    /// Share of the numbers that are set to zero while training.
    pub mask_ratio: f64,
    /// What makes the code mostly zero.
    pub sparsity: Option<Sparsity>,
    /// Weight of the squared Frobenius norm of the code's derivative by what goes in.
    pub contractive_weight: f64,
}

impl Default for AutoencoderConfig {
    fn default() -> Self {
        let network = NetworkConfig::default();
        Self { latent_dim: 64, network, noise_std: 0.0, mask_ratio: 0.0, sparsity: None, contractive_weight: 0.0 }
    }
}

/// ValueType → code → the values again.
pub struct Autoencoder {
    modality: Modality,
    down: EncoderNet,
    up: DecoderNet,
    likelihood: Likelihood,
    config: AutoencoderConfig,
}

impl Autoencoder {
    /// Networks `encoder` and `decoder` under `scope`.
    pub fn new(
        scope: &Scope<'_>,
        (modality, spec): (&Modality, &InputSpec),
        config: &AutoencoderConfig,
    ) -> Result<Self> {
        let sensible = config.latent_dim >= 1 && config.noise_std >= 0.0 && config.contractive_weight >= 0.0;
        let found = format!(
            "{}, {}, {}, {}",
            config.latent_dim, config.noise_std, config.mask_ratio, config.contractive_weight
        );
        if !sensible || !(0.0..1.0).contains(&config.mask_ratio) {
            return Err(Error::config(
                "model.latent_dim, noise_std, mask_ratio, contractive_weight",
                found,
                "a width of at least 1, a share in [0, 1) and no negative number",
            ));
        }
        if let Some(Sparsity::TopK(k)) = config.sparsity
            && !(1..=config.latent_dim).contains(&k)
        {
            let wanted = format!("1 to the {} of the code", config.latent_dim);
            return Err(Error::config("model.sparsity.top_k", k, wanted));
        }
        let held = config.noise_std > 0.0
            || config.mask_ratio > 0.0
            || config.sparsity.is_some()
            || config.contractive_weight > 0.0;
        if config.latent_dim >= spec.numel() && !held {
            let wanted = format!(
                "fewer than the {} numbers of {modality}, or noise_std, mask_ratio, sparsity or contractive_weight: it would learn to copy",
                spec.numel()
            );
            return Err(Error::config("model.latent_dim", config.latent_dim, wanted));
        }
        if matches!(spec.value_type, ValueType::Tokens(_)) {
            return Err(Error::config("model.kind", "autoencoder on symbols", "kind = \"sequence_autoencoder\""));
        }
        Ok(Self {
            modality: modality.clone(),
            down: EncoderNet::new(&scope.pp("encoder"), spec, config.latent_dim, &config.network)?,
            up: DecoderNet::new(&scope.pp("decoder"), config.latent_dim, spec, &config.network)?,
            likelihood: Likelihood::new(&scope.pp("likelihood"), spec)?,
            config: config.clone(),
        })
    }

    fn encode(&self, values: &Tensor, train: bool) -> Result<Tensor> {
        let code = self.down.forward(values, train)?; // [rows, width]
        let Some(Sparsity::TopK(k)) = self.config.sparsity else { return Ok(code) };
        let size = code.abs()?;
        let least = size.topk(k)?.0.narrow(-1, k - 1, 1)?; // [rows, 1]
        code.mul(&least.le(&size)?.to_dtype(code.dtype()?)?)
    }
}

/// ‖∂code/∂values‖² a row, estimated without bias by one random direction in the code (Hutchinson 1990): exact would take a pass
/// backwards for each of its dimensions.
pub(crate) fn squared_derivative(code: &Tensor, values: &Tensor) -> Result<Tensor> {
    let direction = Tensor::randn(&code.shape(), DType::F32, code.device())?;
    let along = code.mul(&direction)?.sum()?.autograd_grad(&[values])?;
    along[0].mul(&along[0])?.sum()?.mul_scalar(1.0 / code.size(0)? as f64)
}

impl RepresentationLearner for Autoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some((values, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let c = &self.config;
        let mut given = values.clone();
        if train && c.noise_std > 0.0 {
            given = given.add(&Tensor::randn(&given.shape(), DType::F32, given.device())?.mul_scalar(c.noise_std)?)?;
        }
        if train && c.mask_ratio > 0.0 {
            let keep = Tensor::rand(&given.shape(), DType::F32, given.device())?.gt_scalar(c.mask_ratio)?;
            given = given.mul(&keep.to_dtype(DType::F32)?)?;
        }
        let contracts = train && c.contractive_weight > 0.0;
        if contracts {
            given = given.detach()?.set_requires_grad(true)?;
        }
        let code = self.encode(&given, train)?;
        let error = self.likelihood.error(&self.up.forward(&code, train)?, &values)?.mean()?;
        let mut parts = vec![("reconstruction".to_owned(), error.to_f64()?)];
        let mut loss = error;
        if let Some(Sparsity::L1(weight)) = c.sparsity {
            let size = code.abs()?.mean()?;
            parts.push(("code_size".into(), size.to_f64()?));
            loss = loss.add(&size.mul_scalar(weight)?)?;
        }
        if contracts {
            let speed = squared_derivative(&code, &given)?;
            parts.push(("squared_derivative".into(), speed.to_f64()?));
            loss = loss.add(&speed.mul_scalar(c.contractive_weight)?)?;
        }
        Ok(Some((loss, parts)))
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.encode(&set.get(&self.modality)?.0.values, false)
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(self)
    }
}

/// Without a prior to draw from; between two codes it has values all the same.
impl GenerativeDecoder for Autoencoder {
    fn generates(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    fn decode(&self, code: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.up.forward(code, false)
    }

    fn sample_prior(&self, _rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        Ok(None)
    }
}
