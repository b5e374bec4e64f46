//! The one decoder that every model that speaks is made of: words and positions in, blocks that look back (and maybe at a context), scores
//! of the next word out. Families differ in its switches.

use crate::generate::{LanguageModel, Prefill};
use mm_core::{
    DType, Device, Error, Init, Module, Result, Scope, Tensor,
    nn::{
        Activation, AttentionMaps, BlockCache, Embedding, ForwardArgs, Linear, Mask, Norm, NormConfig, Transformer,
        TransformerConfig,
    },
};
use mm_repr::family::ModelBuilder;

/// Sizes and switches of a [`Decoder`].
#[derive(Debug, Clone)]
pub struct DecoderConfig {
    /// Tokenizer that it knows.
    pub vocabulary: i64,
    /// Width of its features.
    pub width: i64,
    /// Learned positions: how many, and which of the table is the first (TrOCR's table begins with two that are not used).
    pub positions: Option<(i64, i64)>,
    /// Positions that are made and not learned, `[entries, width]`.
    pub fixed_positions: Option<Tensor>,
    /// What word vectors are multiplied by.
    pub scale: f64,
    /// A normalisation of words and positions together.
    pub input_norm: Option<NormConfig>,
    /// Its blocks.
    pub blocks: TransformerConfig,
    /// BERT's layer before the scores.
    pub transform: Option<(Activation, NormConfig)>,
    /// Whether the scores have a bias.
    pub head_bias: bool,
    /// Rotary positions; in blocks whose attention has no position of its own.
    pub rotary: Option<RotaryConfig>,
    /// Most positions.
    pub longest: i64,
}

impl DecoderConfig {
    /// Words and a learned vector for each of `longest` positions into these blocks; scores without a bias.
    pub fn new(vocabulary: i64, longest: i64, blocks: TransformerConfig) -> Self {
        Self {
            vocabulary,
            width: blocks.block.attention.width,
            positions: Some((longest, 0)),
            fixed_positions: None,
            scale: 1.0,
            input_norm: None,
            blocks,
            transform: None,
            head_bias: false,
            rotary: None,
            longest,
        }
    }
}

/// Rotary positions of a decoder.
#[derive(Debug, Clone)]
pub struct RotaryConfig {
    /// Width of a head.
    pub head: i64,
    /// Wavelengths as steps an angle, one a pair: `1 / base^(2 i / head)`, changed where the folder says so.
    pub frequencies: Vec<f32>,
    /// How the pairs are shared out among time, row and column (Qwen2-VL); one running number where absent.
    pub sections: Option<[i64; 3]>,
}

/// What a [`Decoder`] remembers.
#[derive(Default)]
pub struct State {
    blocks: Vec<BlockCache>,
    /// What cross-attention looks at, and which of its positions count.
    context: Option<(Tensor, Option<Mask>)>,
    /// Rows of the context.
    contexts: i64,
    /// Rows of what was said.
    rows: i64,
    /// The next position.
    position: i64,
    /// Where rows began with prompts of different lengths.
    apart: Option<Apart>,
}

/// What rows of different lengths lack of the longest, `[rows]` int64 each.
#[derive(Debug)]
struct Apart {
    /// Places of memory before their own, which do not count.
    places: Tensor,
    /// Positions, up to the next.
    positions: Tensor,
}

impl State {
    /// The next position.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Another next position (pictures take fewer positions than tokens in Qwen2-VL).
    pub fn place(&mut self, position: i64) {
        self.position = position;
    }
}

/// How a piece of input is read.
#[derive(Default)]
pub struct Reading<'a> {
    /// All positions see each other, though the blocks look back only (a picture's patches).
    pub open: bool,
    /// Its rotary angles, where they are not those of the next positions.
    pub angles: Option<(&'a Tensor, &'a Tensor)>,
    /// Gets where each block looked.
    pub weights: Option<&'a mut Vec<AttentionMaps>>,
    /// Whether the positions do not count (what was read has places of its own).
    pub unplaced: bool,
}

