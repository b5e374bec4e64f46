//! The workspace's one attention: scaled dot products of queries with keys weigh values (Vaswani 2017). Self and cross, grouped
//! heads (Ainslie 2023), every kind of position, masks, a cache for decoding, weights on request, libtorch's fused path otherwise.

use super::{Linear, Position, Rotary, prepack::PackScale};
use crate::{DType, Error, Module, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// Sizes and switches of an [`Attention`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {
    /// Width of the queries and of the output.
    pub embed_dim: i64,
    /// Number of heads.
    pub num_heads: i64,
    /// Number of key and value heads that the query heads share; as many as `heads` when absent.
    #[serde(default)]
    pub num_kv_heads: Option<i64>,
    /// Width of a head; `width / heads` when absent.
    #[serde(default)]
    pub head_dim: Option<i64>,
    /// Width of what keys and values are made of; `width` when absent.
    #[serde(default)]
    pub context_dim: Option<i64>,
    /// Whether queries, keys and values have biases.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Whether keys have a bias where queries and values have one (Whisper's and VideoMAE's have none).
    #[serde(default = "yes")]
    pub key_bias: bool,
    /// Whether the output has a bias.
    #[serde(default = "yes")]
    pub output_bias: bool,
    /// Whether a position sees only itself and those before.
    #[serde(default)]
    pub causal: bool,
    /// How it knows positions.
    #[serde(default)]
    pub position: Position,
    /// What the scores are multiplied by; 1/√head width when absent.
    #[serde(default)]
    pub scale: Option<f64>,
    /// Rate at which weights are dropped while training.
    #[serde(default)]
    pub dropout: f64,
}

fn yes() -> bool {
    true
}

thread_local!(static TWICE: Cell<bool> = const { Cell::new(false) });

/// Runs `body` with attention in plain products, whose gradients can be differentiated again; the fused kernel's cannot.
pub fn with_math_attention<T>(body: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            TWICE.set(self.0);
        }
    }
    let _before = Before(TWICE.replace(true));
    body()
}

impl AttentionConfig {
    /// Plain self-attention of `heads` heads.
    pub fn new(width: i64, heads: i64) -> Self {
        Self {
            embed_dim: width,
            num_heads: heads,
            num_kv_heads: None,
            head_dim: None,
            context_dim: None,
            bias: true,
            key_bias: true,
            output_bias: true,
            causal: false,
            position: Position::None,
            scale: None,
            dropout: 0.0,
        }
    }

    fn head(&self) -> i64 {
        self.head_dim.unwrap_or(self.embed_dim / self.num_heads.max(1))
    }

    fn groups(&self) -> i64 {
        self.num_kv_heads.unwrap_or(self.num_heads)
    }

    fn check(&self) -> Result<()> {
        if self.num_heads < 1 || self.embed_dim < 1 || (self.head_dim.is_none() && self.embed_dim % self.num_heads != 0)
        {
            return Err(Error::config(
                "attention.num_heads",
                self.num_heads,
                format!("a divisor of the width {}", self.embed_dim),
            ));
        }
        if self.groups() < 1 || self.num_heads % self.groups() != 0 {
            return Err(Error::config(
                "attention.num_kv_heads",
                self.groups(),
                format!("a divisor of the {} heads", self.num_heads),
            ));
        }
        if matches!(self.position, Position::Rotary { .. }) && self.head() % 2 != 0 {
            return Err(Error::config("attention.head_dim", self.head(), "an even width for rotary positions"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("attention.dropout", self.dropout, "a rate in [0, 1)"));
        }
        Ok(())
    }
}

/// Which keys a query may see. Causality is a switch of the config and comes on top.
#[derive(Debug, Clone)]
pub enum Mask {
    /// `[batch, keys]` bool, true where there is data.
    Padding(Tensor),
    /// Bool, true where a query may look, broadcast to `[batch, heads, queries, keys]`.
    Allowed(Tensor),
    /// Numbers added to the scores, broadcast likewise.
    Bias(Tensor),
}

/// Keys and values of the positions before, in memory that is taken once and filled as positions come.
#[derive(Debug, Default)]
pub struct KeyValueCache {
    /// `[rows, key heads, room, head width]`.
    held: Option<(Tensor, Tensor)>,
    length: i64,
    room: i64,
}

impl KeyValueCache {
    /// An empty cache that takes memory for so many positions when the first comes, and again only when they do not do.
    pub fn with_capacity(positions: i64) -> Self {
        Self { held: None, length: 0, room: positions }
    }

