//! The vector-quantized autoencoder.

use super::{
    batch::present_rows,
    likelihood::Likelihood,
    networks::{DecoderNet, EncoderNet, NetworkConfig},
    spec::InputSpec,
};
use mm_core::{
    DType, Error, Features, Init, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope, Tensor,
    nn::{Conv2d, ConvConfig},
    no_grad,
};
use serde::{Deserialize, Serialize};

/// Standard deviation of the noise that separates codes initialized from the same vector.
const RESTART_NOISE_STD: f64 = 0.01;

/// Settings of a [`VqVae`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VqVaeConfig {
    /// Number of vectors in the codebook.
    pub num_embeddings: i64,
    /// Dimension of the vectors.
    pub embedding_dim: i64,
    /// Encoder and decoder; `channels` is required and `hidden_dims` is ignored, because the latent is a grid.
    pub network: NetworkConfig,
    /// Weight β of the commitment loss.
    pub commitment_weight: f64,
    /// Decay of the moving averages of the codebook.
    pub ema_decay: f64,
    /// Vectors whose average number of uses per batch falls below this are reinitialized.
    pub dead_code_threshold: f64,
}

impl Default for VqVaeConfig {
    fn default() -> Self {
        Self {
            num_embeddings: 256,
            embedding_dim: 16,
            network: NetworkConfig { channels: vec![32, 64], ..NetworkConfig::default() },
            commitment_weight: 0.25,
            ema_decay: 0.99,
            dead_code_threshold: 0.1,
        }
    }
}

impl VqVaeConfig {
    fn validate(&self) -> Result<()> {
        let is_valid = self.num_embeddings >= 2
            && self.embedding_dim >= 1
            && (0.0..1.0).contains(&self.ema_decay)
            && self.commitment_weight >= 0.0;
        if !is_valid || self.network.channels.is_empty() {
            let found = format!(
                "{}, {}, {}, {}, {:?}",
                self.num_embeddings, self.embedding_dim, self.ema_decay, self.commitment_weight, self.network.channels
            );
            let field = "model.num_embeddings, embedding_dim, ema_decay, commitment_weight, network.channels";
            let expected = "num_embeddings of at least 2, a positive embedding_dim, ema_decay in [0, 1), no negative \
                            weight and at least one convolution";
            return Err(Error::config(field, found, expected));
        }
        Ok(())
    }
}

/// Codebook vectors and the moving averages they are computed from.
struct Codebook {
    /// `[num_embeddings, embedding_dim]`.
    embeddings: Tensor,
    /// Average number of uses per batch, `[num_embeddings]`.
    cluster_size: Tensor,
    /// Average sum of the assigned vectors, `[num_embeddings, embedding_dim]`.
    embedding_sums: Tensor,
    /// 1 once the codebook was initialized from data.
    initialized: Tensor,
    decay: f64,
    dead_code_threshold: f64,
}

impl Codebook {
    fn new(scope: &Scope<'_>, config: &VqVaeConfig) -> Result<Self> {
        let shape = [config.num_embeddings, config.embedding_dim];
        Ok(Self {
            embeddings: scope.buffer("embeddings", &shape, Init::Normal(1.0))?,
            cluster_size: scope.buffer("cluster_size", &shape[..1], Init::Ones)?,
            embedding_sums: scope.buffer("embedding_sums", &shape, Init::Zeros)?,
            initialized: scope.buffer("initialized", &[1], Init::Zeros)?,
            decay: config.ema_decay,
            dead_code_threshold: config.dead_code_threshold,
        })
    }

    /// The indices of the nearest vectors of `x` `[positions, embedding_dim]`, `[positions]`; updates the codebook in
    /// training.
    fn assign(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train && self.initialized.to_f64()? == 0.0 {
            self.initialize(x)?;
        }
        // argminₖ ‖x − eₖ‖² = argmaxₖ 2 x·eₖ − ‖eₖ‖².
        let square_norms = self.embeddings.mul(&self.embeddings)?.sum_dim(&[1], false)?; // [num_embeddings]
        let scores = x.matmul(&self.embeddings.transpose(0, 1)?)?.mul_scalar(2.0)?.sub(&square_norms)?;
        let indices = scores.argmax(1)?;
        if train {
            self.update(x, &indices)?;
        }
        Ok(indices)
    }

