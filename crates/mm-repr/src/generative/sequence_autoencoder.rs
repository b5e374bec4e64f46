//! The sequence autoencoder (Dai 2015) on the workspace's transformer: symbols → one vector → the symbols again, one after another.

use super::{InputSpec, ValueType, mae::stack, rows_with};
use mm_core::{
    DType, Error, GenerativeDecoder, Init, InputSet, LossOutput, Modality, Module, Pooling, RepresentationLearner,
    Result, Scope, Tensor,
    nn::{AttentionConfig, Embedding, ForwardArgs, Linear, Mask, Transformer},
    no_grad,
};
use serde::{Deserialize, Serialize};

/// Settings of a [`SequenceAutoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceAutoencoderConfig {
    /// Width of the code.
    pub latent_dim: i64,
    /// Width of the network.
    pub hidden_dim: i64,
    /// Blocks on each side.
    pub num_layers: i64,
    /// Heads.
    pub num_heads: i64,
    /// Rate of dropout while training.
    pub dropout: f64,
    /// Share of the symbols that the decoder is not told while training, so that it has to ask the code (Bowman 2016).
    pub word_dropout: f64,
    /// Standard deviation of the noise on the code while training.
    pub noise_std: f64,
}

impl Default for SequenceAutoencoderConfig {
    fn default() -> Self {
        Self {
            latent_dim: 128,
            hidden_dim: 128,
            num_layers: 2,
            num_heads: 4,
            dropout: 0.1,
            word_dropout: 0.2,
            noise_std: 0.0,
        }
    }
}

const UNKNOWN: f64 = 3.0;

/// Symbols `[rows, length]` → code → symbols.
pub struct SequenceAutoencoder {
    modality: Modality,
    embedding: Embedding,
    positions: Tensor,
    encoder: Transformer,
    to_code: Linear,
    from_code: Linear,
    decoder: Transformer,
    last: Linear,
    length: i64,
    config: SequenceAutoencoderConfig,
}

impl SequenceAutoencoder {
    /// Stacks `encoder` and `decoder` under `scope`.
    pub fn new(
        scope: &Scope<'_>,
        (modality, spec): (&Modality, &InputSpec),
        config: &SequenceAutoencoderConfig,
    ) -> Result<Self> {
        let c = config;
        let ValueType::Tokens(symbols) = spec.value_type else {
            return Err(Error::config(
                "model.kind",
                "sequence_autoencoder on numbers",
                "an input of symbols (kind = \"characters\")",
            ));
        };
        let shares = [c.dropout, c.word_dropout].iter().all(|s| (0.0..1.0).contains(s));
        if c.latent_dim < 1 || c.hidden_dim < 1 || !shares || c.noise_std < 0.0 {
            let found =
                format!("{}, {}, {}, {}, {}", c.latent_dim, c.hidden_dim, c.dropout, c.word_dropout, c.noise_std);
            let wanted = "positive widths, shares in [0, 1), and no negative noise";
            return Err(Error::config("model.latent_dim, hidden_dim, dropout, word_dropout, noise_std", found, wanted));
        }
        let stack = |name: &str, causal: bool| {
            let attention = AttentionConfig { causal, ..AttentionConfig::new(c.hidden_dim, c.num_heads) };
            stack(&scope.pp(name), attention, c.num_layers, c.dropout)
        };
        let length = spec.shape[0];
        Ok(Self {
            modality: modality.clone(),
            embedding: Embedding::new(&scope.pp("embedding"), symbols, c.hidden_dim)?,
            positions: scope.param("position_embedding", &[length, c.hidden_dim], Init::Normal(0.02))?,
            encoder: stack("encoder", false)?,
            to_code: Linear::new(&scope.pp("to_code"), c.hidden_dim, c.latent_dim, true)?,
            from_code: Linear::new(&scope.pp("from_code"), c.latent_dim, c.hidden_dim, true)?,
            decoder: stack("decoder", true)?,
            last: Linear::new(&scope.pp("last"), c.hidden_dim, symbols, true)?,
            length,
            config: c.clone(),
        })
    }