/// A decoder.
pub struct Decoder {
    words: Embedding,
    positions: Option<(Embedding, i64)>,
    fixed: Option<Tensor>,
    norm: Option<Norm>,
    blocks: Transformer,
    transform: Option<(Linear, Activation, Norm)>,
    head: Linear,
    config: DecoderConfig,
}

impl Decoder {
    /// Parameters `embed_tokens`, `embed_positions`, `embed_norm`, `layers…`, `transform`, `head` under `scope`; scores are made with the
    /// word vectors themselves where the checkpoint has no `head`.
    pub fn new(b: &ModelBuilder<'_>, scope: &Scope<'_>, config: DecoderConfig) -> mm_repr::Result<Self> {
        let scope = &scope.decode_mode();
        let blocks = b.transformer(scope, config.blocks.clone())?;
        Ok(Self::with(scope, config, blocks, scope.pp("head").has("weight"))?)
    }

    /// The same from nothing, or from a run's checkpoint; scores are made with the word vectors.
    pub fn fresh(scope: &Scope<'_>, config: DecoderConfig) -> Result<Self> {
        let blocks = Transformer::new(scope, &config.blocks)?;
        Self::with(scope, config, blocks, false)
    }

    fn with(scope: &Scope<'_>, config: DecoderConfig, blocks: Transformer, own_head: bool) -> Result<Self> {
        let words = Embedding::new(&scope.pp("embed_tokens"), config.vocabulary, config.width)?;
        let positions = config.positions.map(|(count, first)| {
            Ok::<_, Error>((Embedding::new(&scope.pp("embed_positions"), count + first, config.width)?, first))
        });
        let place = scope.pp("transform");
        let transform = config.transform.map(|(activation, norm)| {
            let dense = Linear::new(&place.pp("dense"), config.width, config.width, true)?;
            Ok::<_, Error>((dense, activation, Norm::new(&place.pp("norm"), config.width, norm)?))
        });
        let head = if own_head {
            Linear::new(&scope.pp("head"), config.width, config.vocabulary, config.head_bias)?
        } else {
            let bias = scope.pp("head");
            let bias = config.head_bias.then(|| bias.param("bias", &[config.vocabulary], Init::Zeros)).transpose()?;
            Linear::from_parts(words.weight().clone(), bias).placed(scope)
        };
        Ok(Self {
            positions: positions.transpose()?,
            fixed: config.fixed_positions.clone(),
            norm: config.input_norm.map(|n| Norm::new(&scope.pp("embed_norm"), config.width, n)).transpose()?,
            blocks,
            transform: transform.transpose()?,
            head: head.laid_out()?,
            words,
            config,
        })
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.words.weight().device()
    }

    /// Bytes that it remembers of each position of a row.
    pub fn memory(&self) -> i64 {
        let attention = &self.config.blocks.block.attention;
        let groups = attention.key_value_heads.unwrap_or(attention.heads);
        let head = attention.head_width.unwrap_or(attention.width / attention.heads.max(1));
        let half = self.words.weight().dtype().is_ok_and(|d| d != DType::F32);
        2 * self.config.blocks.layers * groups * head * if half { 2 } else { 4 }
    }

    /// Its sizes.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// A state that remembers nothing, with memory for so many positions; `context` is what cross-attention will look at.
    pub fn state(&self, rows: i64, room: i64, context: Option<(Tensor, Option<Tensor>)>) -> Result<State> {
        let contexts = context.as_ref().map_or(Ok(rows), |(c, _)| c.size(0))?;
        let context = context.map(|(values, mask)| (values, mask.map(Mask::Padding)));
        Ok(State { blocks: self.blocks.states_for(room), context, contexts, rows, position: 0, apart: None })
    }

    /// Vectors of tokens `[rows, tokens]`, without positions.
    pub fn words(&self, ids: &Tensor) -> Result<Tensor> {
        let x = self.words.forward(ids)?;
        if (self.config.scale - 1.0).abs() > f64::EPSILON { x.mul_scalar(self.config.scale) } else { Ok(x) }
    }

    /// Vectors of tokens at positions from `position` on, as they go into the first block.
    pub fn embed(&self, ids: &Tensor, position: i64) -> Result<Tensor> {
        self.embed_at(ids, position, None)
    }

