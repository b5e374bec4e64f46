//! CLIP's vision transformer, as CLIP, SigLIP, BLIP, GIT and LLaVA use it.

use super::vit::{PatchEmbed, PositionInterpolation, VitBackbone, VitConfig, VitEmbeddings, patch_grid, vit_block};
use crate::{Result, family::ModelBuilder};
use mm_core::{
    Init, Modality, Scope,
    nn::{Activation, Norm, NormConfig, TransformerConfig},
};
use serde_json::{Value, json};

/// A family's defaults for what its vision config leaves out.
#[derive(Clone, Copy)]
pub struct VisionDefaults {
    /// Side of the image in pixels.
    pub image_size: i64,
    /// Side of a patch in pixels.
    pub patch_size: i64,
    /// Activation of the blocks.
    pub hidden_act: Activation,
    /// Epsilon of the normalizations.
    pub layer_norm_eps: f64,
}

/// Parses a vision config with the family's defaults; `field` names it in errors.
pub fn vision_config(b: &ModelBuilder<'_>, value: &Value, field: &str, defaults: VisionDefaults) -> Result<VitConfig> {
    let defaults = json!({
        "image_size": defaults.image_size,
        "patch_size": defaults.patch_size,
        "hidden_act": defaults.hidden_act,
        "layer_norm_eps": defaults.layer_norm_eps,
    });
    b.parse_with_defaults(value, field, &defaults)
}

/// Differences between the families' vision transformers.
#[derive(Clone, Copy)]
pub struct VisionVariant {
    /// Whether there is a class token.
    pub class_token: bool,
    /// Whether the patch convolution has a bias.
    pub patch_bias: bool,
    /// Whether there is a normalization before the blocks.
    pub pre_norm: bool,
    /// Whether there is a normalization after the blocks.
    pub final_norm: bool,
}

/// Builds the backbone under `scope`, with CLIP's parameter names.
pub fn clip_vision_backbone(
    b: &ModelBuilder<'_>,
    scope: &Scope<'_>,
    config: &VitConfig,
    variant: VisionVariant,
) -> Result<VitBackbone> {
    let (embeddings, embed_dim) = (scope.pp("embeddings"), config.hidden_size);
    let prefix_positions = i64::from(variant.class_token);
    let grid = patch_grid(b, config, "vision_config.patch_size")?;
    let norm = NormConfig { eps: config.layer_norm_eps, ..NormConfig::default() };
    let class_token = || embeddings.param("class_embedding", &[1, embed_dim], Init::Normal(0.02));
    let (channels, kernel) = (config.num_channels, config.patch_size.get());
    let positions = [grid[0] * grid[1] + prefix_positions, embed_dim];
    Ok(VitBackbone {
        patch_embed: PatchEmbed::new(
            &embeddings.pp("patch_embedding"),
            channels,
            embed_dim,
            &kernel,
            variant.patch_bias,
        )?,
        embeddings: VitEmbeddings {
            prefix_tokens: variant.class_token.then(class_token).transpose()?.into_iter().collect(),
            positions: embeddings.pp("position_embedding").param("weight", &positions, Init::Normal(0.02))?,
            prefix_positions,
            registers: None,
            grid,
            interpolation: PositionInterpolation::Bicubic,
        },
        pre_norm: variant.pre_norm.then(|| Norm::new(&scope.pp("pre_layrnorm"), embed_dim, norm)).transpose()?,
        blocks: b.transformer(
            &scope.pp("encoder"),
            TransformerConfig {
                final_norm: variant.final_norm,
                ..TransformerConfig::new(config.num_hidden_layers, vit_block(config))
            },
        )?,
        embed_dim,
        modality: Modality::IMAGE,
    })
}