    /// Number of positions held.
    pub fn length(&self) -> i64 {
        self.length
    }

    /// What is held, `[rows, key heads, positions, head width]` each.
    fn filled(&self) -> Result<Option<(Tensor, Tensor)>> {
        let cut = |t: &Tensor| t.narrow(2, 0, self.length);
        self.held.as_ref().map(|(key, value)| Ok((cut(key)?, cut(value)?))).transpose()
    }

    /// Adds positions, and gives all.
    fn push(&mut self, key: &Tensor, value: &Tensor) -> Result<(Tensor, Tensor)> {
        let (new, total) = (key.size(2)?, self.length + key.size(2)?);
        let fits = match &self.held {
            Some((held, _)) => held.size(2)? >= total,
            None => false,
        };
        if !fits {
            let before = self.filled()?;
            self.room = self.room.max(if before.is_some() { 2 * total } else { total });
            let grow = |like: &Tensor, old: Option<&Tensor>| -> Result<Tensor> {
                let mut shape = like.shape();
                shape[2] = self.room;
                let memory = Tensor::empty(&shape, like.dtype()?, like.device())?;
                if let Some(old) = old {
                    memory.narrow(2, 0, self.length)?.copy_(old)?;
                }
                Ok(memory)
            };
            self.held = Some((grow(key, before.as_ref().map(|b| &b.0))?, grow(value, before.as_ref().map(|b| &b.1))?));
        }
        if let Some((keys, values)) = &self.held {
            keys.narrow(2, self.length, new)?.copy_(key)?;
            values.narrow(2, self.length, new)?.copy_(value)?;
        }
        self.length = total;
        self.filled()?.ok_or_else(|| Error::Sample("a cache that holds nothing".into()))
    }

    /// Rows by number in place of those that are held: beams that go on, or one row for each of several.
    pub fn reorder(&mut self, rows: &Tensor) -> Result<()> {
        let Some((key, value)) = self.filled()? else { return Ok(()) };
        let (key, value) = (key.index_select(0, rows)?, value.index_select(0, rows)?);
        match &self.held {
            Some((keys, values)) if keys.size(0)? == key.size(0)? => {
                keys.narrow(2, 0, self.length)?.copy_(&key)?;
                values.narrow(2, 0, self.length)?.copy_(&value)?;
            }
            _ => {
                (self.held, self.length) = (None, 0);
                self.push(&key, &value)?;
            }
        }
        Ok(())
    }

    /// Several rows' caches as one. The shorter ones lie at the end, so that what comes next is beside what came last; the places before them
    /// hold zeros and do not count.
    pub fn batch_left_padded(caches: &[&Self]) -> Result<Self> {
        let longest = caches.iter().map(|c| c.length).max().unwrap_or(0);
        let room = longest + caches.iter().map(|c| c.room - c.length).max().unwrap_or(0).max(0);
        let all = caches.iter().map(|c| c.filled()).collect::<Result<Option<Vec<_>>>>()?;
        let Some([(key, _), ..]) = all.as_deref() else { return Ok(Self::with_capacity(room)) };
        let mut shape = key.shape();
        (shape[0], shape[2]) = (0, room);
        for (key, _) in all.iter().flatten() {
            shape[0] += key.size(0)?;
        }
        let memory = || Tensor::zeros(&shape, key.dtype()?, key.device());
        let (keys, values) = (memory()?, memory()?);
        let mut row = 0;
        for (key, value) in all.iter().flatten() {
            let (rows, length) = (key.size(0)?, key.size(2)?);
            for (whole, part) in [(&keys, key), (&values, value)] {
                whole.narrow(0, row, rows)?.narrow(2, longest - length, length)?.copy_(part)?;
            }
            row += rows;
        }
        Ok(Self { held: Some((keys, values)), length: longest, room })
    }

