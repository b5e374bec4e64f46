//! CLIP's vision transformer in the shapes that models have it: CLIP and SigLIP themselves, and those that describe what it sees.

use super::vit::{Pair, PatchEmbed, PositionInterpolation, Tokens, VitBackbone, VitConfig, patch_grid, vit_block};
use crate::{Result, family::ModelBuilder};
use mm_core::{
    Init, Modality, Scope,
    nn::{Activation, Norm, NormConfig, TransformerConfig},
};
use serde_json::Value;

/// What a family's own config class takes where a file is silent.
#[derive(Clone, Copy)]
pub struct VisionDefaults {
    /// Side of the pictures.
    pub image: i64,
    /// Side of a patch.
    pub patch: i64,
    /// Activation of the blocks.
    pub activation: Activation,
    /// Added to variances.
    pub epsilon: f64,
}

/// Sizes out of a config (or its `vision_config`), with the family's own defaults.
pub fn vision_config(b: &ModelBuilder<'_>, value: &Value, field: &str, d: VisionDefaults) -> Result<VitConfig> {
    let mut c: VitConfig = b.parse_part(value, field)?;
    if value["image_size"].is_null() {
        c.image_size = Pair::Both(d.image);
    }
    if value["patch_size"].is_null() {
        c.patch_size = Pair::Both(d.patch);
    }
    if value["hidden_act"].is_null() {
        c.hidden_act = d.activation;
    }
    if value["layer_norm_eps"].is_null() {
        c.layer_norm_eps = d.epsilon;
    }
    Ok(c)
}

/// What sets them apart.
#[derive(Clone, Copy)]
pub struct VisionVariant {
    /// Whether a class token stands first.
    pub class: bool,
    /// Whether the patches' convolution has a bias.
    pub bias: bool,
    /// Whether a normalisation stands before the blocks.
    pub first_norm: bool,
    /// Whether one ends them.
    pub final_norm: bool,
}

/// The transformer under `scope`, in CLIP's words.
pub fn clip_vision_backbone(
    b: &ModelBuilder<'_>,
    scope: &Scope<'_>,
    c: &VitConfig,
    shape: VisionVariant,
) -> Result<VitBackbone> {
    let (tables, width, placed) = (scope.pp("embeddings"), c.hidden_size, i64::from(shape.class));
    let grid = patch_grid(b, c, "vision_config.patch_size")?;
    let norm = NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() };
    let class = shape.class.then(|| tables.param("class_embedding", &[1, width], Init::Normal(0.02)));
    let positions = tables.pp("position_embedding");
    Ok(VitBackbone {
        patches: PatchEmbed::new(
            &tables.pp("patch_embedding"),
            c.num_channels,
            width,
            &c.patch_size.get(),
            shape.bias,
        )?,
        tokens: Tokens {
            before: class.transpose()?,
            positions: positions.param("weight", &[grid[0] * grid[1] + placed, width], Init::Normal(0.02))?,
            placed,
            unplaced: None,
            grid,
            stretch: PositionInterpolation::Bicubic,
        },
        first_norm: shape.first_norm.then(|| Norm::new(&scope.pp("pre_layrnorm"), width, norm)).transpose()?,
        blocks: b.transformer(
            &scope.pp("encoder"),
            TransformerConfig { num_layers: c.num_hidden_layers, block: vit_block(c), final_norm: shape.final_norm },
        )?,
        width,
        modality: Modality::IMAGE,
    })
}
