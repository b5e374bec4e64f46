//! The decoder: embeddings, blocks and language model head.

use super::{
    config::DecoderConfig,
    state::{DecoderState, LeftPadding},
};
use crate::{
    DType, Device, Error, Init, Module, Result, Scope, Tensor,
    nn::{Activation, AttentionMaps, Embedding, ForwardArgs, Linear, Mask, Norm, Transformer},
};

/// Options of [`Decoder::forward`].
#[derive(Default)]
pub struct DecoderArgs<'a> {
    /// Disables the causal mask among the new positions (patches of an image).
    pub bidirectional: bool,
    /// Rotary cosines and sines, where they are not those of the next positions.
    pub rotary_cos_sin: Option<(&'a Tensor, &'a Tensor)>,
    /// Receives the attention maps of each block.
    pub attention_maps: Option<&'a mut Vec<AttentionMaps>>,
    /// Leaves the next position as it is: the input has positions of its own.
    pub keep_position: bool,
}

/// A decoder with a language model head.
pub struct Decoder {
    embed_tokens: Embedding,
    /// Learned positions and the first entry that is used.
    learned_positions: Option<(Embedding, i64)>,
    fixed_positions: Option<Tensor>,
    embed_norm: Option<Norm>,
    blocks: Transformer,
    head_transform: Option<(Linear, Activation, Norm)>,
    head: Linear,
    config: DecoderConfig,
}

impl Decoder {
    /// Parameters `embed_tokens`, `embed_positions`, `embed_norm`, `layers…`, `transform` and `head` under `scope`; the
    /// head shares the weights of the token embeddings.
    pub fn new(scope: &Scope<'_>, config: DecoderConfig) -> Result<Self> {
        let blocks = Transformer::new(scope, &config.blocks)?;
        Self::from_blocks(scope, config, blocks, false)
    }

    /// A decoder around `blocks` that are already built; `untied_head` gives the head weights of its own.
    pub fn from_blocks(
        scope: &Scope<'_>,
        config: DecoderConfig,
        blocks: Transformer,
        untied_head: bool,
    ) -> Result<Self> {
        let dim = config.dim;
        let embed_tokens = Embedding::new(&scope.pp("embed_tokens"), config.vocab_size, dim)?;
        let learned_positions = config.learned_positions.map(|p| {
            let table = Embedding::new(&scope.pp("embed_positions"), p.count + p.offset, dim)?;
            Ok::<_, Error>((table, p.offset))
        });
        let head_transform = config.head_transform.map(|(activation, norm)| {
            let scope = scope.pp("transform");
            let dense = Linear::new(&scope.pp("dense"), dim, dim, true)?;
            Ok::<_, Error>((dense, activation, Norm::new(&scope.pp("norm"), dim, norm)?))
        });
        let head_scope = scope.pp("head");
        let head = if untied_head {
            Linear::new(&head_scope, dim, config.vocab_size, config.head_bias)?
        } else {
            let bias = config.head_bias.then(|| head_scope.param("bias", &[config.vocab_size], Init::Zeros));
            Linear::from_parts(embed_tokens.weight().clone(), bias.transpose()?).in_scope(scope)
        };
        Ok(Self {
            learned_positions: learned_positions.transpose()?,
            fixed_positions: config.fixed_positions.clone(),
            embed_norm: config.embed_norm.map(|norm| Norm::new(&scope.pp("embed_norm"), dim, norm)).transpose()?,
            blocks,
            head_transform: head_transform.transpose()?,
            head: head.prepack()?,
            embed_tokens,
            config,
        })
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        self.embed_tokens.weight().device()
    }

    /// Size of the key-value cache of one row, in bytes per position.
    pub fn kv_bytes_per_token(&self) -> i64 {
        let attention = &self.config.blocks.block.attention;
        let (kv_heads, head_dim) = (attention.num_kv_heads(), attention.head_dim());
        let half_precision = self.embed_tokens.weight().dtype().is_ok_and(|dtype| dtype != DType::F32);
        2 * self.config.blocks.num_layers * kv_heads * head_dim * if half_precision { 2 } else { 4 }
    }