    /// A cache of its own with the same positions.
    pub fn fork(&self) -> Result<Self> {
        let mut copy = Self::with_capacity(self.room);
        if let Some((key, value)) = self.filled()? {
            copy.push(&key, &value)?;
        }
        Ok(copy)
    }
}

/// What one call of attention may be given beside the queries.
#[derive(Default)]
pub struct AttentionArgs<'a> {
    /// What keys and values are made of `[batch, keys, context width]`; the queries themselves when absent.
    pub context: Option<&'a Tensor>,
    /// Which keys may be seen.
    pub mask: Option<&'a Mask>,
    /// Keys and values of earlier positions; the new ones are added. With a context: the context's, made once and kept; its rows may be
    /// fewer than the queries', each then serving as many rows that lie beside each other (the beams of one picture).
    pub cache: Option<&'a mut KeyValueCache>,
    /// Cosines and sines that queries and keys are turned by, half against half, `[length, head width / 2]` with anything before that
    /// broadcasts; for positions that are no running number (time, row and column of a picture's patch).
    pub rotary: Option<(&'a Tensor, &'a Tensor)>,
    /// Whether every position sees all, though the config looks back only.
    pub bidirectional: bool,
    /// Whether the weights are wanted (the fused path does not make them).
    pub need_weights: bool,
    /// Added to the output: the residual of a block.
    pub residual: Option<&'a Tensor>,
    /// Whether this is training.
    pub train: bool,
}

/// What attention gives.
#[derive(Debug)]
pub struct AttentionOutput {
    /// `[batch, queries, width]`.
    pub values: Tensor,
    /// `[batch, heads, queries, keys]`, rows summing to one, when asked for.
    pub weights: Option<Tensor>,
}

/// Multi-head attention with parameters `q_proj`, `k_proj`, `v_proj`, `out_proj`.
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    /// Frozen self-attention: the three in one product.
    packed: Option<Linear>,
    output: Linear,
    config: AttentionConfig,
}

impl Attention {
    /// A layer under `scope`. Frozen self-attention keeps its three projections as one matrix.
    pub fn new(scope: &Scope<'_>, config: &AttentionConfig) -> Result<Self> {
        let mut attention = Self::cross(scope, config)?;
        if scope.is_frozen() && config.context_dim.unwrap_or(config.embed_dim) == config.embed_dim {
            attention.pack(scope)?;
        }
        Ok(attention)
    }

    /// The same for a layer that is always given a context, whose projections never see the same input.
    pub fn cross(scope: &Scope<'_>, config: &AttentionConfig) -> Result<Self> {
        config.check()?;
        let (head, context) = (config.head(), config.context_dim.unwrap_or(config.embed_dim));
        let (wide, narrow) = (config.num_heads * head, config.groups() * head);
        let query = Linear::new(&scope.pp("q_proj"), config.embed_dim, wide, config.bias)?;
        let key = Linear::new(&scope.pp("k_proj"), context, narrow, config.bias && config.key_bias)?;
        let value = Linear::new(&scope.pp("v_proj"), context, narrow, config.bias)?;
        Ok(Self {
            query,
            key,
            value,
            packed: None,
            config: config.clone(),
            output: Linear::new(&scope.pp("out_proj"), wide, config.embed_dim, config.output_bias)?,
        })
    }

    fn pack(&mut self, scope: &Scope<'_>) -> Result<()> {
        let weights = [&self.query, &self.key, &self.value].map(Linear::weight);
        let [Some(query), Some(key), Some(value)] = weights else { return Ok(()) };
        let none = Tensor::zeros(&[key.size(0)?], key.dtype()?, key.device())?;
        let bias = match (self.query.bias(), self.value.bias()) {
            (Some(q), Some(v)) => Some(Tensor::cat(&[q, self.key.bias().unwrap_or(&none), v], 0)?),
            _ => None,
        };
        self.packed = Some(Linear::concatenated([query, key, value], bias)?.in_scope(scope));
        Ok(())
    }

