//! A stack of transformer blocks.

use super::{
    Block, BlockCache, BlockConfig, ForwardArgs, KeyValueCache, Mask, Norm, Position, RotaryEmbedding, Unpadding,
};
use crate::{DType, Module, Result, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Configuration of a [`Transformer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Number of blocks.
    pub num_layers: i64,
    /// Each block.
    pub block: BlockConfig,
    /// Whether a normalization ends the stack (pre-norm stacks need one).
    #[serde(default)]
    pub final_norm: bool,
    /// Blocks that differ from `block`, by their index; `embed_dim` is the same in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<(i64, BlockConfig)>,
}

impl TransformerConfig {
    /// `num_layers` equal blocks; a normalization ends a pre-norm stack.
    pub fn new(num_layers: i64, block: BlockConfig) -> Self {
        let final_norm = block.norm_first;
        Self { num_layers, block, final_norm, overrides: Vec::new() }
    }

    /// The configuration of one block.
    pub fn block(&self, layer: i64) -> &BlockConfig {
        self.overrides.iter().find(|(index, _)| *index == layer).map_or(&self.block, |(_, block)| block)
    }
}

/// A stack of blocks.
pub struct Transformer {
    blocks: Vec<Block>,
    final_norm: Option<Norm>,
    /// Rotary embeddings of each block; where they are equal, cosines and sines are computed once per forward pass.
    shared_rotary: Option<RotaryEmbedding>,
}

impl Transformer {
    /// Blocks `layers.0 …` and maybe `final_layer_norm` under `scope`.
    ///
    /// # Errors
    /// If the configuration of a block is inconsistent.
    pub fn new(scope: &Scope<'_>, config: &TransformerConfig) -> Result<Self> {
        let layers = scope.pp("layers");
        let blocks =
            (0..config.num_layers).map(|i| Block::new(&layers.pp(i), config.block(i))).collect::<Result<_>>()?;
        let (dim, norm) = (config.block.attention.embed_dim, config.block.norm);
        let final_norm = config.final_norm.then(|| Norm::new(&scope.pp("final_layer_norm"), dim, norm)).transpose()?;
        Ok(Self { blocks, final_norm, shared_rotary: shared_rotary(config) })
    }

    /// Empty caches for decoding, one per block.
    pub fn new_caches(&self) -> Vec<BlockCache> {
        self.blocks.iter().map(|_| BlockCache::default()).collect()
    }

    /// Empty caches with memory for `capacity` positions, allocated at the first step.
    pub fn new_caches_with_capacity(&self, capacity: i64) -> Vec<BlockCache> {
        let cache = |_| BlockCache {
            self_attention: KeyValueCache::with_capacity(capacity),
            cross_attention: KeyValueCache::default(),
        };
        self.blocks.iter().map(cache).collect()
    }

    /// `[batch, length, embed_dim]` → the same shape.
    ///
    /// # Errors
    /// If shapes, dtypes or devices do not fit together.
    pub fn forward(&self, x: &Tensor, mut args: ForwardArgs<'_>) -> Result<Tensor> {
        let mut caches = args.caches.take();
        let past = caches.as_ref().and_then(|c| c.first()).map_or(0, |c| c.self_attention.length());
        let rotary = if args.rotary.is_none() { self.rotary_cos_sin(x, past, args.unpadding)? } else { None };
        let mut args = ForwardArgs { rotary: args.rotary.or(rotary.as_ref().map(|(cos, sin)| (cos, sin))), ..args };
        let mut x = x.clone();
        for (layer, block) in self.blocks.iter().enumerate() {
            let cache = caches.as_mut().and_then(|c| c.get_mut(layer));
            x = block.forward(&x, &mut args, cache)?;
        }
        self.apply_final_norm(&x, args.train)
    }

    /// The input of the first block and the output of each, `num_layers + 1` tensors `[batch, length, embed_dim]`; the
    /// last is not yet normalized ([`Transformer::apply_final_norm`]).
    ///
    /// # Errors
    /// Those of [`Transformer::forward`].
    pub fn hidden_states(&self, x: &Tensor, mask: Option<&Mask>, train: bool) -> Result<Vec<Tensor>> {
        let rotary = self.rotary_cos_sin(x, 0, None)?;
        let rotary = rotary.as_ref().map(|(cos, sin)| (cos, sin));
        let mut states = vec![x.clone()];
        for (layer, block) in self.blocks.iter().enumerate() {
            let mut args = ForwardArgs { mask, rotary, train, ..ForwardArgs::default() };
            states.push(block.forward(&states[layer], &mut args, None)?);
        }
        Ok(states)
    }

    /// The normalization that ends the stack, if there is one.
    pub fn apply_final_norm(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.final_norm.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.forward(x, train))
    }

    /// Cosines and sines of the positions of `x`, which follow `past` cached ones.
    fn rotary_cos_sin(&self, x: &Tensor, past: i64, unpadding: Option<&Unpadding>) -> Result<Option<(Tensor, Tensor)>> {
        let Some(rotary) = &self.shared_rotary else { return Ok(None) };
        let length = unpadding.map_or_else(|| x.size(1), |unpadding| Ok(unpadding.length()))?;
        let positions = Tensor::arange(past, past + length, x.device())?;
        rotary.cos_sin(&positions, DType::F32).map(Some)
    }
}

/// The rotary embedding that all blocks share; none where they differ or have none.
fn shared_rotary(config: &TransformerConfig) -> Option<RotaryEmbedding> {
    let attention = &config.block.attention;
    let same = |(_, block): &(i64, BlockConfig)| {
        block.attention.position == attention.position && block.attention.head_dim() == attention.head_dim()
    };
    match attention.position {
        Position::Rotary { base } if config.overrides.iter().all(same) => {
            Some(RotaryEmbedding::new(attention.head_dim(), base))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Device, Params, Role,
        nn::{Activation, AttentionConfig, MlpConfig},
    };

    fn block(base: f64, gated: bool) -> BlockConfig {
        let attention = AttentionConfig { position: Position::Rotary { base }, ..AttentionConfig::new(8, 2) };
        BlockConfig::pre_norm(attention, MlpConfig { gated, ..MlpConfig::new(16, Activation::Silu) })
    }

    #[test]
    fn overrides_change_single_blocks() {
        let params = Params::new(Device::Cpu);
        let config = TransformerConfig {
            overrides: vec![(1, block(1e6, true))],
            ..TransformerConfig::new(3, block(1e4, false))
        };
        Transformer::new(&params.scope(), &config).unwrap();
        let gates = params.named(&[Role::Trainable]).into_iter().filter(|(name, _)| name.ends_with("gate.weight"));
        assert_eq!(gates.map(|(name, _)| name).collect::<Vec<_>>(), ["layers.1.mlp.gate.weight"]);
    }

    /// Sharing the angles of all blocks gives what blocks compute by themselves.
    #[test]
    fn shared_rotary_embeddings_change_nothing() {
        let params = Params::new(Device::Cpu);
        let config = TransformerConfig::new(2, block(1e4, false));
        let mut stack = Transformer::new(&params.scope(), &config).unwrap();
        let x = Tensor::randn(&[2, 5, 8], DType::F32, Device::Cpu).unwrap();
        let shared = stack.forward(&x, ForwardArgs::default()).unwrap();
        assert!(stack.shared_rotary.take().is_some());
        let separate = stack.forward(&x, ForwardArgs::default()).unwrap();
        assert_eq!(shared.to_vec::<f32>().unwrap(), separate.to_vec::<f32>().unwrap());
    }
}