    /// The same where rows `lack` so many positions of that.
    fn embed_at(&self, ids: &Tensor, position: i64, lack: Option<&Tensor>) -> Result<Tensor> {
        let mut x = self.words(ids)?;
        let length = ids.size(1)?;
        if position + length > self.config.longest {
            let wanted = format!("at most the model's {} positions", self.config.longest);
            return Err(Error::config("length of the text", position + length, wanted));
        }
        let places = |first: i64| -> Result<Tensor> {
            let all = Tensor::arange(position + first, position + first + length, ids.device())?;
            lack.map_or(Ok(all.clone()), |lack| all.unsqueeze(0)?.sub(&lack.unsqueeze(1)?))
        };
        if let Some((table, first)) = &self.positions {
            x = x.add(&table.forward(&places(*first)?)?)?;
        }
        if let Some(table) = &self.fixed {
            let mine = match lack {
                Some(_) => table.to_device(x.device())?.embedding(&places(0)?)?,
                None => table.narrow(0, position, length)?.to_device(x.device())?,
            };
            x = x.add(&mine.to_dtype(x.dtype()?)?)?;
        }
        match &self.norm {
            Some(norm) => norm.forward(&x, false),
            None => Ok(x),
        }
    }

    /// Cosines and sines `[length, head / 2]` of places that are running numbers, or of `[3, length]` places of time, row and column.
    pub fn angles(&self, places: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        let Some(rotary) = &self.config.rotary else { return Ok(None) };
        let frequencies = Tensor::from_slice(&rotary.frequencies)?.to_device(places.device())?;
        let angles = places.to_dtype(DType::F32)?.unsqueeze(-1)?.mul(&frequencies)?; // [(3,) length, pairs]
        let angles = match (&rotary.sections, angles.rank()) {
            (Some(sections), 3) => {
                let mut parts = Vec::new();
                let mut from = 0;
                for (axis, pairs) in sections.iter().enumerate() {
                    parts.push(angles.select(0, axis as i64)?.narrow(1, from, *pairs)?);
                    from += pairs;
                }
                Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1)?
            }
            _ => angles,
        };
        let dtype = self.words.weight().dtype()?;
        Ok(Some((angles.cos()?.to_dtype(dtype)?, angles.sin()?.to_dtype(dtype)?)))
    }

    /// Reads vectors `[rows, length, width]` that are ready for the first block → features of the same shape.
    pub fn read(&self, x: &Tensor, state: &mut State, reading: Reading<'_>) -> Result<Tensor> {
        let length = x.size(1)?;
        let made = match reading.angles {
            None if self.config.rotary.is_some() => {
                let places = Tensor::arange(state.position, state.position + length, x.device())?;
                match &state.apart {
                    None => self.angles(&places)?,
                    Some(Apart { positions, .. }) => {
                        let each = places.unsqueeze(0)?.sub(&positions.unsqueeze(1)?)?.reshape(&[-1])?;
                        let rows = |t: Tensor| t.reshape(&[positions.size(0)?, 1, length, t.size(-1)?]);
                        self.angles(&each)?.map(|(c, s)| Ok::<_, Error>((rows(c)?, rows(s)?))).transpose()?
                    }
                }
            }
            _ => None,
        };
        let mask = match &state.apart {
            Some(Apart { places, .. }) => {
                let keys = state.blocks.first().map_or(0, |b| b.own.length()) + length;
                let all = Tensor::arange(0, keys, x.device())?.unsqueeze(0)?;
                Some(Mask::Padding(places.unsqueeze(1)?.lt(&all.add_scalar(1.0)?)?))
            }
            None => None,
        };
        let angles = reading.angles.or(made.as_ref().map(|(c, s)| (c, s)));
        let context = state.context.as_ref().map(|(c, m)| (c, m.as_ref()));
        let states = Some(state.blocks.as_mut_slice());
        let (mask, weights) = (mask.as_ref(), reading.weights);
        let pass = ForwardArgs { mask, context, states, angles, open: reading.open, weights, ..ForwardArgs::default() };
        let out = self.blocks.run(x, pass)?;
        if !reading.unplaced {
            state.position += length;
        }
        Ok(out)
    }

    /// Reads the same prompt into each row of a state, and is about to speak.
    pub fn begin(&self, mut state: State, prompt: &[i64]) -> Result<Prefill<State>> {
        let ids = Tensor::from_vec(prompt, &[1, prompt.len() as i64])?.to_device(self.device())?;
        let x = self.embed(&ids, state.position)?.expand(&[state.rows, -1, -1])?;
        let hidden = self.read(&x, &mut state, Reading::default())?;
        let prompts = vec![prompt.to_vec(); state.rows as usize];
        Ok(Prefill { logits: self.last(&hidden)?, state, prompts })
    }

    /// Reads the next tokens `[rows, tokens]`.
    fn next(&self, ids: &Tensor, state: &mut State) -> Result<Tensor> {
        let x = self.embed_at(ids, state.position, state.apart.as_ref().map(|a| &a.positions))?;
        self.read(&x, state, Reading::default())
    }

    /// Several that are about to speak as one, whatever the lengths of what they read: rows in their order. Each has as many rows as contexts
    /// and has not spoken yet.
    pub fn together(&self, starts: Vec<Prefill<State>>) -> Result<Prefill<State>> {
        let device = self.device();
        let states: Vec<&State> = starts.iter().map(|s| &s.state).collect();
        let held = |s: &State| s.blocks.first().map_or(0, |b| b.own.length());
        let furthest = |of: &dyn Fn(&State) -> i64| states.iter().map(|s| of(s)).max().unwrap_or(0);
        let (longest, position) = (furthest(&held), furthest(&|s| s.position));
        let each = |of: &dyn Fn(&State) -> i64| -> Result<Tensor> {
            let all: Vec<i64> = states.iter().flat_map(|s| std::iter::repeat_n(of(s), s.rows as usize)).collect();
            Tensor::from_slice(&all)?.to_device(device)
        };
        let apart = states.iter().any(|s| held(s) != longest || s.position != position);
        let blocks = (0..states.first().map_or(0, |s| s.blocks.len()))
            .map(|n| BlockCache::together(&states.iter().map(|s| &s.blocks[n]).collect::<Vec<_>>()))
            .collect::<Result<_>>()?;
        let state = State {
            blocks,
            context: Self::contexts(&states)?,
            contexts: states.iter().map(|s| s.contexts).sum(),
            rows: states.iter().map(|s| s.rows).sum(),
            position,
            apart: if apart {
                Some(Apart { places: each(&|s| longest - held(s))?, positions: each(&|s| position - s.position)? })
            } else {
                None
            },
        };
        let logits = Tensor::cat(&starts.iter().map(|s| &s.logits).collect::<Vec<_>>(), 0)?;
        Ok(Prefill { logits, prompts: starts.iter().flat_map(|s| s.prompts.clone()).collect(), state })
    }

    /// What several look at, the shorter ones at the end as in their caches.
    fn contexts(states: &[&State]) -> Result<Option<(Tensor, Option<Mask>)>> {
        let all: Vec<_> = states.iter().filter_map(|s| s.context.as_ref()).collect();
        let mut longest = 0;
        for (values, _) in &all {
            longest = longest.max(values.size(1)?);
        }
        let (mut values, mut masks) = (Vec::new(), Vec::new());
        for (value, mask) in &all {
            let (rows, length) = (value.size(0)?, value.size(1)?);
            let lack = longest - length;
            let before = Tensor::zeros(&[rows, lack, value.size(2)?], value.dtype()?, value.device())?;
            let seen = match mask {
                Some(Mask::Padding(padding)) => padding.clone(),
                _ => Tensor::ones(&[rows, length], DType::Bool, value.device())?,
            };
            let unseen = Tensor::zeros(&[rows, lack], DType::Bool, value.device())?;
            masks.push(Tensor::cat(&[&unseen, &seen], 1)?);
            values.push(Tensor::cat(&[&before, value], 1)?);
        }
        if all.is_empty() {
            return Ok(None);
        }
        let whole = all.iter().all(|(v, m)| m.is_none() && v.size(1).is_ok_and(|n| n == longest));
        let mask = Mask::Padding(Tensor::cat(&masks.iter().collect::<Vec<_>>(), 0)?);
        Ok(Some((Tensor::cat(&values.iter().collect::<Vec<_>>(), 0)?, (!whole).then_some(mask))))
    }

    /// Reads all at once and remembers nothing, for training: tokens `[rows, tokens]` and what they look at → scores after each.
    pub fn teacher_forcing(
        &self,
        ids: &Tensor,
        context: Option<(&Tensor, Option<&Mask>)>,
        train: bool,
    ) -> Result<Tensor> {
        let x = self.embed(ids, 0)?;
        let angles = self.angles(&Tensor::arange(0, ids.size(1)?, ids.device())?)?;
        let angles = angles.as_ref().map(|(c, s)| (c, s));
        let hidden = self.blocks.run(&x, ForwardArgs { context, angles, train, ..ForwardArgs::default() })?;
        self.scores(&hidden)
    }

    /// Vectors that are ready for the first block → features, all at once and nothing remembered, for training.
    pub fn pass(&self, x: &Tensor, pass: ForwardArgs<'_>) -> Result<Tensor> {
        self.blocks.run(x, pass)
    }

    /// Scores of the next token from features `[…, width]`.
    pub fn scores(&self, hidden: &Tensor) -> Result<Tensor> {
        match &self.transform {
            Some((dense, activation, norm)) => {
                self.head.forward(&norm.forward(&dense.activate(hidden, *activation)?, false)?, false)
            }
            None => self.head.forward(hidden, false),
        }
    }

    /// Scores after the last of these positions, `[rows, vocabulary]`.
    pub fn last(&self, hidden: &Tensor) -> Result<Tensor> {
        self.scores(&hidden.select(1, hidden.size(1)? - 1)?)
    }
}

