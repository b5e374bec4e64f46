//! The sequence autoencoder.

use super::{
    batch::present_rows,
    spec::{InputSpec, ValueType},
    transformer::pre_norm_transformer,
};
use mm_core::{
    DType, Error, Features, GenerativeDecoder, Init, InputSet, LossOutput, Modality, Module, Pooling,
    RepresentationLearner, Result, Scope, Tensor,
    nn::{AttentionConfig, BlockCache, Embedding, ForwardArgs, Linear, Mask, Transformer},
    no_grad,
};
use serde::{Deserialize, Serialize};

/// Special token ids, see [`ValueType::Tokens`].
const PAD: i64 = 0;
const END: i64 = 2;
const UNKNOWN: i64 = 3;

/// Settings of a [`SequenceAutoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceAutoencoderConfig {
    /// Dimension of the latent vector.
    pub latent_dim: i64,
    /// Embedding dimension of the transformers.
    pub hidden_dim: i64,
    /// Layers of the encoder, and of the decoder.
    pub num_layers: i64,
    /// Attention heads.
    pub num_heads: i64,
    /// Dropout of the transformers.
    pub dropout: f64,
    /// Fraction of the decoder's input tokens replaced by the unknown token in training, so that the decoder relies on
    /// the latent (*Generating Sentences from a Continuous Space*,
    /// [Bowman et al., 2016](https://arxiv.org/abs/1511.06349)).
    pub word_dropout: f64,
    /// Standard deviation of the Gaussian noise added to the latent in training.
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

impl SequenceAutoencoderConfig {
    fn validate(&self) -> Result<()> {
        let rates_valid = [self.dropout, self.word_dropout].iter().all(|rate| (0.0..1.0).contains(rate));
        if self.latent_dim < 1 || self.hidden_dim < 1 || !rates_valid || self.noise_std < 0.0 {
            let found = format!(
                "{}, {}, {}, {}, {}",
                self.latent_dim, self.hidden_dim, self.dropout, self.word_dropout, self.noise_std
            );
            let expected = "positive dimensions, rates in [0, 1) and no negative noise_std";
            return Err(Error::config(
                "model.latent_dim, hidden_dim, dropout, word_dropout, noise_std",
                found,
                expected,
            ));
        }
        Ok(())
    }
}

/// An autoencoder of token sequences `[rows, length]`: a transformer encodes them to a latent vector, from which a
/// causal transformer predicts them token by token; the loss is the cross-entropy.
///
/// *Semi-supervised Sequence Learning* ([Dai and Le, 2015](https://arxiv.org/abs/1511.01432)), with transformers.
pub struct SequenceAutoencoder {
    modality: Modality,
    embedding: Embedding,
    position_embedding: Tensor,
    encoder: Transformer,
    to_latent: Linear,
    from_latent: Linear,
    decoder: Transformer,
    lm_head: Linear,
    length: i64,
    config: SequenceAutoencoderConfig,
}

impl SequenceAutoencoder {
    /// Transformers `encoder` and `decoder` under `scope`.
    ///
    /// # Errors
    /// A setting is out of range, or the values are not token ids.
    pub fn new(
        scope: &Scope<'_>,
        (modality, spec): (&Modality, &InputSpec),
        config: &SequenceAutoencoderConfig,
    ) -> Result<Self> {
        let c = config;
        let ValueType::Tokens(vocab_size) = spec.value_type else {
            let expected = "token ids (kind = \"characters\")";
            return Err(Error::config(format!("inputs.{modality}"), format!("{:?}", spec.value_type), expected));
        };
        c.validate()?;
        let transformer = |name: &str, causal: bool| {
            let attention = AttentionConfig { causal, ..AttentionConfig::new(c.hidden_dim, c.num_heads) };
            pre_norm_transformer(&scope.pp(name), attention, c.num_layers, c.dropout)
        };
        let length = spec.shape[0];
        Ok(Self {
            modality: modality.clone(),
            embedding: Embedding::new(&scope.pp("embedding"), vocab_size, c.hidden_dim)?,
            position_embedding: scope.param("position_embedding", &[length, c.hidden_dim], Init::Normal(0.02))?,
            encoder: transformer("encoder", false)?,
            to_latent: Linear::new(&scope.pp("to_latent"), c.hidden_dim, c.latent_dim, true)?,
            from_latent: Linear::new(&scope.pp("from_latent"), c.latent_dim, c.hidden_dim, true)?,
            decoder: transformer("decoder", true)?,
            lm_head: Linear::new(&scope.pp("lm_head"), c.hidden_dim, vocab_size, true)?,
            length,
            config: c.clone(),
        })
    }

