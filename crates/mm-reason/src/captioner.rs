//! Networks that learn to describe: features of a picture in, words out. A transformer that looks at them, long short-term memory that looks
//! at them word by word (Show, Attend and Tell, Xu 2015), or a transformer that goes on from them (a prefix, ClipCap, Mokady 2021).

use crate::{
    Error, Result,
    decoder::{Decoder, DecoderConfig, Reading, State},
    generate::{LanguageModel, Prefill},
};
use mm_core::{
    Module, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Embedding, Linear, MlpConfig, Norm, NormConfig, Pass,
        TransformerConfig,
    },
};
use serde::{Deserialize, Serialize};

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionerKind {
    /// A transformer that looks at all features.
    #[default]
    Transformer,
    /// Long short-term memory with soft attention.
    Lstm,
    /// A transformer that goes on from some vectors made of the mean feature.
    Prefix,
}

/// Sizes of a [`Captioner`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionerConfig {
    /// Which network.
    pub kind: CaptionerKind,
    /// Its width.
    pub width: i64,
    /// Blocks (transformers).
    pub layers: i64,
    /// Heads (transformers).
    pub heads: i64,
    /// Rate of dropout while training.
    pub dropout: f64,
    /// Vectors of the prefix.
    pub prefix: i64,
    /// Most words.
    pub longest: i64,
}

impl Default for CaptionerConfig {
    fn default() -> Self {
        Self { kind: CaptionerKind::Transformer, width: 192, layers: 2, heads: 4, dropout: 0.2, prefix: 4, longest: 40 }
    }
}

/// The token that captions begin with; 0 pads, 1 is a word that is not known.
pub const BOS: i64 = 2;
/// The token that ends them.
pub const EOS: i64 = 3;

struct Attending {
    words: Embedding,
    first: [Linear; 2],
    cell: [Tensor; 4],
    places: Linear,
    state: Linear,
    score: Linear,
    gate: Linear,
    output: Linear,
    last: Linear,
    dropout: f64,
}

/// What long short-term memory remembers.
struct Memory {
    /// Features, and their projections for the attention.
    places: Tensor,
    known: Tensor,
    hidden: Tensor,
    cell: Tensor,
}

enum Body {
    Cross(Decoder),
    Prefix(Decoder, Linear, i64),
    Lstm(Box<Attending>),
}

/// What a [`Captioner`] remembers of a caption.
pub struct CaptionState(Held);

enum Held {
    Decoder(State),
    Memory(Memory),
}

/// A network that describes.
pub struct Captioner {
    project: Linear,
    norm: Norm,
    body: Body,
    dropout: f64,
}

