//! The vector-quantised autoencoder (VQ-VAE, van den Oord 2017): each place of the code is one of so many learned vectors. The vectors
//! follow what is coded by running means (its appendix A.1), and one that nothing chooses is moved to where data are (Dhariwal 2020).

use super::{
    InputSpec,
    networks::{DecoderNet, EncoderNet, Likelihood, NetworkConfig},
    rows_with,
};
use mm_core::{
    DType, Error, Features, Init, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope, Tensor,
    nn::{Conv2d, ConvConfig},
    no_grad,
};
use serde::{Deserialize, Serialize};

/// Settings of a [`VqVae`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VqVaeConfig {
    /// Number of vectors in the codebook.
    pub num_embeddings: i64,
    /// Width of each.
    pub embedding_dim: i64,
    /// The networks; convolutions are needed, for the code is a grid.
    pub network: NetworkConfig,
    /// Weight of the pull of what is coded towards its vector.
    pub commitment_weight: f64,
    /// Decay of the running means.
    pub ema_decay: f64,
    /// A vector chosen less often than this in a batch, by its running mean, is moved.
    pub dead_code_threshold: f64,
}

impl Default for VqVaeConfig {
    fn default() -> Self {
        let network = NetworkConfig { channels: vec![32, 64], ..NetworkConfig::default() };
        Self {
            num_embeddings: 256,
            embedding_dim: 16,
            network,
            commitment_weight: 0.25,
            ema_decay: 0.99,
            dead_code_threshold: 0.1,
        }
    }
}

/// Pictures or spectrograms → a grid of vectors out of a codebook → the values again.
pub struct VqVae {
    modality: Modality,
    down: EncoderNet,
    narrow: Conv2d,
    widen: Conv2d,
    up: DecoderNet,
    likelihood: Likelihood,
    /// `[codes, width]`.
    codebook: Tensor,
    /// How often each was chosen, `[codes]`, and the sum of what chose it, `[codes, width]`; running means.
    chosen: Tensor,
    sums: Tensor,
    begun: Tensor,
    places: i64,
    config: VqVaeConfig,
}

struct Quantized {
    /// `[rows, width, height, width of the grid]`, through which gradients pass unchanged.
    grid: Tensor,
    /// Number of the vector at each place, `[rows, places]`.
    numbers: Tensor,
    commitment: Tensor,
}

impl VqVae {
    /// Networks `encoder` and `decoder` and the codebook under `scope`.
    pub fn new(scope: &Scope<'_>, (modality, spec): (&Modality, &InputSpec), config: &VqVaeConfig) -> Result<Self> {
        let c = config;
        let fine = c.num_embeddings >= 2
            && c.embedding_dim >= 1
            && (0.0..1.0).contains(&c.ema_decay)
            && c.commitment_weight >= 0.0;
        if !fine || c.network.channels.is_empty() {
            let found = format!("{}, {}, {}, {:?}", c.num_embeddings, c.embedding_dim, c.ema_decay, c.network.channels);
            return Err(Error::config(
                "model.num_embeddings, embedding_dim, ema_decay, network.channels",
                found,
                "at least two codes, a positive width, a decay in [0, 1) and some channels",
            ));
        }
        let inner = c.network.channels[c.network.channels.len() - 1];
        // The ends that would make a vector of the grid are not wanted here.
        let bare = NetworkConfig { hidden_dims: Vec::new(), ..c.network.clone() };
        let down = EncoderNet::new(&scope.pp("encoder"), spec, None, &bare)?;
        let up = DecoderNet::new(&scope.pp("decoder"), None, spec, &bare)?;
        let halvings = c.network.channels.len();
        Ok(Self {
            modality: modality.clone(),
            down,
            narrow: Conv2d::new(
                &scope.pp("narrow"),
                ConvConfig { bias: true, ..ConvConfig::same(inner, c.embedding_dim, 1) },
            )?,
            widen: Conv2d::new(
                &scope.pp("widen"),
                ConvConfig { bias: true, ..ConvConfig::same(c.embedding_dim, inner, 3) },
            )?,
            up,
            likelihood: Likelihood::new(&scope.pp("likelihood"), spec)?,
            codebook: scope.buffer("codebook", &[c.num_embeddings, c.embedding_dim], Init::Normal(1.0))?,
            chosen: scope.buffer("chosen", &[c.num_embeddings], Init::Ones)?,
            sums: scope.buffer("sums", &[c.num_embeddings, c.embedding_dim], Init::Zeros)?,
            begun: scope.buffer("begun", &[1], Init::Zeros)?,
            places: (spec.shape[1] >> halvings) * (spec.shape[2] >> halvings),
            config: c.clone(),
        })
    }