    /// `[batch, queries, width]` → the same, each position having looked at the keys it may see. A query that may see none looks
    /// at all alike.
    pub fn forward(&self, queries: &Tensor, mut attend: AttentionArgs<'_>) -> Result<AttentionOutput> {
        let config = &self.config;
        let shape = queries.shape();
        if shape.len() != 3 || shape[2] != config.embed_dim {
            return Err(Error::shape("attention queries", &shape, format!("[batch, queries, {}]", config.embed_dim)));
        }
        let (batch, length, head) = (shape[0], shape[1], config.head());
        // [rows, heads, length, head]
        let split = |x: &Tensor, heads: i64| x.reshape(&[x.size(0)?, -1, heads, head])?.transpose(1, 2);
        let kept = match (&attend.cache, attend.context) {
            (Some(cache), Some(_)) => cache.filled()?,
            _ => None,
        };
        let (query, made) = match (&self.packed, attend.context) {
            (Some(packed), None) => {
                let all = packed.forward(queries, false)?; // [batch, length, (heads + 2 groups) · head]
                let (wide, narrow) = (config.num_heads * head, config.groups() * head);
                let pair = (all.narrow(-1, wide, narrow)?, all.narrow(-1, wide + narrow, narrow)?);
                (all.narrow(-1, 0, wide)?, Some(pair))
            }
            (_, context) => {
                let own = match context {
                    None => Linear::forward_fused([&self.query, &self.key, &self.value], queries)?,
                    Some(_) => None,
                };
                let context = context.unwrap_or(queries);
                match (own.as_deref(), &kept) {
                    (Some([query, key, value]), _) => (query.clone(), Some((key.clone(), value.clone()))),
                    (_, Some(_)) => (self.query.forward(queries, false)?, None),
                    (_, None) => {
                        let made = match Linear::forward_fused([&self.key, &self.value], context)?.as_deref() {
                            Some([key, value]) => (key.clone(), value.clone()),
                            _ => (self.key.forward(context, false)?, self.value.forward(context, false)?),
                        };
                        (self.query.forward(queries, false)?, Some(made))
                    }
                }
            }
        };
        let mut query = split(&query, config.num_heads)?;
        let made = match made {
            Some((key, value)) => Some((split(&key, config.groups())?, split(&value, config.groups())?)),
            None => None,
        };
        let own = attend.context.is_none();
        let past = attend.cache.as_ref().filter(|_| own).map_or(0, |c| c.length());
        #[allow(clippy::manual_let_else)] // two patterns and two names read worse as one
        let (mut key, mut value) = match (made, kept) {
            (Some(pair), _) | (None, Some(pair)) => pair,
            (None, None) => return Err(Error::Sample("attention without keys".into())),
        };
        if let Some((cos, sin)) = attend.rotary {
            query = Rotary::turn(&query, cos, sin)?;
            key = Rotary::turn(&key, cos, sin)?;
        } else if let Position::Rotary { base } = config.position {
            let rotary = Rotary { width: head, base };
            query = rotary.apply(&query, past)?;
            key = rotary.apply(&key, past)?;
        }
        if let Some(cache) = attend.cache.as_mut()
            && (own || cache.length() == 0)
        {
            (key, value) = cache.push(&key, &value)?;
        }
        // Rows that share one context lie along the queries.
        let contexts = key.size(0)?;
        let shared = if contexts > 0 && batch % contexts == 0 { batch / contexts } else { 1 };
        if shared > 1 {
            let apart = query.reshape(&[contexts, shared, config.num_heads, length, head])?;
            query = apart.permute(&[0, 2, 1, 3, 4])?.reshape(&[contexts, config.num_heads, shared * length, head])?;
        }
        let keys = key.size(2)?;
        // A lone query at the end of the cache sees everything before it, so causality needs no mask there.
        let causal = config.causal && length > 1 && !attend.bidirectional;
        let plain = attend.mask.is_none();
        let twice = TWICE.get();
        let fused_causal = causal && own && plain && past == 0 && !attend.need_weights && !twice;
        let causal_mask = causal && !fused_causal && own;
        let bias = Self::bias(attend.mask, length, keys, past, causal_mask, &query)?;
        let dropout = if attend.train { config.dropout } else { 0.0 };
        // The fused kernel's way back is the faster one at every length (measured: up to four times). Without it, over few keys plain
        // products are (12 heads, 24 to 64 keys), unless there are so few that each product is too small to be worth its call.
        let recorded = [&query, &key, &value].iter().any(|t| t.requires_grad());
        let few = (17..=64).contains(&keys) && !recorded;
        // Dropout of weights is not fused on a processor.
        let products = (few || dropout > 0.0) && !fused_causal && query.device() == crate::Device::Cpu;
        let (mixed, weights) = if attend.need_weights || products || twice {
            let (mixed, weights) = self.explicit(&query, &key, &value, bias.as_ref(), dropout)?;
            (mixed, attend.need_weights.then_some(weights))
        } else {
            (
                query.scaled_dot_product_attention(&key, &value, bias.as_ref(), dropout, fused_causal, config.scale)?,
                None,
            )
        };
        let apart = |x: &Tensor, last: i64| -> Result<Tensor> {
            let x = x.reshape(&[contexts, config.num_heads, shared, length, last])?.permute(&[0, 2, 1, 3, 4])?;
            x.reshape(&[batch, config.num_heads, length, last])
        };
        let (mixed, weights) = if shared > 1 {
            (apart(&mixed, head)?, weights.map(|w| apart(&w, keys)).transpose()?)
        } else {
            (mixed, weights)
        };
        let joined = mixed.transpose(1, 2)?.reshape(&[batch, length, config.num_heads * head])?;
        Ok(AttentionOutput { values: self.output.forward_residual(&joined, attend.residual, PackScale::ONE)?, weights })
    }

