//! Captioning networks: features of an image (or of any encoder) in, token ids out.
//!
//! [`CaptionerKind`] selects a transformer with cross-attention, an LSTM with soft attention, or a transformer with a
//! prefix. Ids 0 and 1 are the padding and the unknown token, [`BOS`] and [`EOS`] start and end a caption.

mod config;
mod lstm;

pub use config::{CaptionerConfig, CaptionerKind};

use crate::{
    Result,
    generate::{LanguageModel, Prefill},
};
use lstm::{LstmDecoder, LstmState};
use mm_core::{
    DType, Features, Module, Pooling, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, ForwardArgs, Linear, Mask, MlpConfig, Norm, NormConfig,
        TransformerConfig,
        decoder::{Decoder, DecoderArgs, DecoderConfig, DecoderState},
    },
};

/// The token that starts a caption.
pub const BOS: i64 = 2;
/// The token that ends a caption.
pub const EOS: i64 = 3;

enum Network {
    CrossAttention(Box<Decoder>),
    Prefix { decoder: Box<Decoder>, projection: Box<Linear>, length: i64 },
    Lstm(Box<LstmDecoder>),
}

/// The state of a [`Captioner`] during generation.
pub struct CaptionState(StateKind);

enum StateKind {
    Decoder(DecoderState),
    Lstm(LstmState),
}

/// A captioning network.
pub struct Captioner {
    project: Linear,
    norm: Norm,
    network: Network,
    dropout: f64,
}

impl Captioner {
    /// A network for features of dimension `input_dim` and a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    /// If a setting is out of range.
    pub fn new(scope: &Scope<'_>, input_dim: i64, vocab_size: i64, config: &CaptionerConfig) -> Result<Self> {
        config.validate()?;
        let dim = config.hidden_dim;
        let decoder = || Decoder::new(&scope.pp("decoder"), decoder_config(vocab_size, config));
        let network = match config.kind {
            CaptionerKind::Transformer => Network::CrossAttention(Box::new(decoder()?)),
            CaptionerKind::Prefix => Network::Prefix {
                decoder: Box::new(decoder()?),
                projection: Box::new(Linear::new(&scope.pp("prefix"), dim, dim * config.prefix_length, true)?),
                length: config.prefix_length,
            },
            CaptionerKind::Lstm => {
                Network::Lstm(Box::new(LstmDecoder::new(&scope.pp("lstm"), vocab_size, dim, config.dropout)?))
            }
        };
        Ok(Self {
            project: Linear::new(&scope.pp("project"), input_dim, dim, true)?,
            norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
            network,
            dropout: config.dropout,
        })
    }

    fn project(&self, features: &Features, train: bool) -> mm_core::Result<Features> {
        let values = self.project.forward(&features.values, train)?;
        let values = self.norm.forward(&values, train)?.dropout(self.dropout, train)?;
        Features::new(values, features.mask.clone())
    }

    /// Logits `[batch, tokens, vocab]` of the next token after each of `ids` `[batch, tokens]`, given features
    /// `[batch, positions, input_dim]`; masked positions change nothing.
    pub fn teacher_forcing(&self, features: &Features, ids: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let features = self.project(features, train)?;
        match &self.network {
            Network::CrossAttention(decoder) => {
                let mask = features.mask.map(Mask::Padding);
                decoder.teacher_forcing(ids, Some((&features.values, mask.as_ref())), train)
            }
            Network::Prefix { decoder, projection, length } => {
                let prefix = prefix(projection, *length, &features, train)?;
                let x = Tensor::cat(&[&prefix, &decoder.embed(ids, *length)?], 1)?;
                let hidden = decoder.forward_uncached(&x, ForwardArgs { train, ..ForwardArgs::default() })?;
                decoder.logits(&hidden.narrow(1, *length, ids.size(1)?)?)
            }
            Network::Lstm(lstm) => lstm.teacher_forcing(&features, ids, train),
        }
    }

    /// Encodes features `[batch, positions, input_dim]` (masked positions change nothing) and the [`BOS`] token; at
    /// most `max_new_tokens` can follow.
    pub fn prefill(&self, features: &Features, max_new_tokens: i64) -> mm_core::Result<Prefill<CaptionState>> {
        let features = self.project(features, false)?;
        let batch = features.values.size(0)?;
        let bos = Tensor::full(&[batch, 1], BOS as f64, DType::I64, features.values.device())?;
        let (state, logits) = match &self.network {
            Network::CrossAttention(decoder) => {
                let mut state =
                    decoder.init_state(batch, max_new_tokens + 1, Some((features.values, features.mask)))?;
                let logits = decoder.step(&bos, &mut state)?;
                (StateKind::Decoder(state), logits)
            }
            Network::Prefix { decoder, projection, length } => {
                let mut state = decoder.init_state(batch, max_new_tokens + length + 1, None)?;
                decoder.forward(&prefix(projection, *length, &features, false)?, &mut state, DecoderArgs::default())?;
                let logits = decoder.step(&bos, &mut state)?;
                (StateKind::Decoder(state), logits)
            }
            Network::Lstm(lstm) => {
                let mut state = lstm.init_state(&features, false)?;
                let logits = lstm.step(&bos.select(1, 0)?, &mut state, false)?;
                (StateKind::Lstm(state), logits)
            }
        };
        Ok(Prefill { state: CaptionState(state), logits, prompts: vec![vec![BOS]; batch as usize] })
    }
}

