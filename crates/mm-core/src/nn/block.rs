//! The workspace's one transformer block, with a switch for each difference between the models: normalization before or
//! after, cross-attention, gated MLP, scaled residual branches.
//!
//! *Attention Is All You Need* (Vaswani et al., 2017), <https://arxiv.org/abs/1706.03762>; layer scale: *Going Deeper
//! with Image Transformers* (Touvron et al., 2021), <https://arxiv.org/abs/2103.17239>.

use super::{
    Attention, AttentionArgs, AttentionConfig, KeyValueCache, Mask, Mlp, MlpConfig, Norm, NormConfig, Unpadding,
};
use crate::{Error, Init, Module, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Configuration of a [`Block`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig {
    /// Self-attention; its `embed_dim` is the block's.
    pub attention: AttentionConfig,
    /// Attention to a context, after the self-attention.
    #[serde(default)]
    pub cross_attention: Option<AttentionConfig>,
    /// The network after attention.
    pub mlp: MlpConfig,
    /// Normalization of each sublayer.
    #[serde(default)]
    pub norm: NormConfig,
    /// Whether each sublayer normalizes its input (pre-norm), or the sum with its residual (post-norm, as BERT).
    #[serde(default)]
    pub norm_first: bool,
    /// Dropout rate of each sublayer's output during training.
    #[serde(default)]
    pub dropout: f64,
    /// Initial value of the learned scales of the residual branches; no scales when absent.
    #[serde(default)]
    pub layer_scale: Option<f64>,
}

impl BlockConfig {
    /// Self-attention and an MLP, each normalized after the sum with its residual; the default of a config file.
    pub fn post_norm(attention: AttentionConfig, mlp: MlpConfig) -> Self {
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

    /// Self-attention and an MLP, each with a normalized input.
    pub fn pre_norm(attention: AttentionConfig, mlp: MlpConfig) -> Self {
        Self { norm_first: true, ..Self::post_norm(attention, mlp) }
    }
}

/// The caches of one block while decoding.
#[derive(Debug, Default)]
pub struct BlockCache {
    /// Keys and values of earlier positions.
    pub self_attention: KeyValueCache,
    /// Keys and values of the context, computed at the first step.
    pub cross_attention: KeyValueCache,
}

impl BlockCache {
    /// Joins the rows of several caches ([`KeyValueCache::batch_left_padded`]).
    pub fn batch_left_padded(caches: &[&Self]) -> Result<Self> {
        let join = |part: fn(&Self) -> &KeyValueCache| {
            KeyValueCache::batch_left_padded(&caches.iter().map(|c| part(c)).collect::<Vec<_>>())
        };
        Ok(Self { self_attention: join(|c| &c.self_attention)?, cross_attention: join(|c| &c.cross_attention)? })
    }
}

/// Options of a forward pass through a [`Block`] or a [`Transformer`](super::Transformer).
#[derive(Default)]
pub struct ForwardArgs<'a> {
    /// Which positions may be attended to.
    pub mask: Option<&'a Mask>,
    /// What cross-attention attends to, `[batch, length, context_dim]`, with its mask; without it, cross-attention is
    /// skipped.
    pub context: Option<(&'a Tensor, Option<&'a Mask>)>,
    /// Caches, one per block: the input holds the new positions only, and the mask covers cached and new positions.
    pub caches: Option<&'a mut [BlockCache]>,
    /// Rotary cosines and sines of self-attention, where they are not those of the running position
    /// ([`AttentionArgs::rotary`]).
    pub rotary: Option<(&'a Tensor, &'a Tensor)>,
    /// The input is `[1, tokens, embed_dim]`, without padding, and the mask that of the padded batch
    /// ([`AttentionArgs::unpadding`]).
    pub unpadding: Option<&'a Unpadding>,
    /// Disables the causal mask (patches of an image before a text).
    pub bidirectional: bool,
    /// Receives the attention weights of each block.
    pub attention_maps: Option<&'a mut Vec<AttentionMaps>>,
    /// Enables dropout.
    pub train: bool,
}

/// Attention weights of one block.
#[derive(Debug)]
pub struct AttentionMaps {
    /// Self-attention, `[batch, heads, queries, keys]`.
    pub self_attention: Option<Tensor>,
    /// Cross-attention, likewise.
    pub cross_attention: Option<Tensor>,
}

/// Normalization and scale around one sublayer.
struct Residual {
    norm: Norm,
    scale: Option<Tensor>,
}

impl Residual {
    fn new(scope: &Scope<'_>, norm: &str, scale: &str, config: &BlockConfig) -> Result<Self> {
        let dim = config.attention.embed_dim;
        Ok(Self {
            norm: Norm::new(&scope.pp(norm), dim, config.norm)?,
            scale: config.layer_scale.map(|init| scope.param(scale, &[dim], Init::Constant(init))).transpose()?,
        })
    }
}

/// Self-attention, cross-attention if configured, and an MLP, each with a residual connection and a normalization.
pub struct Block {
    attention: Attention,
    attention_residual: Residual,
    cross_attention: Option<(Attention, Residual)>,
    mlp: Mlp,
    mlp_residual: Residual,
    norm_first: bool,
    dropout: f64,
}

impl Block {
    /// Parameters `self_attn`, `layer_norm1`, (`cross_attn`, `layer_norm_cross`,) `mlp`, `layer_norm2` under `scope`.
    ///
    /// # Errors
    /// If the configuration is inconsistent.
    pub fn new(scope: &Scope<'_>, config: &BlockConfig) -> Result<Self> {
        if !(0.0..1.0).contains(&config.dropout) {
            return Err(Error::config("block.dropout", config.dropout, "a rate in [0, 1)"));
        }
        let cross_attention = match &config.cross_attention {
            Some(cross) => Some((
                Attention::cross(&scope.pp("cross_attn"), cross)?,
                Residual::new(scope, "layer_norm_cross", "layer_scale_cross", config)?,
            )),
            None => None,
        };
        Ok(Self {
            attention: Attention::new(&scope.pp("self_attn"), &config.attention)?,
            attention_residual: Residual::new(scope, "layer_norm1", "layer_scale1", config)?,
            cross_attention,
            mlp: Mlp::new(&scope.pp("mlp"), config.attention.embed_dim, &config.mlp)?,
            mlp_residual: Residual::new(scope, "layer_norm2", "layer_scale2", config)?,
            norm_first: config.norm_first,
            dropout: config.dropout,
        })
    }

    /// `[batch, length, embed_dim]` → the same shape, with this block's cache; [`ForwardArgs::caches`] is ignored.
    ///
    /// # Errors
    /// If shapes, dtypes or devices do not fit together.
    pub fn forward(&self, x: &Tensor, args: &mut ForwardArgs<'_>, cache: Option<&mut BlockCache>) -> Result<Tensor> {
        let (train, need_weights) = (args.train, args.attention_maps.is_some());
        let (self_cache, cross_cache) = match cache {
            Some(cache) => (Some(&mut cache.self_attention), Some(&mut cache.cross_attention)),
            None => (None, None),
        };
        let mut maps = AttentionMaps { self_attention: None, cross_attention: None };
        let mut x = self.residual(x, &self.attention_residual, train, |h, residual| {
            let attention_args = AttentionArgs {
                mask: args.mask,
                cache: self_cache,
                rotary: args.rotary,
                unpadding: args.unpadding,
                bidirectional: args.bidirectional,
                need_weights,
                residual,
                train,
                ..AttentionArgs::default()
            };
            let out = self.attention.forward(h, attention_args)?;
            maps.self_attention = out.weights;
            Ok(out.values)
        })?;
        if let (Some((cross, residual)), Some((context, mask))) = (&self.cross_attention, args.context) {
            x = self.residual(&x, residual, train, |h, residual| {
                let context = Some(context);
                let attention_args = AttentionArgs {
                    context,
                    mask,
                    cache: cross_cache,
                    need_weights,
                    residual,
                    train,
                    ..AttentionArgs::default()
                };
                let out = cross.forward(h, attention_args)?;
                maps.cross_attention = out.weights;
                Ok(out.values)
            })?;
        }
        if let Some(all) = args.attention_maps.as_mut() {
            all.push(maps);
        }
        self.residual(&x, &self.mlp_residual, train, |h, residual| self.mlp.forward_residual(h, residual, train))
    }

    /// A sublayer with its residual connection; the sublayer adds the residual that it is given to its output.
    fn residual(
        &self,
        x: &Tensor,
        around: &Residual,
        train: bool,
        sublayer: impl FnOnce(&Tensor, Option<&Tensor>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        // Dropout and scale come between the sublayer and the sum, so the sublayer cannot add the residual itself.
        let dropout = train && self.dropout > 0.0;
        let separate_sum = dropout || around.scale.is_some();
        let residual = (!separate_sum).then_some(x);
        let normed = self.norm_first.then(|| around.norm.forward(x, train)).transpose()?;
        let mut out = sublayer(normed.as_ref().unwrap_or(x), residual)?;
        if let Some(scale) = &around.scale {
            out = out.mul(scale)?;
        }
        if dropout {
            out = out.dropout(self.dropout, true)?;
        }
        let sum = if separate_sum { x.add(&out)? } else { out };
        if self.norm_first { Ok(sum) } else { around.norm.forward(&sum, train) }
    }
}