    fn latent(&self, tokens: &Tensor, train: bool) -> Result<Tensor> {
        let mask = tokens.gt_scalar(PAD as f64)?; // [rows, length]
        let x = self.embedding.forward(tokens)?.add(&self.position_embedding)?;
        let padding = Mask::Padding(mask.clone());
        let x = self.encoder.forward(&x, ForwardArgs { mask: Some(&padding), train, ..ForwardArgs::default() })?;
        self.to_latent.forward(&Features::new(x, Some(mask))?.pool(Pooling::Mean)?, train)
    }

    /// Logits `[rows, length, vocab_size]` of the token after each of `tokens`, whose first position is `offset`.
    fn logits(
        &self,
        latent: &Tensor,
        tokens: &Tensor,
        offset: i64,
        caches: Option<&mut [BlockCache]>,
        train: bool,
    ) -> Result<Tensor> {
        let positions = self.position_embedding.narrow(0, offset, tokens.size(1)?)?;
        let latent = self.from_latent.forward(latent, train)?.unsqueeze(1)?; // [rows, 1, hidden_dim]
        let x = self.embedding.forward(tokens)?.add(&positions)?.add(&latent)?;
        let x = self.decoder.forward(&x, ForwardArgs { caches, train, ..ForwardArgs::default() })?;
        self.lm_head.forward(&x, train)
    }

    /// Replaces a random `word_dropout` of the tokens, special ones excepted, by the unknown token.
    fn drop_words(&self, tokens: &Tensor) -> Result<Tensor> {
        let dropped = Tensor::full(&[1], self.config.word_dropout, DType::F32, tokens.device())?
            .gt(&Tensor::rand(&tokens.shape(), DType::F32, tokens.device())?)?
            .logical_and(&tokens.gt_scalar(UNKNOWN as f64)?)?;
        tokens.masked_fill(&dropped, UNKNOWN as f64)
    }

    /// Greedy decoding up to the maximum length, `[rows, length]`.
    fn generate(&self, latent: &Tensor) -> Result<Tensor> {
        let mut caches = self.decoder.new_caches();
        let mut last = Tensor::ones(&[latent.size(0)?, 1], DType::I64, latent.device())?; // start token
        let mut finished = Tensor::zeros(&[latent.size(0)?, 1], DType::Bool, latent.device())?;
        let mut generated = vec![last.clone()];
        for position in 0..self.length - 1 {
            let logits = self.logits(latent, &last, position, Some(&mut caches), false)?;
            // Neither padding nor the start token is generated.
            let allowed = logits.narrow(2, END, logits.size(2)? - END)?;
            let token = allowed.argmax(2)?.add_scalar(END as f64)?.to_dtype(DType::I64)?;
            last = token.masked_fill(&finished, PAD as f64)?;
            finished = finished.logical_or(&last.eq_scalar(END as f64)?)?;
            generated.push(last.clone());
        }
        Tensor::cat(&generated.iter().collect::<Vec<_>>(), 1)
    }
}

impl RepresentationLearner for SequenceAutoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some(tokens) = present_rows(set, &self.modality)? else { return Ok(None) };
        let c = &self.config;
        let mut latent = self.latent(&tokens, train)?;
        if train && c.noise_std > 0.0 {
            let noise = Tensor::randn(&latent.shape(), DType::F32, latent.device())?;
            latent = latent.add(&noise.mul_scalar(c.noise_std)?)?;
        }
        let length = self.length - 1;
        let mut input = tokens.narrow(1, 0, length)?;
        if train && c.word_dropout > 0.0 {
            input = self.drop_words(&input)?;
        }
        let logits = self.logits(&latent, &input, 0, None, train)?.flatten(0, 1)?; // [rows · length, vocab_size]
        let target = tokens.narrow(1, 1, length)?.reshape(&[-1])?;
        let loss = logits.cross_entropy(&target, PAD, 0.0)?;
        let accuracy = no_grad(|| {
            let mask = target.gt_scalar(PAD as f64)?.to_dtype(DType::F32)?;
            let correct = logits.argmax(1)?.eq(&target)?.to_dtype(DType::F32)?.mul(&mask)?;
            correct.sum()?.div(&mask.sum()?)?.to_f64()
        })?;
        let metrics = vec![("cross_entropy".to_owned(), loss.to_f64()?), ("token_accuracy".into(), accuracy)];
        Ok(Some((loss, metrics)))
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.latent(&set.get(&self.modality)?.0.values, false)
    }

    fn dim(&self) -> i64 {
        self.config.latent_dim
    }

    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        Some(self)
    }
}

impl GenerativeDecoder for SequenceAutoencoder {
    fn generates(&self, modality: &Modality) -> bool {
        *modality == self.modality
    }

    fn decode(&self, latent: &Tensor, _modality: &Modality) -> Result<Tensor> {
        self.generate(latent)
    }

    /// `None`: the latents have no prior.
    fn sample_prior(&self, _rows: i64, _condition: Option<&InputSet>) -> Result<Option<Tensor>> {
        Ok(None)
    }
}
