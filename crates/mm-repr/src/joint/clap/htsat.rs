//! The stages of HTS-AT: Swin blocks and patch merging.
//!
//! *HTS-AT: A Hierarchical Token-Semantic Audio Transformer for Sound Classification and Detection* (Chen et al.,
//! 2022), <https://arxiv.org/abs/2202.00874>.

use super::config::ClapAudioConfig;
use crate::Result;
use mm_core::{
    Module, Scope, Tensor,
    nn::{AttentionConfig, Linear, Mlp, MlpConfig, Norm, NormConfig, WindowAttention},
};

/// A pre-norm block with window attention.
struct SwinBlock {
    norm1: Norm,
    attention: WindowAttention,
    norm2: Norm,
    mlp: Mlp,
}

impl SwinBlock {
    fn new(scope: &Scope<'_>, c: &ClapAudioConfig, dim: i64, num_heads: i64, shifted: bool) -> Result<Self> {
        let norm = NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() };
        let attention = AttentionConfig { bias: c.qkv_bias, ..AttentionConfig::new(dim, num_heads) };
        let mlp = MlpConfig::new((c.mlp_ratio * dim as f64) as i64, c.hidden_act);
        Ok(Self {
            norm1: Norm::new(&scope.pp("layer_norm1"), dim, norm)?,
            attention: WindowAttention::new(&scope.pp("self_attn"), &attention, c.window_size, shifted)?,
            norm2: Norm::new(&scope.pp("layer_norm2"), dim, norm)?,
            mlp: Mlp::new(&scope.pp("mlp"), dim, &mlp)?,
        })
    }

    /// `[batch, height, width, dim]` → the same.
    fn forward(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let x = x.add(&self.attention.forward(&self.norm1.forward(x, false)?)?)?;
        x.add(&self.mlp.forward(&self.norm2.forward(&x, false)?, false)?)
    }
}

/// Joins four neighboring positions into one of twice the dimension.
struct PatchMerging {
    norm: Norm,
    reduction: Linear,
}

impl PatchMerging {
    fn new(scope: &Scope<'_>, dim: i64) -> Result<Self> {
        Ok(Self {
            norm: Norm::new(&scope.pp("norm"), 4 * dim, NormConfig::default())?,
            reduction: Linear::new(&scope.pp("reduction"), 4 * dim, 2 * dim, false)?,
        })
    }

    /// `[batch, height, width, dim]` → `[batch, height / 2, width / 2, 2 · dim]`.
    fn forward(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let shape = x.shape();
        let x = x.pad(&[0, 0, 0, shape[2] % 2, 0, shape[1] % 2], 0.0)?;
        let x = x.reshape(&[shape[0], (shape[1] + 1) / 2, 2, (shape[2] + 1) / 2, 2, shape[3]])?;
        let neighbor = |row: i64, column: i64| x.select(4, column)?.select(2, row);
        let neighbors = [&neighbor(0, 0)?, &neighbor(1, 0)?, &neighbor(0, 1)?, &neighbor(1, 1)?];
        self.reduction.forward(&self.norm.forward(&Tensor::cat(&neighbors, -1)?, false)?, false)
    }
}

/// Blocks of one resolution; all stages but the last end with patch merging.
pub(super) struct Stage {
    blocks: Vec<SwinBlock>,
    merging: Option<PatchMerging>,
}

impl Stage {
    pub(super) fn new(scope: &Scope<'_>, c: &ClapAudioConfig, index: usize) -> Result<Self> {
        let (stage, dim) = (scope.pp("layers").pp(index), c.patch_embeds_hidden_size << index);
        let num_heads = c.num_attention_heads[index];
        let block = |i: i64| SwinBlock::new(&stage.pp("blocks").pp(i), c, dim, num_heads, i % 2 == 1);
        let last = index + 1 == c.depths.len();
        Ok(Self {
            blocks: (0..c.depths[index]).map(block).collect::<Result<_>>()?,
            merging: (!last).then(|| PatchMerging::new(&stage.pp("downsample"), dim)).transpose()?,
        })
    }

    pub(super) fn forward(&self, mut x: Tensor) -> mm_core::Result<Tensor> {
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        match &self.merging {
            Some(merging) => merging.forward(&x),
            None => Ok(x),
        }
    }
}
