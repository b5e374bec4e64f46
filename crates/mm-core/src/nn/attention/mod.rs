//! The workspace's one attention layer: scaled dot-product attention with several heads, self and cross, grouped
//! key/value heads, rotary positions, masks and a key/value cache.
//!
//! *Attention Is All You Need* (Vaswani et al., 2017), <https://arxiv.org/abs/1706.03762>; grouped heads: *GQA*
//! (Ainslie et al., 2023), <https://arxiv.org/abs/2305.13245>.

mod cache;
mod config;
mod kernel;
mod mask;

pub use cache::KeyValueCache;
pub use config::AttentionConfig;
pub use kernel::with_math_attention;
pub use mask::Mask;

use super::{Linear, Position, RotaryEmbedding, Unpadding, apply_rotary, prepack::PackScale};
use crate::{Error, Module, Result, Scope, Tensor};
use kernel::KernelArgs;

/// Options of [`Attention::forward`].
#[derive(Default)]
pub struct AttentionArgs<'a> {
    /// Source of keys and values, `[batch, keys, context_dim]`; the input of the queries when absent (self-attention).
    pub context: Option<&'a Tensor>,
    /// Which keys may be attended to.
    pub mask: Option<&'a Mask>,
    /// Keys and values of earlier positions, to which the new ones are appended. With a context, its keys and values,
    /// projected at the first call only; it may have fewer rows than the queries, each then shared by as many
    /// consecutive rows (the beams of one image).
    pub cache: Option<&'a mut KeyValueCache>,
    /// Rotary cosines and sines that broadcast to `[batch, heads, length, head_dim / 2]`; computed from the running
    /// position when absent and the config has rotary positions.
    pub rotary: Option<(&'a Tensor, &'a Tensor)>,
    /// The queries are `[1, tokens, embed_dim]`, without padding, and so is the output; the mask is that of the padded
    /// batch. For self-attention without a cache.
    pub unpadding: Option<&'a Unpadding>,
    /// Disables the config's causal mask.
    pub bidirectional: bool,
    /// Whether to return the attention weights, which the fused kernels do not compute.
    pub need_weights: bool,
    /// Added to the output: the residual connection of a block.
    pub residual: Option<&'a Tensor>,
    /// Enables dropout.
    pub train: bool,
}

/// Output of [`Attention::forward`].
#[derive(Debug)]
pub struct AttentionOutput {
    /// `[batch, queries, embed_dim]`.
    pub values: Tensor,
    /// `[batch, heads, queries, keys]`, rows summing to one, when asked for.
    pub weights: Option<Tensor>,
}

/// Multi-head attention with parameters `q_proj`, `k_proj`, `v_proj` and `out_proj`.
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    /// The three projections as one layer, for frozen self-attention.
    qkv: Option<Linear>,
    output: Linear,
    rotary: Option<RotaryEmbedding>,
    config: AttentionConfig,
}

/// Queries and, unless they come from a cache, keys and values: `[rows, heads, length, head_dim]` each.
struct Projection {
    query: Tensor,
    key_value: Option<(Tensor, Tensor)>,
}

impl Attention {
    /// A layer under `scope`. Frozen self-attention computes its three projections as one product.
    ///
    /// # Errors
    /// If the sizes do not fit together.
    pub fn new(scope: &Scope<'_>, config: &AttentionConfig) -> Result<Self> {
        let mut attention = Self::cross(scope, config)?;
        if scope.is_frozen() && config.context_dim() == config.embed_dim {
            attention.pack_projections(scope)?;
        }
        Ok(attention)
    }

    /// A layer that is always given a context, so that its projections never share an input.
    ///
    /// # Errors
    /// If the sizes do not fit together.
    pub fn cross(scope: &Scope<'_>, config: &AttentionConfig) -> Result<Self> {
        config.check()?;
        let (head_dim, context_dim) = (config.head_dim(), config.context_dim());
        let (query_dim, kv_dim) = (config.num_heads * head_dim, config.num_kv_heads() * head_dim);
        let rotary = match config.position {
            Position::Rotary { base } => Some(RotaryEmbedding::new(head_dim, base)),
            Position::None => None,
        };
        Ok(Self {
            query: Linear::new(&scope.pp("q_proj"), config.embed_dim, query_dim, config.bias)?,
            key: Linear::new(&scope.pp("k_proj"), context_dim, kv_dim, config.bias && config.key_bias)?,
            value: Linear::new(&scope.pp("v_proj"), context_dim, kv_dim, config.bias)?,
            qkv: None,
            output: Linear::new(&scope.pp("out_proj"), query_dim, config.embed_dim, config.output_bias)?,
            rotary,
            config: config.clone(),
        })
    }