/// The decoder of the transformer kinds.
fn decoder_config(vocab_size: i64, config: &CaptionerConfig) -> DecoderConfig {
    let dropout = config.dropout;
    let attention = AttentionConfig { dropout, ..AttentionConfig::new(config.hidden_dim, config.num_heads) };
    let block = BlockConfig {
        cross_attention: (config.kind == CaptionerKind::Transformer).then(|| attention.clone()),
        dropout,
        ..BlockConfig::pre_norm(
            AttentionConfig { causal: true, ..attention },
            MlpConfig::new(4 * config.hidden_dim, Activation::Gelu),
        )
    };
    let blocks = TransformerConfig::new(config.num_layers, block);
    DecoderConfig {
        embed_norm: Some(NormConfig::default()),
        head_bias: true,
        ..DecoderConfig::new(vocab_size, config.max_length + config.prefix_length + 2, blocks)
    }
}

/// The mean feature projected to `length` vectors, `[batch, length, dim]`.
fn prefix(projection: &Linear, length: i64, features: &Features, train: bool) -> mm_core::Result<Tensor> {
    let mean = features.pool(Pooling::Mean)?;
    projection.forward(&mean, train)?.reshape(&[mean.size(0)?, length, -1])
}

fn wrong_state() -> mm_core::Error {
    mm_core::Error::Sample("found the generation state of another captioning network".into())
}

impl LanguageModel for Captioner {
    type State = CaptionState;

    fn step(&self, ids: &Tensor, state: &mut CaptionState) -> mm_core::Result<Tensor> {
        match (&self.network, &mut state.0) {
            (Network::CrossAttention(decoder) | Network::Prefix { decoder, .. }, StateKind::Decoder(state)) => {
                decoder.step(ids, state)
            }
            (Network::Lstm(lstm), StateKind::Lstm(state)) => lstm.step(&ids.select(1, 0)?, state, false),
            _ => Err(wrong_state()),
        }
    }

    fn step_many(&self, ids: &Tensor, state: &mut CaptionState) -> mm_core::Result<Tensor> {
        let each = (0..ids.size(1)?).map(|n| self.step(&ids.narrow(1, n, 1)?, state));
        let all = each.collect::<mm_core::Result<Vec<_>>>()?;
        Tensor::stack(&all.iter().collect::<Vec<_>>(), 1)
    }

    fn reorder(&self, state: &mut CaptionState, rows: &Tensor) -> mm_core::Result<()> {
        match (&self.network, &mut state.0) {
            (Network::CrossAttention(_) | Network::Prefix { .. }, StateKind::Decoder(state)) => state.reorder(rows),
            (Network::Lstm(_), StateKind::Lstm(state)) => state.reorder(rows),
            _ => Err(wrong_state()),
        }
    }

    fn fork(&self, state: &CaptionState) -> mm_core::Result<CaptionState> {
        match (&self.network, &state.0) {
            (Network::CrossAttention(_) | Network::Prefix { .. }, StateKind::Decoder(state)) => {
                Ok(CaptionState(StateKind::Decoder(state.fork()?)))
            }
            (Network::Lstm(_), StateKind::Lstm(state)) => Ok(CaptionState(StateKind::Lstm(state.clone()))),
            _ => Err(wrong_state()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, Params, seed::manual_seed};

    #[test]
    fn padded_positions_change_neither_training_nor_generation() {
        for kind in [CaptionerKind::Transformer, CaptionerKind::Lstm, CaptionerKind::Prefix] {
            manual_seed(5);
            let params = Params::new(Device::Cpu);
            let config = CaptionerConfig { kind, hidden_dim: 16, num_layers: 1, num_heads: 2, ..Default::default() };
            let captioner = Captioner::new(&params.scope(), 6, 11, &config).unwrap();
            let values = Tensor::randn(&[1, 3, 6], DType::F32, Device::Cpu).unwrap();
            let padding = Tensor::full(&[1, 2, 6], 9.0, DType::F32, Device::Cpu).unwrap();
            let mask = Tensor::from_vec(&[true, true, true, false, false], &[1, 5]).unwrap();
            let padded = Features::new(Tensor::cat(&[&values, &padding], 1).unwrap(), Some(mask)).unwrap();
            let features = Features::new(values, None).unwrap();
            let ids = Tensor::from_vec(&[BOS, 5, 7], &[1, 3]).unwrap();
            let forced = |f: &Features| captioner.teacher_forcing(f, &ids, false).unwrap().to_vec::<f32>().unwrap();
            let generated = |f: &Features| {
                let mut state = captioner.prefill(f, 3).unwrap().state;
                let ids = Tensor::from_vec(&[5_i64], &[1, 1]).unwrap();
                captioner.step(&ids, &mut state).unwrap().to_vec::<f32>().unwrap()
            };
            let close = |x: &[f32], y: &[f32]| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-4);
            assert!(close(&forced(&padded), &forced(&features)), "{kind:?}");
            assert!(close(&generated(&padded), &generated(&features)), "{kind:?}");
        }
    }
}