impl Captioner {
    /// The network under `scope`, for features of width `input` and so many tokens.
    pub fn new(scope: &Scope<'_>, input: i64, vocabulary: i64, config: &CaptionerConfig) -> Result<Self> {
        let c = config;
        if c.width < 4 || c.layers < 1 || c.prefix < 1 || c.longest < 2 || !(0.0..1.0).contains(&c.dropout) {
            return Err(Error::invalid_argument("model", format!("{c:?}"), "positive sizes, and a rate in [0, 1)"));
        }
        let attention = AttentionConfig { dropout: c.dropout, ..AttentionConfig::new(c.width, c.heads) };
        let cross = (c.kind == CaptionerKind::Transformer).then(|| attention.clone());
        let block = BlockConfig {
            cross,
            norm_first: true,
            dropout: c.dropout,
            ..BlockConfig::new(
                AttentionConfig { causal: true, ..attention },
                MlpConfig::new(4 * c.width, Activation::Gelu),
            )
        };
        let decoder = || {
            let blocks = TransformerConfig { layers: c.layers, block: block.clone(), final_norm: true };
            let config = DecoderConfig {
                input_norm: Some(NormConfig::default()),
                head_bias: true,
                ..DecoderConfig::new(vocabulary, c.longest + c.prefix + 2, blocks)
            };
            Decoder::fresh(&scope.pp("decoder"), config)
        };
        let body = match c.kind {
            CaptionerKind::Transformer => Body::Cross(decoder()?),
            CaptionerKind::Prefix => {
                Body::Prefix(decoder()?, Linear::new(&scope.pp("prefix"), c.width, c.width * c.prefix, true)?, c.prefix)
            }
            CaptionerKind::Lstm => {
                let (w, place) = (c.width, scope.pp("memory"));
                let init = mm_core::Init::Uniform(1.0 / (w as f64).sqrt());
                let layer = |name: &str, input: i64, output: i64| Linear::new(&place.pp(name), input, output, true);
                Body::Lstm(Box::new(Attending {
                    words: Embedding::spread(&place.pp("words"), vocabulary, w, 1.0)?,
                    first: [layer("first_hidden", w, w)?, layer("first_cell", w, w)?],
                    cell: [
                        place.param("weight_ih", &[4 * w, 2 * w], init)?,
                        place.param("weight_hh", &[4 * w, w], init)?,
                        place.param("bias_ih", &[4 * w], init)?,
                        place.param("bias_hh", &[4 * w], init)?,
                    ],
                    places: layer("places", w, w)?,
                    state: layer("state", w, w)?,
                    score: layer("score", w, 1)?,
                    gate: layer("gate", w, w)?,
                    output: layer("output", 3 * w, w)?,
                    last: layer("last", w, vocabulary)?,
                    dropout: c.dropout,
                }))
            }
        };
        Ok(Self {
            project: Linear::new(&scope.pp("project"), input, c.width, true)?,
            norm: Norm::new(&scope.pp("norm"), c.width, NormConfig::default())?,
            body,
            dropout: c.dropout,
        })
    }

    fn places(&self, features: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        self.norm.forward(&self.project.forward(features, train)?, train)?.dropout(self.dropout, train)
    }

    /// Features `[rows, places, input]` and the tokens so far `[rows, tokens]` → scores of the next after each, `[rows, tokens, vocabulary]`.
    pub fn teacher_forcing(&self, features: &Tensor, ids: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let places = self.places(features, train)?;
        match &self.body {
            Body::Cross(decoder) => decoder.teacher_forcing(ids, Some((&places, None)), train),
            Body::Prefix(decoder, prefix, count) => {
                let before = prefix.forward(&places.mean_dims(&[1], false)?, train)?;
                let before = before.reshape(&[ids.size(0)?, *count, -1])?;
                let x = Tensor::cat(&[&before, &decoder.embed(ids, *count)?], 1)?;
                let length = ids.size(1)?;
                let hidden = decoder.pass(&x, Pass { train, ..Pass::default() })?;
                decoder.scores(&hidden.narrow(1, *count, length)?)
            }
            Body::Lstm(net) => {
                let mut memory = net.start(&places, train)?;
                let steps = (0..ids.size(1)?).map(|n| net.step(&ids.select(1, n)?, &mut memory, train));
                let all = steps.collect::<mm_core::Result<Vec<_>>>()?;
                Tensor::stack(&all.iter().collect::<Vec<_>>(), 1)
            }
        }
    }

    /// Has seen features `[rows, places, input]` and is about to say the first word.
    pub fn prefill(&self, features: &Tensor, room: i64) -> mm_core::Result<Prefill<CaptionState>> {
        let places = self.places(features, false)?;
        let rows = places.size(0)?;
        let begin = Tensor::full(&[rows, 1], BOS as f64, mm_core::DType::I64, places.device())?;
        let (held, logits) = match &self.body {
            Body::Cross(decoder) => {
                let mut state = decoder.state(rows, room + 1, Some((places, None)))?;
                let logits = decoder.step(&begin, &mut state)?;
                (Held::Decoder(state), logits)
            }
            Body::Prefix(decoder, prefix, count) => {
                let before = prefix.forward(&places.mean_dims(&[1], false)?, false)?.reshape(&[rows, *count, -1])?;
                let mut state = decoder.state(rows, room + count + 1, None)?;
                decoder.read(&before, &mut state, Reading::default())?;
                let logits = decoder.step(&begin, &mut state)?;
                (Held::Decoder(state), logits)
            }
            Body::Lstm(net) => {
                let mut memory = net.start(&places, false)?;
                let logits = net.step(&begin.select(1, 0)?, &mut memory, false)?;
                (Held::Memory(memory), logits)
            }
        };
        Ok(Prefill { state: CaptionState(held), logits, prompts: vec![vec![BOS]; rows as usize] })
    }
}