    fn pack_projections(&mut self, scope: &Scope<'_>) -> Result<()> {
        let weights = [&self.query, &self.key, &self.value].map(Linear::weight);
        let [Some(query), Some(key), Some(value)] = weights else { return Ok(()) };
        let no_bias = Tensor::zeros(&[key.size(0)?], key.dtype()?, key.device())?;
        let bias = match (self.query.bias(), self.value.bias()) {
            (Some(q), Some(v)) => Some(Tensor::cat(&[q, self.key.bias().unwrap_or(&no_bias), v], 0)?),
            _ => None,
        };
        self.qkv = Some(Linear::concatenated([query, key, value], bias)?.in_scope(scope));
        Ok(())
    }

    /// `queries` `[batch, queries, embed_dim]` → the same shape. A query that may attend to no key attends to all of
    /// them equally.
    ///
    /// # Errors
    /// If shapes, dtypes or devices do not fit together.
    pub fn forward(&self, queries: &Tensor, mut args: AttentionArgs<'_>) -> Result<AttentionOutput> {
        let shape = queries.shape();
        if shape.len() != 3 || shape[2] != self.config.embed_dim {
            let expected = format!("[batch, queries, {}]", self.config.embed_dim);
            return Err(Error::shape("attention queries", &shape, expected));
        }
        let is_self = args.context.is_none();
        if args.unpadding.is_some() && !(is_self && args.cache.is_none()) {
            return Err(Error::Sample("attention without padding takes neither a context nor a cache".into()));
        }
        let (batch, length) = args.unpadding.map_or((shape[0], shape[1]), |u| (u.batch(), u.length()));
        let cached = args.cache.as_ref().map_or(0, |c| c.length());
        let past = if is_self { cached } else { 0 };

        let projection = self.project(queries, args.context, !is_self && cached > 0, args.unpadding)?;
        let projection = self.apply_position(projection, args.rotary, past)?;
        let (query, key, value) = update_cache(projection, args.cache.take(), is_self)?;
        let (query, sharing) = share_contexts(query, &key)?;

        // A single query at the end of the cache attends to everything before it, so it needs no causal mask.
        let causal = self.config.causal && length > 1 && !args.bidirectional && is_self;
        let plain = args.mask.is_none() && past == 0 && !args.need_weights && !kernel::is_math_attention();
        let fused_causal = causal && plain;
        let keys = key.size(2)?;
        let bias = mask::attention_bias(args.mask, &query, length, keys, past, causal && !fused_causal)?;
        let dropout = if args.train { self.config.dropout } else { 0.0 };
        let kernel_args = KernelArgs { bias: bias.as_ref(), dropout, fused_causal, need_weights: args.need_weights };
        let (mixed, weights) = kernel::attend(&self.config, &query, &key, &value, &kernel_args)?;

        let mixed = sharing.undo(mixed)?;
        let weights = weights.map(|w| sharing.undo(w)).transpose()?;
        let joined =
            mixed.transpose(1, 2)?.reshape(&[batch, length, self.config.num_heads * self.config.head_dim()])?;
        let joined = args.unpadding.map_or_else(|| Ok(joined.clone()), |unpadding| unpadding.unpad(&joined))?;
        Ok(AttentionOutput { values: self.output.forward_residual(&joined, args.residual, PackScale::ONE)?, weights })
    }

    /// Projects queries, and keys and values unless they are cached, in as few products as possible.
    fn project(
        &self,
        queries: &Tensor,
        context: Option<&Tensor>,
        is_cached: bool,
        unpadding: Option<&Unpadding>,
    ) -> Result<Projection> {
        let (query, key_value) = match context {
            None => self.project_self(queries, unpadding)?,
            Some(_) if is_cached => (self.query.forward(queries, false)?, None),
            Some(context) => (self.query.forward(queries, false)?, Some(self.project_context(context)?)),
        };
        let (heads, kv_heads) = (self.config.num_heads, self.config.num_kv_heads());
        let key_value = match key_value {
            Some((key, value)) => Some((self.split_heads(&key, kv_heads)?, self.split_heads(&value, kv_heads)?)),
            None => None,
        };
        Ok(Projection { query: self.split_heads(&query, heads)?, key_value })
    }

