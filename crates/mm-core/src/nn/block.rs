//! The workspace's one transformer block (Vaswani 2017), with a switch for each real difference in the field: norm before or after,
//! cross-attention or none, gated or plain network, scaled residuals (`CaiT`, Touvron 2021).

use super::{Attention, AttentionArgs, AttentionConfig, KeyValueCache, Mask, Mlp, MlpConfig, Norm, NormConfig};
use crate::{Error, Init, Module, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Sizes and switches of a [`Block`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig {
    /// Its self-attention; the width is the block's.
    pub attention: AttentionConfig,
    /// Attention to a context, after the self-attention.
    #[serde(default)]
    pub cross_attention: Option<AttentionConfig>,
    /// The network after attention.
    pub mlp: MlpConfig,
    /// Its normalisations.
    #[serde(default)]
    pub norm: NormConfig,
    /// Whether each part normalises what it takes (pre-norm), or the sum after it (post-norm, BERT).
    #[serde(default)]
    pub norm_first: bool,
    /// Rate at which each part's output is dropped while training.
    #[serde(default)]
    pub dropout: f64,
    /// Where the learned scales of the residuals begin; none when absent.
    #[serde(default)]
    pub layer_scale: Option<f64>,
}

impl BlockConfig {
    /// What a config file that names these two and nothing else means: self-attention and a network, each normalised after its sum.
    pub fn new(attention: AttentionConfig, mlp: MlpConfig) -> Self {
        Self {
            attention,
            cross_attention: None,
            mlp,
            norm: NormConfig::default(),
            norm_first: false,
            dropout: 0.0,
            layer_scale: None,
        }
    }
}

/// A block's caches while decoding.
#[derive(Debug, Default)]
pub struct BlockCache {
    /// Keys and values of the positions before.
    pub self_attention: KeyValueCache,
    /// Those of the context, made at the first step.
    pub cross_attention: KeyValueCache,
}

impl BlockCache {
    /// Several rows' states as one ([`KeyValueCache::batch_left_padded`]).
    pub fn batch_left_padded(states: &[&Self]) -> Result<Self> {
        let join = |of: fn(&Self) -> &KeyValueCache| {
            KeyValueCache::batch_left_padded(&states.iter().map(|s| of(s)).collect::<Vec<_>>())
        };
        Ok(Self { self_attention: join(|s| &s.self_attention)?, cross_attention: join(|s| &s.cross_attention)? })
    }
}

/// What one pass through a [`Transformer`] may be given beside its input.
#[derive(Default)]
pub struct ForwardArgs<'a> {
    /// Which positions may be seen.
    pub mask: Option<&'a Mask>,
    /// What cross-attention looks at, with its mask; blocks leave their cross-attention out where there is none.
    pub context: Option<(&'a Tensor, Option<&'a Mask>)>,
    /// Caches, one a block: the input then holds the new positions only and the mask covers old and new.
    pub caches: Option<&'a mut [BlockCache]>,
    /// What self-attention turns its queries and keys by ([`AttentionArgs::rotary`]).
    pub rotary: Option<(&'a Tensor, &'a Tensor)>,
    /// Whether all positions see each other in a stack that looks back only (a picture's patches before a text).
    pub bidirectional: bool,
    /// Gets each block's weights.
    pub attention_maps: Option<&'a mut Vec<AttentionMaps>>,
    /// Whether this is training.
    pub train: bool,
}

/// Where one block looked.
#[derive(Debug)]
pub struct AttentionMaps {
    /// `[batch, heads, queries, keys]` of self-attention.
    pub self_attention: Option<Tensor>,
    /// The same of cross-attention.
    pub cross_attention: Option<Tensor>,
}

struct Part {
    norm: Norm,
    scale: Option<Tensor>,
}

impl Part {
    fn new(scope: &Scope<'_>, norm: &str, scale: &str, config: &BlockConfig) -> Result<Self> {
        let width = config.attention.embed_dim;
        Ok(Self {
            norm: Norm::new(&scope.pp(norm), width, config.norm)?,
            scale: config.layer_scale.map(|start| scope.param(scale, &[width], Init::Constant(start))).transpose()?,
        })
    }
}

/// Self-attention, maybe cross-attention, and a network, each with its residual and its normalisation.
pub struct Block {
    attention: Attention,
    after_attention: Part,
    cross: Option<(Attention, Part)>,
    mlp: Mlp,
    after_mlp: Part,
    norm_first: bool,
    dropout: f64,
}

impl Block {
    /// Parameters `self_attn`, `layer_norm1`, (`cross_attn`, `layer_norm_cross`,) `mlp`, `layer_norm2` under `scope`.
    pub fn new(scope: &Scope<'_>, config: &BlockConfig) -> Result<Self> {
        if !(0.0..1.0).contains(&config.dropout) {
            return Err(Error::config("block.dropout", config.dropout, "a rate in [0, 1)"));
        }
        let cross = match &config.cross_attention {
            Some(cross) => Some((
                Attention::cross(&scope.pp("cross_attn"), cross)?,
                Part::new(scope, "layer_norm_cross", "layer_scale_cross", config)?,
            )),
            None => None,
        };
        Ok(Self {
            attention: Attention::new(&scope.pp("self_attn"), &config.attention)?,
            after_attention: Part::new(scope, "layer_norm1", "layer_scale1", config)?,
            cross,
            mlp: Mlp::new(&scope.pp("mlp"), config.attention.embed_dim, &config.mlp)?,
            after_mlp: Part::new(scope, "layer_norm2", "layer_scale2", config)?,
            norm_first: config.norm_first,
            dropout: config.dropout,
        })
    }

    /// `[batch, length, width]` → the same, with this block's state; [`ForwardArgs::caches`] is not looked at.
    pub fn forward(&self, x: &Tensor, pass: &mut ForwardArgs<'_>, state: Option<&mut BlockCache>) -> Result<Tensor> {
        let (train, wanted) = (pass.train, pass.attention_maps.is_some());
        let (mut own_cache, mut cross_cache) = match state {
            Some(state) => (Some(&mut state.self_attention), Some(&mut state.cross_attention)),
            None => (None, None),
        };
        let mut seen = AttentionMaps { self_attention: None, cross_attention: None };
        let mut x = self.residual(x, &self.after_attention, train, |h, residual| {
            let cache = own_cache.take();
            let attend = AttentionArgs {
                mask: pass.mask,
                cache,
                rotary: pass.rotary,
                bidirectional: pass.bidirectional,
                need_weights: wanted,
                residual,
                train,
                ..AttentionArgs::default()
            };
            let out = self.attention.forward(h, attend)?;
            seen.self_attention = out.weights;
            Ok(out.values)
        })?;
        if let (Some((cross, part)), Some((context, mask))) = (&self.cross, pass.context) {
            x = self.residual(&x, part, train, |h, residual| {
                let cache = cross_cache.take();
                let context = Some(context);
                let attend = AttentionArgs {
                    context,
                    mask,
                    cache,
                    need_weights: wanted,
                    residual,
                    train,
                    ..AttentionArgs::default()
                };
                let out = cross.forward(h, attend)?;
                seen.cross_attention = out.weights;
                Ok(out.values)
            })?;
        }
        if let Some(all) = pass.attention_maps.as_mut() {
            all.push(seen);
        }
        self.residual(&x, &self.after_mlp, train, |h, residual| self.mlp.forward_residual(h, residual, train))
    }

    /// A part with its residual; the body adds what it is given to its output.
    fn residual(
        &self,
        x: &Tensor,
        part: &Part,
        train: bool,
        body: impl FnOnce(&Tensor, Option<&Tensor>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        // What is between the body and the sum keeps the body from adding.
        let dropped = train && self.dropout > 0.0;
        let between = dropped || part.scale.is_some();
        let residual = (!between).then_some(x);
        let normed = self.norm_first.then(|| part.norm.forward(x, train)).transpose()?;
        let mut out = body(normed.as_ref().unwrap_or(x), residual)?;
        if let Some(scale) = &part.scale {
            out = out.mul(scale)?;
        }
        if dropped {
            out = out.dropout(self.dropout, true)?;
        }
        let sum = if between { x.add(&out)? } else { out };
        if self.norm_first { Ok(sum) } else { part.norm.forward(&sum, train) }
    }
}

/// Sizes and switches of a [`Transformer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Number of blocks.
    pub num_layers: i64,
    /// Each of them.
    pub block: BlockConfig,
    /// Whether a normalisation ends the stack (pre-norm stacks need one).
    #[serde(default)]
    pub final_norm: bool,
}

/// A stack of blocks.
pub struct Transformer {
    blocks: Vec<Block>,
    last: Option<Norm>,
}

impl Transformer {
    /// Blocks `layers.0 …` and maybe `final_layer_norm` under `scope`.
    pub fn new(scope: &Scope<'_>, config: &TransformerConfig) -> Result<Self> {
        let blocks = (0..config.num_layers)
            .map(|i| Block::new(&scope.pp("layers").pp(i), &config.block))
            .collect::<Result<_>>()?;
        let last = config
            .final_norm
            .then(|| Norm::new(&scope.pp("final_layer_norm"), config.block.attention.embed_dim, config.block.norm))
            .transpose()?;
        Ok(Self { blocks, last })
    }

    /// Empty caches for decoding, one a block.
    pub fn new_caches(&self) -> Vec<BlockCache> {
        self.blocks.iter().map(|_| BlockCache::default()).collect()
    }

    /// The same with memory for so many positions, taken at the first step.
    pub fn new_caches_with_capacity(&self, positions: i64) -> Vec<BlockCache> {
        let state = |_| BlockCache {
            self_attention: KeyValueCache::with_capacity(positions),
            cross_attention: KeyValueCache::default(),
        };
        self.blocks.iter().map(state).collect()
    }

    /// `[batch, length, dim]` → the same shape. With [`ForwardArgs::caches`], `x` holds the new positions only and the mask covers the
    /// cached and the new ones.
    pub fn forward(&self, x: &Tensor, mut pass: ForwardArgs<'_>) -> Result<Tensor> {
        let mut states = pass.caches.take();
        let mut x = x.clone();
        for (number, block) in self.blocks.iter().enumerate() {
            let state = states.as_mut().and_then(|s| s.get_mut(number));
            x = block.forward(&x, &mut pass, state)?;
        }
        self.apply_final_norm(&x, pass.train)
    }

    /// What goes into the first block and what comes out of each, `layers + 1` of `[batch, length, width]`; the last is not yet
    /// normalised ([`Transformer::apply_final_norm`]).
    pub fn hidden_states(&self, x: &Tensor, mask: Option<&Mask>, train: bool) -> Result<Vec<Tensor>> {
        let mut states = vec![x.clone()];
        for (number, block) in self.blocks.iter().enumerate() {
            let mut pass = ForwardArgs { mask, train, ..ForwardArgs::default() };
            states.push(block.forward(&states[number], &mut pass, None)?);
        }
        Ok(states)
    }

    /// The normalisation that ends the stack, where there is one.
    pub fn apply_final_norm(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.last.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.forward(x, train))
    }
}