impl Attending {
    fn start(&self, places: &Tensor, train: bool) -> mm_core::Result<Memory> {
        let mean = places.mean_dims(&[1], false)?;
        Ok(Memory {
            known: self.places.forward(places, train)?,
            places: places.clone(),
            hidden: self.first[0].forward(&mean, train)?.tanh()?,
            cell: self.first[1].forward(&mean, train)?.tanh()?,
        })
    }

    /// Words `[rows]` → scores `[rows, vocabulary]`.
    fn step(&self, ids: &Tensor, memory: &mut Memory, train: bool) -> mm_core::Result<Tensor> {
        let word = self.words.forward(ids)?.dropout(self.dropout, train)?;
        let asked = self.state.forward(&memory.hidden, train)?.unsqueeze(1)?;
        let weights = self.score.forward(&memory.known.add(&asked)?.tanh()?, train)?.softmax(1)?; // [rows, places, 1]
        let seen = memory.places.mul(&weights)?.sum_dims(&[1], false)?;
        // How much of what it sees the next word needs.
        let seen = seen.mul(&self.gate.forward(&memory.hidden, train)?.sigmoid()?)?;
        let (hidden, cell) =
            Tensor::cat(&[&word, &seen], 1)?.lstm_cell(&memory.hidden, &memory.cell, self.cell.each_ref())?;
        (memory.hidden, memory.cell) = (hidden, cell);
        let all = Tensor::cat(&[&memory.hidden, &seen, &word], 1)?;
        self.last.forward(&self.output.forward(&all, train)?.tanh()?.dropout(self.dropout, train)?, train)
    }
}

impl LanguageModel for Captioner {
    type State = CaptionState;

    fn step(&self, ids: &Tensor, state: &mut CaptionState) -> mm_core::Result<Tensor> {
        match (&self.body, &mut state.0) {
            (Body::Cross(d) | Body::Prefix(d, ..), Held::Decoder(state)) => d.step(ids, state),
            (Body::Lstm(net), Held::Memory(memory)) => net.step(&ids.select(1, 0)?, memory, false),
            _ => Err(mm_core::Error::Sample("a state of another network".into())),
        }
    }

    fn steps(&self, ids: &Tensor, state: &mut CaptionState) -> mm_core::Result<Tensor> {
        let each = (0..ids.size(1)?).map(|n| self.step(&ids.narrow(1, n, 1)?, state));
        let all = each.collect::<mm_core::Result<Vec<_>>>()?;
        Tensor::stack(&all.iter().collect::<Vec<_>>(), 1)
    }

    fn reorder(&self, state: &mut CaptionState, rows: &Tensor) -> mm_core::Result<()> {
        match (&self.body, &mut state.0) {
            (Body::Cross(d) | Body::Prefix(d, ..), Held::Decoder(state)) => d.reorder(state, rows),
            (_, Held::Memory(memory)) => {
                for part in [&mut memory.places, &mut memory.known, &mut memory.hidden, &mut memory.cell] {
                    *part = part.index_select(0, rows)?;
                }
                Ok(())
            }
            _ => Err(mm_core::Error::Sample("a state of another network".into())),
        }
    }

    fn fork(&self, state: &CaptionState) -> mm_core::Result<CaptionState> {
        match (&self.body, &state.0) {
            (Body::Cross(d) | Body::Prefix(d, ..), Held::Decoder(state)) => {
                Ok(CaptionState(Held::Decoder(d.fork(state)?)))
            }
            (_, Held::Memory(m)) => Ok(CaptionState(Held::Memory(Memory {
                places: m.places.clone(),
                known: m.known.clone(),
                hidden: m.hidden.clone(),
                cell: m.cell.clone(),
            }))),
            _ => Err(mm_core::Error::Sample("a state of another network".into())),
        }
    }
}