    /// Everything that is added to the scores, as one tensor that broadcasts to `[batch, heads, queries, keys]`.
    fn bias(
        mask: Option<&Mask>,
        length: i64,
        keys: i64,
        past: i64,
        causal: bool,
        query: &Tensor,
    ) -> Result<Option<Tensor>> {
        let (dtype, device) = (query.dtype()?, query.device());
        // Finite, so that a query that may see nothing gives numbers and not NaN; exp() of it is exactly zero all the same.
        let hidden = dtype.mask_value();
        let forbid = |allowed: &Tensor| -> Result<Tensor> {
            Tensor::zeros(&allowed.shape(), dtype, device)?.masked_fill(&allowed.logical_not()?, hidden)
        };
        let mut total: Option<Tensor> = None;
        let mut add = |term: Tensor| -> Result<()> {
            total = Some(match total.take() {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
            Ok(())
        };
        match mask {
            None => {}
            Some(Mask::Padding(padding)) => {
                let shape = padding.shape();
                if shape.len() != 2 || shape[1] != keys {
                    return Err(Error::shape("attention padding mask", &shape, format!("[batch, {keys}]")));
                }
                add(forbid(padding)?.reshape(&[shape[0], 1, 1, keys])?)?;
            }
            Some(Mask::Allowed(allowed)) => add(forbid(allowed)?)?,
            Some(Mask::Bias(bias)) => add(bias.to_dtype(dtype)?)?,
        }
        if causal {
            let allowed = Tensor::ones(&[length, keys], DType::Bool, device)?.tril(past)?;
            add(forbid(&allowed)?)?;
        }
        // The fused kernel wants a mask of rank four (or two); leading ones broadcast.
        total.map(|t| if t.rank() == 3 { t.unsqueeze(0) } else { Ok(t) }).transpose()
    }

    fn explicit(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        bias: Option<&Tensor>,
        dropout: f64,
    ) -> Result<(Tensor, Tensor)> {
        let times = self.config.num_heads / self.config.groups();
        let (key, value) = if times > 1 {
            (key.repeat_interleave(times, 1)?, value.repeat_interleave(times, 1)?)
        } else {
            (key.clone(), value.clone())
        };
        let scale = self.config.scale.unwrap_or(1.0 / (self.config.head() as f64).sqrt());
        let mut scores = query.mul_scalar(scale)?.matmul(&key.transpose(-2, -1)?)?; // [batch, heads, queries, keys]
        if let Some(bias) = bias {
            scores = scores.add(bias)?;
        }
        let weights = scores.softmax(-1)?;
        Ok((weights.dropout(dropout, dropout > 0.0)?.matmul(&value)?, weights))
    }
}