    /// Queries, keys and values `[batch, length, heads · head_dim]`, padded.
    fn project_self(&self, x: &Tensor, unpadding: Option<&Unpadding>) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
        let pad = |x: Tensor| unpadding.map_or_else(|| Ok(x.clone()), |unpadding| unpadding.pad(&x));
        if let Some(qkv) = &self.qkv {
            let all = pad(qkv.forward(x, false)?)?; // [batch, length, (heads + 2 kv_heads) · head_dim]
            let (query, kv) =
                (self.config.num_heads * self.config.head_dim(), self.config.num_kv_heads() * self.config.head_dim());
            let key_value = (all.narrow(-1, query, kv)?, all.narrow(-1, query + kv, kv)?);
            return Ok((all.narrow(-1, 0, query)?, Some(key_value)));
        }
        let fused = Linear::forward_fused([&self.query, &self.key, &self.value], x)?;
        if let Some([query, key, value]) = fused.as_deref() {
            return Ok((pad(query.clone())?, Some((pad(key.clone())?, pad(value.clone())?))));
        }
        let (key, value) = self.project_context(x)?;
        Ok((pad(self.query.forward(x, false)?)?, Some((pad(key)?, pad(value)?))))
    }

    fn project_context(&self, context: &Tensor) -> Result<(Tensor, Tensor)> {
        match Linear::forward_fused([&self.key, &self.value], context)?.as_deref() {
            Some([key, value]) => Ok((key.clone(), value.clone())),
            _ => Ok((self.key.forward(context, false)?, self.value.forward(context, false)?)),
        }
    }

    /// `[rows, length, heads · head_dim]` → `[rows, heads, length, head_dim]`.
    fn split_heads(&self, x: &Tensor, heads: i64) -> Result<Tensor> {
        x.reshape(&[x.size(0)?, -1, heads, self.config.head_dim()])?.transpose(1, 2)
    }

    /// Rotates queries and new keys by their positions.
    fn apply_position(
        &self,
        projection: Projection,
        rotary: Option<(&Tensor, &Tensor)>,
        past: i64,
    ) -> Result<Projection> {
        if rotary.is_none() && self.rotary.is_none() {
            return Ok(projection);
        }
        let rotate = |x: &Tensor| match (rotary, &self.rotary) {
            (None, None) => Ok(x.clone()),
            (Some((cos, sin)), None) => apply_rotary(x, cos, sin),
            (Some((cos, sin)), Some(_)) => {
                let dtype = x.dtype()?;
                apply_rotary(x, &cos.to_dtype(dtype)?, &sin.to_dtype(dtype)?)
            }
            (None, Some(rotary)) => {
                let positions = Tensor::arange(past, past + x.size(2)?, x.device())?;
                let (cos, sin) = rotary.cos_sin(&positions, x.dtype()?)?;
                apply_rotary(x, &cos, &sin)
            }
        };
        let Projection { query, key_value } = projection;
        let key_value = match key_value {
            Some((key, value)) => Some((rotate(&key)?, value)),
            None => None,
        };
        Ok(Projection { query: rotate(&query)?, key_value })
    }
}

/// Queries with all keys and values, after the cache has taken in the new ones.
fn update_cache(
    projection: Projection,
    cache: Option<&mut KeyValueCache>,
    is_self: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let Projection { query, key_value } = projection;
    let (key, value) = match (key_value, cache) {
        (Some((key, value)), Some(cache)) if is_self || cache.length() == 0 => cache.append(&key, &value)?,
        (Some(key_value), _) => key_value,
        (None, cache) => {
            let contents = cache.map(|c| c.contents()).transpose()?.flatten();
            contents.ok_or_else(|| Error::Sample("attention has neither a context nor cached keys".into()))?
        }
    };
    Ok((query, key, value))
}

/// Number of consecutive rows of queries that share a row of keys.
struct Sharing {
    contexts: i64,
    rows: i64,
}

/// Lays queries that share a row of keys out along the length, `[contexts, heads, rows · length, head_dim]`.
fn share_contexts(query: Tensor, key: &Tensor) -> Result<(Tensor, Sharing)> {
    let shape = query.shape();
    let (batch, heads, length, head_dim) = (shape[0], shape[1], shape[2], shape[3]);
    let contexts = key.size(0)?;
    let rows = if contexts > 0 && batch % contexts == 0 { batch / contexts } else { 1 };
    let sharing = Sharing { contexts, rows };
    if rows <= 1 {
        return Ok((query, sharing));
    }
    let query = query.reshape(&[contexts, rows, heads, length, head_dim])?.permute(&[0, 2, 1, 3, 4])?;
    Ok((query.reshape(&[contexts, heads, rows * length, head_dim])?, sharing))
}

impl Sharing {
    /// `[contexts, heads, rows · length, …]` → `[batch, heads, length, …]`.
    fn undo(&self, x: Tensor) -> Result<Tensor> {
        if self.rows <= 1 {
            return Ok(x);
        }
        let shape = x.shape();
        let (heads, length, last) = (shape[1], shape[2] / self.rows, shape[3]);
        let x = x.reshape(&[self.contexts, heads, self.rows, length, last])?.permute(&[0, 2, 1, 3, 4])?;
        x.reshape(&[self.contexts * self.rows, heads, length, last])
    }
}