    fn encode(&self, symbols: &Tensor, train: bool) -> Result<Tensor> {
        let there = symbols.gt_scalar(0.0)?; // [rows, length]
        let x = self.embedding.forward(symbols)?.add(&self.positions)?;
        let x = self
            .encoder
            .forward(&x, ForwardArgs { mask: Some(&Mask::Padding(there.clone())), train, ..ForwardArgs::default() })?;
        self.to_code.forward(&mm_core::Features::new(x, Some(there))?.pool(Pooling::Mean)?, train)
    }

    /// Logits of the next symbol after each of `symbols`, which begin at `offset`.
    fn next(
        &self,
        code: &Tensor,
        symbols: &Tensor,
        offset: i64,
        states: Option<&mut [mm_core::nn::BlockCache]>,
        train: bool,
    ) -> Result<Tensor> {
        let places = self.positions.narrow(0, offset, symbols.size(1)?)?;
        let told = self.from_code.forward(code, train)?.unsqueeze(1)?; // [rows, 1, hidden]
        let x = self.embedding.forward(symbols)?.add(&places)?.add(&told)?;
        self.last
            .forward(&self.decoder.forward(&x, ForwardArgs { caches: states, train, ..ForwardArgs::default() })?, train)
    }

    /// The likeliest next symbol, again and again, until the length is full.
    fn say(&self, code: &Tensor) -> Result<Tensor> {
        let mut states = self.decoder.new_caches();
        let mut last = Tensor::ones(&[code.size(0)?, 1], DType::I64, code.device())?; // begin
        let mut ended = Tensor::zeros(&[code.size(0)?, 1], DType::Bool, code.device())?;
        let mut said = vec![last.clone()];
        for place in 0..self.length - 1 {
            let logits = self.next(code, &last, place, Some(&mut states), false)?;
            // Neither padding nor another beginning is ever said.
            let symbol = logits.narrow(2, 2, logits.size(2)? - 2)?.argmax(2)?.add_scalar(2.0)?.to_dtype(DType::I64)?;
            last = symbol.masked_fill(&ended, 0.0)?;
            ended = ended.logical_or(&last.eq_scalar(2.0)?)?;
            said.push(last.clone());
        }
        Tensor::cat(&said.iter().collect::<Vec<_>>(), 1)
    }
}

impl RepresentationLearner for SequenceAutoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some((symbols, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let c = &self.config;
        let mut code = self.encode(&symbols, train)?;
        if train && c.noise_std > 0.0 {
            code = code.add(&Tensor::randn(&code.shape(), DType::F32, code.device())?.mul_scalar(c.noise_std)?)?;
        }
        let length = self.length - 1;
        let mut given = symbols.narrow(1, 0, length)?;
        if train && c.word_dropout > 0.0 {
            let forgotten = Tensor::full(&[1], c.word_dropout, DType::F32, given.device())?
                .gt(&Tensor::rand(&given.shape(), DType::F32, given.device())?)?
                .logical_and(&given.gt_scalar(UNKNOWN)?)?;
            given = given.masked_fill(&forgotten, UNKNOWN)?;
        }
        let logits = self.next(&code, &given, 0, None, train)?; // [rows, length − 1, symbols]
        let target = symbols.narrow(1, 1, length)?.reshape(&[-1])?;
        let flat = logits.flatten(0, 1)?;
        let loss = flat.cross_entropy(&target, 0, 0.0)?;
        let right = no_grad(|| {
            let there = target.gt_scalar(0.0)?.to_dtype(DType::F32)?;
            let right = flat.argmax(1)?.eq(&target)?.to_dtype(DType::F32)?.mul(&there)?;
            right.sum()?.div(&there.sum()?)?.to_f64()
        })?;
        let parts = vec![("cross_entropy".to_owned(), loss.to_f64()?), ("token_accuracy".into(), right)];
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

/// Between two codes it says something; it has no prior to draw from.
impl GenerativeDecoder for SequenceAutoencoder {
    fn generates(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    fn decode(&self, code: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.say(code)
    }

    fn sample_prior(&self, _rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        Ok(None)
    }
}