    /// Initializes the codebook with vectors of the first batch.
    fn initialize(&self, x: &Tensor) -> Result<()> {
        let vectors = self.sample_vectors(x)?;
        self.embeddings.copy_(&vectors)?;
        self.embedding_sums.copy_(&vectors)?;
        self.initialized.copy_(&self.initialized.ones_like()?)
    }

    /// One vector of the batch per code, repeated if there are too few, with a little noise.
    fn sample_vectors(&self, x: &Tensor) -> Result<Tensor> {
        let (positions, shape) = (x.size(0)?, self.embeddings.shape());
        let order = Tensor::randperm(positions, x.device())?;
        let order = Tensor::cat(&vec![&order; (shape[0] / positions + 1) as usize], 0)?.narrow(0, 0, shape[0])?;
        let noise = Tensor::randn(&shape, DType::F32, x.device())?.mul_scalar(RESTART_NOISE_STD)?;
        x.detach()?.index_select(0, &order)?.add(&noise)
    }

    /// Updates the moving averages and reinitializes unused vectors.
    fn update(&self, x: &Tensor, indices: &Tensor) -> Result<()> {
        let one_hot = self.one_hot(indices)?; // [positions, num_embeddings]
        let weight = 1.0 - self.decay;
        self.cluster_size.scale_add_(self.decay, &one_hot.sum_dim(&[0], false)?, weight)?;
        self.embedding_sums.scale_add_(self.decay, &one_hot.transpose(0, 1)?.matmul(&x.detach()?)?, weight)?;
        let threshold = Tensor::full(&[1], self.dead_code_threshold, DType::F32, x.device())?;
        let dead = threshold.gt(&self.cluster_size)?;
        if dead.to_dtype(DType::F32)?.sum()?.to_f64()? > 0.0 {
            let replaced = self.sample_vectors(x)?.where_cond(&dead.unsqueeze(1)?, &self.embedding_sums)?;
            self.embedding_sums.copy_(&replaced)?;
            self.cluster_size.copy_(&self.cluster_size.masked_fill(&dead, 1.0)?)?;
        }
        self.embeddings.copy_(&self.embedding_sums.div(&self.cluster_size.unsqueeze(1)?)?)
    }

    fn one_hot(&self, indices: &Tensor) -> Result<Tensor> {
        indices.one_hot(self.embeddings.size(0)?)?.to_dtype(DType::F32)
    }

    /// exp(−Σₖ pₖ ln pₖ) of the relative frequencies of the indices: the effective number of codes in use.
    fn perplexity(&self, indices: &Tensor) -> Result<f64> {
        let frequencies = self.one_hot(indices)?.mean_dim(&[0], false)?;
        frequencies.mul(&frequencies.add_scalar(1e-10)?.log()?)?.sum()?.neg()?.exp()?.to_f64()
    }
}

/// VQ-VAE with loss reconstruction + β ‖z − sg(e)‖²: each position of the encoder's feature map is replaced by the
/// nearest codebook vector e.
///
/// *Neural Discrete Representation Learning* ([van den Oord et al., 2017](https://arxiv.org/abs/1711.00937)), with the
/// moving-average updates of its appendix A.1 and the restarts of *Jukebox*
/// ([Dhariwal et al., 2020](https://arxiv.org/abs/2005.00341)).
pub struct VqVae {
    modality: Modality,
    encoder: EncoderNet,
    pre_quantization: Conv2d,
    post_quantization: Conv2d,
    decoder: DecoderNet,
    likelihood: Likelihood,
    codebook: Codebook,
    num_positions: i64,
    config: VqVaeConfig,
}

struct Quantized {
    /// `[rows, embedding_dim, height, width]`, with straight-through gradients.
    feature_map: Tensor,
    /// Codebook indices, `[rows · positions]`.
    indices: Tensor,
    commitment_loss: Tensor,
}