    /// Sizes and options.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// An empty state for `rows` rows with memory for `capacity` positions; `context` is what cross-attention attends
    /// to, `[rows, length, dim]`, with which of its positions are valid.
    pub fn init_state(
        &self,
        rows: i64,
        capacity: i64,
        context: Option<(Tensor, Option<Tensor>)>,
    ) -> Result<DecoderState> {
        let context = context.map(|(values, mask)| (values, mask.map(Mask::Padding)));
        DecoderState::new(self.blocks.new_caches_with_capacity(capacity), rows, context)
    }

    /// Token embeddings `[rows, tokens, dim]`, without positions.
    pub fn embed_tokens(&self, ids: &Tensor) -> Result<Tensor> {
        let x = self.embed_tokens.forward(ids)?;
        let scale = self.config.embed_scale;
        if (scale - 1.0).abs() > f64::EPSILON { x.mul_scalar(scale) } else { Ok(x) }
    }

    /// Input `[rows, tokens, dim]` of the first block for tokens at positions from `position` on.
    ///
    /// # Errors
    /// If the tokens exceed the maximum number of positions.
    pub fn embed(&self, ids: &Tensor, position: i64) -> Result<Tensor> {
        self.embed_at(ids, position, None)
    }

    /// [`Self::embed`], with positions of each row reduced by `offsets` `[rows]`.
    fn embed_at(&self, ids: &Tensor, position: i64, offsets: Option<&Tensor>) -> Result<Tensor> {
        let mut x = self.embed_tokens(ids)?;
        let length = ids.size(1)?;
        if position + length > self.config.max_positions {
            let expected = format!("at most the model's {} positions", self.config.max_positions);
            return Err(Error::config("number of tokens", position + length, expected));
        }
        let positions = |first: i64| -> Result<Tensor> {
            let all = Tensor::arange(position + first, position + first + length, ids.device())?;
            offsets.map_or(Ok(all.clone()), |offsets| all.unsqueeze(0)?.sub(&offsets.unsqueeze(1)?))
        };
        if let Some((table, first)) = &self.learned_positions {
            x = x.add(&table.forward(&positions(*first)?)?)?;
        }
        if let Some(table) = &self.fixed_positions {
            let rows = match offsets {
                Some(_) => table.to_device(x.device())?.embedding(&positions(0)?)?,
                None => table.narrow(0, position, length)?.to_device(x.device())?,
            };
            x = x.add(&rows.to_dtype(x.dtype()?)?)?;
        }
        match &self.embed_norm {
            Some(norm) => norm.forward(&x, false),
            None => Ok(x),
        }
    }

    /// Rotary cosines and sines `[length, head_dim / 2]` of positions `[length]`, or of positions of time, row and
    /// column `[3, length]`; none for decoders without rotary positions.
    pub fn rotary_cos_sin(&self, positions: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        let dtype = self.embed_tokens.weight().dtype()?;
        self.config.rotary.as_ref().map(|rotary| rotary.cos_sin(positions, dtype)).transpose()
    }

    /// Rotary cosines and sines of the next `length` positions of each row.
    fn next_rotary_cos_sin(&self, state: &DecoderState, length: i64) -> Result<Option<(Tensor, Tensor)>> {
        if self.config.rotary.is_none() {
            return Ok(None);
        }
        let positions = Tensor::arange(state.position, state.position + length, self.device())?;
        let Some(LeftPadding { positions: offsets, .. }) = &state.left_padding else {
            return self.rotary_cos_sin(&positions);
        };
        let flat = positions.unsqueeze(0)?.sub(&offsets.unsqueeze(1)?)?.reshape(&[-1])?;
        let by_row = |t: Tensor| t.reshape(&[offsets.size(0)?, 1, length, t.size(-1)?]);
        self.rotary_cos_sin(&flat)?.map(|(cos, sin)| Ok((by_row(cos)?, by_row(sin)?))).transpose()
    }