impl LanguageModel for Decoder {
    type State = State;

    fn step(&self, ids: &Tensor, state: &mut State) -> Result<Tensor> {
        let hidden = self.next(ids, state)?;
        self.last(&hidden)
    }

    fn steps(&self, ids: &Tensor, state: &mut State) -> Result<Tensor> {
        let hidden = self.next(ids, state)?;
        self.scores(&hidden)
    }

    fn reorder(&self, state: &mut State, rows: &Tensor) -> Result<()> {
        for block in &mut state.blocks {
            block.own.reorder(rows)?;
        }
        if state.context.is_some() {
            // Rows that share a context lie beside each other; contexts that no row is left of go.
            let shared = (state.rows / state.contexts.max(1)).max(1);
            let mut kept: Vec<i64> = rows.to_vec::<i64>()?.into_iter().map(|r| r / shared).collect();
            kept.dedup();
            if kept.len() as i64 != state.contexts {
                state.contexts = kept.len() as i64;
                let kept = Tensor::from_slice(&kept)?.to_device(rows.device())?;
                for block in &mut state.blocks {
                    block.cross.reorder(&kept)?;
                }
                if let Some((values, mask)) = &mut state.context {
                    *values = values.index_select(0, &kept)?;
                    if let Some(Mask::Padding(padding)) = mask {
                        *padding = padding.index_select(0, &kept)?;
                    }
                }
            }
        }
        if let Some(Apart { places, positions }) = &mut state.apart {
            (*places, *positions) = (places.index_select(0, rows)?, positions.index_select(0, rows)?);
        }
        state.rows = rows.size(0)?;
        Ok(())
    }

    fn fork(&self, state: &State) -> Result<State> {
        let copy = |b: &BlockCache| Ok(BlockCache { own: b.own.fork()?, cross: b.cross.fork()? });
        Ok(State {
            blocks: state.blocks.iter().map(copy).collect::<Result<_>>()?,
            context: state.context.clone(),
            contexts: state.contexts,
            rows: state.rows,
            position: state.position,
            apart: state.apart.as_ref().map(|a| Apart { places: a.places.clone(), positions: a.positions.clone() }),
        })
    }
}
