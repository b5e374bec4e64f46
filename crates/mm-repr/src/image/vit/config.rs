//! Sizes of vision transformers.

use crate::{Result, checkpoint_config, family::ModelBuilder};
use mm_core::nn::{Activation, AttentionConfig, BlockConfig, Linear, MlpConfig, NormConfig, NormKind};
use serde::Deserialize;

/// A size that configs write as one number or as two.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum SizePair {
    /// One number for both.
    Square(i64),
    /// Height, width.
    Rectangle(i64, i64),
}

impl SizePair {
    /// `[height, width]`.
    pub fn get(self) -> [i64; 2] {
        match self {
            Self::Square(n) => [n, n],
            Self::Rectangle(height, width) => [height, width],
        }
    }
}

checkpoint_config! {
    /// transformers' `ViTConfig`, `DeiTConfig` and `Dinov2Config` in one.
    VitConfig {
        hidden_size: i64 = 768,
        num_hidden_layers: i64 = 12,
        num_attention_heads: i64 = 12,
        intermediate_size: i64 = 3072,
        hidden_act: Activation = Activation::Gelu,
        layer_norm_eps: f64 = 1e-12,
        image_size: SizePair = SizePair::Square(224),
        patch_size: SizePair = SizePair::Square(16),
        num_channels: i64 = 3,
        qkv_bias: bool = true,
        mlp_ratio: f64 = 4.0,
        use_swiglu_ffn: bool = false,
        num_register_tokens: i64 = 4,
    }
}

/// A pre-norm block of a vision transformer.
pub fn vit_block(config: &VitConfig) -> BlockConfig {
    let norm = NormConfig { kind: NormKind::LayerNorm, eps: config.layer_norm_eps, bias: true };
    let attention = AttentionConfig {
        bias: config.qkv_bias,
        ..AttentionConfig::new(config.hidden_size, config.num_attention_heads)
    };
    let mlp = MlpConfig::new(config.intermediate_size, config.hidden_act);
    BlockConfig { norm, ..BlockConfig::pre_norm(attention, mlp) }
}

/// `[rows, columns]` of patches in an image of the configured size; `field` names the patch size in errors.
pub fn patch_grid(b: &ModelBuilder<'_>, config: &VitConfig, field: &str) -> Result<[i64; 2]> {
    strided_patch_grid(b, config, config.patch_size.get(), field)
}

/// Largest side of an image in pixels.
const MAX_IMAGE_SIZE: i64 = 1 << 16;

/// `[rows, columns]` of overlapping patches, one every `stride`.
pub(super) fn strided_patch_grid(
    b: &ModelBuilder<'_>,
    config: &VitConfig,
    stride: [i64; 2],
    field: &str,
) -> Result<[i64; 2]> {
    let ([height, width], [patch_height, patch_width]) = (config.image_size.get(), config.patch_size.get());
    let positive = patch_height >= 1 && patch_width >= 1 && stride.iter().all(|s| *s >= 1);
    if !positive || height < patch_height || width < patch_width {
        let found = format!("{patch_height}×{patch_width}");
        return Err(b.config_error(format!("{field}: found {found}, expected at most the image's {height}×{width}")));
    }
    if height.max(width) > MAX_IMAGE_SIZE {
        let found = format!("{height}×{width}");
        return Err(
            b.config_error(format!("image_size: found {found} pixels, expected at most {MAX_IMAGE_SIZE} a side"))
        );
    }
    Ok([(height - patch_height) / stride[0] + 1, (width - patch_width) / stride[1] + 1])
}

/// The classifiers of these names; none if the checkpoint lacks one of them or a single layer was requested.
pub(crate) fn classifiers(b: &ModelBuilder<'_>, names: &[&str], dim: i64) -> Result<Vec<Linear>> {
    if b.layer.is_some() || !names.iter().all(|n| b.scope.pp(n).has("weight")) {
        return Ok(Vec::new());
    }
    Ok(names.iter().map(|n| Linear::new(&b.scope.pp(n), dim, b.num_labels(), true)).collect::<Result<_, _>>()?)
}