    /// Inputs of the first block `[rows, length, dim]` → features of the same shape; keys and values are cached in
    /// `state`.
    pub fn forward(&self, x: &Tensor, state: &mut DecoderState, args: DecoderArgs<'_>) -> Result<Tensor> {
        let length = x.size(1)?;
        let computed = match args.rotary_cos_sin {
            Some(_) => None,
            None => self.next_rotary_cos_sin(state, length)?,
        };
        let angles = args.rotary_cos_sin.or(computed.as_ref().map(|(cos, sin)| (cos, sin)));
        let mask = state.padding_mask(length, x.device())?;
        let context = state.context.as_ref().map(|(values, mask)| (values, mask.as_ref()));
        let pass = ForwardArgs {
            mask: mask.as_ref(),
            context,
            caches: Some(state.blocks.as_mut_slice()),
            rotary: angles,
            bidirectional: args.bidirectional,
            attention_maps: args.attention_maps,
            ..ForwardArgs::default()
        };
        let out = self.blocks.forward(x, pass)?;
        if !args.keep_position {
            state.position += length;
        }
        Ok(out)
    }

    /// Feeds the same prompt to all rows of a state; returns the logits of the next token, `[rows, vocab]`.
    pub fn prefill(&self, state: &mut DecoderState, prompt: &[i64]) -> Result<Tensor> {
        let ids = Tensor::from_vec(prompt, &[1, prompt.len() as i64])?.to_device(self.device())?;
        let x = self.embed(&ids, state.position)?.expand(&[state.rows, -1, -1])?;
        let hidden = self.forward(&x, state, DecoderArgs::default())?;
        self.last_logits(&hidden)
    }

    /// Features of the next tokens `[rows, tokens]`.
    fn forward_tokens(&self, ids: &Tensor, state: &mut DecoderState) -> Result<Tensor> {
        let x = self.embed_at(ids, state.position, state.left_padding.as_ref().map(|p| &p.positions))?;
        self.forward(&x, state, DecoderArgs::default())
    }

    /// One token of each row, `[rows, 1]` → logits of the next, `[rows, vocab]`.
    pub fn step(&self, ids: &Tensor, state: &mut DecoderState) -> Result<Tensor> {
        let hidden = self.forward_tokens(ids, state)?;
        self.last_logits(&hidden)
    }

    /// Several tokens of each row, `[rows, tokens]` → logits after each, `[rows, tokens, vocab]`.
    pub fn step_many(&self, ids: &Tensor, state: &mut DecoderState) -> Result<Tensor> {
        let hidden = self.forward_tokens(ids, state)?;
        self.logits(&hidden)
    }

    /// Tokens `[rows, tokens]` and the context of cross-attention → logits after each token, `[rows, tokens, vocab]`,
    /// without a cache (training).
    pub fn teacher_forcing(
        &self,
        ids: &Tensor,
        context: Option<(&Tensor, Option<&Mask>)>,
        train: bool,
    ) -> Result<Tensor> {
        let x = self.embed(ids, 0)?;
        let rotary = self.rotary_cos_sin(&Tensor::arange(0, ids.size(1)?, ids.device())?)?;
        let angles = rotary.as_ref().map(|(cos, sin)| (cos, sin));
        let hidden =
            self.blocks.forward(&x, ForwardArgs { context, rotary: angles, train, ..ForwardArgs::default() })?;
        self.logits(&hidden)
    }

    /// Inputs of the first block → features of the same shape, without a cache (training).
    pub fn forward_uncached(&self, x: &Tensor, pass: ForwardArgs<'_>) -> Result<Tensor> {
        self.blocks.forward(x, pass)
    }

    /// Logits `[…, vocab]` from features `[…, dim]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        match &self.head_transform {
            Some((dense, activation, norm)) => {
                self.head.forward(&norm.forward(&dense.forward_activation(hidden, *activation)?, false)?, false)
            }
            None => self.head.forward(hidden, false),
        }
    }

    /// Logits `[rows, vocab]` after the last position of features `[rows, length, dim]`.
    pub fn last_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.logits(&hidden.select(1, hidden.size(1)? - 1)?)
    }
}