impl VqVae {
    /// Networks `encoder` and `decoder` and the codebook under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, or the values are token ids or do not fit the convolutions.
    pub fn new(scope: &Scope<'_>, (modality, spec): (&Modality, &InputSpec), config: &VqVaeConfig) -> Result<Self> {
        config.validate()?;
        spec.require_numeric(modality)?;
        let channels = &config.network.channels;
        let latent_channels = channels[channels.len() - 1];
        let dim = config.embedding_dim;
        let conv_only = NetworkConfig { hidden_dims: Vec::new(), ..config.network.clone() };
        let conv = |name: &str, conv: ConvConfig| Conv2d::new(&scope.pp(name), ConvConfig { bias: true, ..conv });
        let encoder = EncoderNet::new(&scope.pp("encoder"), spec, None, &conv_only)?;
        let decoder = DecoderNet::new(&scope.pp("decoder"), None, spec, &conv_only)?;
        Ok(Self {
            modality: modality.clone(),
            encoder,
            pre_quantization: conv("pre_quantization", ConvConfig::same(latent_channels, dim, 1))?,
            post_quantization: conv("post_quantization", ConvConfig::same(dim, latent_channels, 3))?,
            decoder,
            likelihood: Likelihood::new(&scope.pp("likelihood"), spec)?,
            codebook: Codebook::new(&scope.pp("codebook"), config)?,
            num_positions: (spec.shape[1] >> channels.len()) * (spec.shape[2] >> channels.len()),
            config: config.clone(),
        })
    }

    fn quantize(&self, values: &Tensor, train: bool) -> Result<Quantized> {
        let x = self.pre_quantization.forward(&self.encoder.feature_map(values, train)?, train)?;
        let shape = x.shape(); // [rows, embedding_dim, height, width]
        let flat = x.permute(&[0, 2, 3, 1])?.reshape(&[-1, self.config.embedding_dim])?; // [rows · positions, dim]
        let indices = no_grad(|| self.codebook.assign(&flat, train))?;
        let nearest = self.codebook.embeddings.embedding(&indices)?.detach()?;
        let difference = flat.sub(&nearest)?;
        let commitment_loss = difference.mul(&difference)?.mean()?;
        let straight_through = flat.add(&nearest.sub(&flat)?.detach()?)?;
        let feature_map =
            straight_through.reshape(&[shape[0], shape[2], shape[3], shape[1]])?.permute(&[0, 3, 1, 2])?;
        Ok(Quantized { feature_map, indices, commitment_loss })
    }

    fn decode(&self, feature_map: &Tensor, train: bool) -> Result<Tensor> {
        self.decoder.upsample(&self.post_quantization.forward(feature_map, train)?, train)
    }

    fn values<'a>(&self, set: &'a InputSet) -> Result<&'a Tensor> {
        Ok(&set.get(&self.modality)?.0.values)
    }
}

impl RepresentationLearner for VqVae {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some(values) = present_rows(set, &self.modality)? else { return Ok(None) };
        let quantized = self.quantize(&values, train)?;
        let decoded = self.decode(&quantized.feature_map, train)?;
        let error = self.likelihood.reconstruction_error(&decoded, &values)?.mean()?;
        let metrics = vec![
            ("reconstruction_error".to_owned(), error.to_f64()?),
            ("commitment_loss".into(), quantized.commitment_loss.to_f64()?),
            ("perplexity".into(), no_grad(|| self.codebook.perplexity(&quantized.indices))?),
        ];
        let loss = error.add(&quantized.commitment_loss.mul_scalar(self.config.commitment_weight)?)?;
        Ok(Some((loss, metrics)))
    }

    /// The quantized feature map, flattened.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.quantize(self.values(set)?, false)?.feature_map.flatten(1, -1)
    }

    fn dim(&self) -> i64 {
        self.config.embedding_dim * self.num_positions
    }

    /// `[rows, positions, embedding_dim]`.
    fn features(&self, set: &InputSet) -> Result<Features> {
        let feature_map = self.quantize(self.values(set)?, false)?.feature_map;
        Features::new(feature_map.flatten(2, 3)?.transpose(1, 2)?, None)
    }

    fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        if *modality != self.modality {
            return Ok(None);
        }
        let quantized = self.quantize(self.values(set)?, false)?;
        self.decode(&quantized.feature_map, false).map(Some)
    }
}