    fn quantize(&self, values: &Tensor, train: bool) -> Result<Quantized> {
        let grid = self.narrow.forward(&self.down.grid(values, train)?, train)?; // [rows, width, height, width]
        let shape = grid.shape();
        let flat = grid.permute(&[0, 2, 3, 1])?.reshape(&[-1, self.config.embedding_dim])?; // [rows · places, width]
        let numbers = no_grad(|| {
            if train && self.begun.to_f64()? == 0.0 {
                self.begin(&flat)?;
            }
            // The nearest: the square of what is coded is the same for all vectors.
            let squares = self.codebook.mul(&self.codebook)?.sum_dim(&[1], false)?; // [codes]
            let scores = flat.matmul(&self.codebook.transpose(0, 1)?)?.mul_scalar(2.0)?.sub(&squares)?;
            let numbers = scores.argmax(1)?; // [rows · places]
            if train {
                self.follow(&flat, &numbers)?;
            }
            Ok::<_, Error>(numbers)
        })?;
        let nearest = self.codebook.embedding(&numbers)?.detach()?;
        let off = flat.sub(&nearest)?;
        let commitment = off.mul(&off)?.mean()?;
        let passed = flat.add(&nearest.sub(&flat)?.detach()?)?;
        let grid = passed.reshape(&[shape[0], shape[2], shape[3], shape[1]])?.permute(&[0, 3, 1, 2])?;
        Ok(Quantized { grid, numbers: numbers.reshape(&[shape[0], self.places])?, commitment })
    }

    /// The codebook begins with vectors of the first batch.
    fn begin(&self, flat: &Tensor) -> Result<()> {
        let drawn = self.draw_from(flat)?;
        self.codebook.copy_(&drawn)?;
        self.sums.copy_(&drawn)?;
        self.begun.copy_(&self.begun.ones_like()?)
    }

    /// As many rows of a batch as the codebook has vectors, with a little noise where it takes one twice.
    fn draw_from(&self, flat: &Tensor) -> Result<Tensor> {
        let (rows, codes) = (flat.size(0)?, self.config.num_embeddings);
        let order = Tensor::randperm(rows, flat.device())?;
        let order = Tensor::cat(&vec![&order; (codes / rows + 1) as usize], 0)?.narrow(0, 0, codes)?;
        let noise = Tensor::randn(&[codes, self.config.embedding_dim], DType::F32, flat.device())?.mul_scalar(0.01)?;
        flat.detach()?.index_select(0, &order)?.add(&noise)
    }

    /// The running means of each vector, and what nothing chooses moved to where data are.
    fn follow(&self, flat: &Tensor, numbers: &Tensor) -> Result<()> {
        let decay = self.config.ema_decay;
        let hot = numbers.one_hot(self.config.num_embeddings)?.to_dtype(DType::F32)?; // [rows · places, codes]
        self.chosen.scale_add_(decay, &hot.sum_dim(&[0], false)?, 1.0 - decay)?;
        self.sums.scale_add_(decay, &hot.transpose(0, 1)?.matmul(&flat.detach()?)?, 1.0 - decay)?;
        let dead = Tensor::full(&[1], self.config.dead_code_threshold, DType::F32, flat.device())?.gt(&self.chosen)?;
        if dead.to_dtype(DType::F32)?.sum()?.to_f64()? > 0.0 {
            let column = dead.unsqueeze(1)?;
            self.sums.copy_(&self.draw_from(flat)?.where_cond(&column, &self.sums)?)?;
            self.chosen.copy_(&self.chosen.masked_fill(&dead, 1.0)?)?;
        }
        self.codebook.copy_(&self.sums.div(&self.chosen.unsqueeze(1)?)?)
    }

    fn decode(&self, grid: &Tensor, train: bool) -> Result<Tensor> {
        self.up.grow(&self.widen.forward(grid, train)?, train)
    }

    /// How many vectors are in use: the exponential of the entropy of the choice.
    fn perplexity(&self, numbers: &Tensor) -> Result<f64> {
        let hot = numbers.flatten(0, -1)?.one_hot(self.config.num_embeddings)?.to_dtype(DType::F32)?;
        let share = hot.mean_dim(&[0], false)?;
        share.mul(&share.add_scalar(1e-10)?.log()?)?.sum()?.neg()?.exp()?.to_f64()
    }
}

impl RepresentationLearner for VqVae {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some((values, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let quantized = self.quantize(&values, train)?;
        let error = self.likelihood.error(&self.decode(&quantized.grid, train)?, &values)?.mean()?;
        let parts = vec![
            ("reconstruction_error".to_owned(), error.to_f64()?),
            ("commitment_loss".into(), quantized.commitment.to_f64()?),
            ("perplexity".into(), no_grad(|| self.perplexity(&quantized.numbers))?),
        ];
        Ok(Some((error.add(&quantized.commitment.mul_scalar(self.config.commitment_weight)?)?, parts)))
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.quantize(&set.get(&self.modality)?.0.values, false)?.grid.flatten(1, -1)
    }

    fn dim(&self) -> i64 {
        self.config.embedding_dim * self.places
    }

    fn features(&self, set: &InputSet) -> Result<Features> {
        let grid = self.quantize(&set.get(&self.modality)?.0.values, false)?.grid;
        Features::new(grid.flatten(2, 3)?.transpose(1, 2)?, None) // [rows, places, width]
    }

    fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        if *modality != self.modality {
            return Ok(None);
        }
        let quantized = self.quantize(&set.get(modality)?.0.values, false)?;
        self.decode(&quantized.grid, false).map(Some)
    }
}
