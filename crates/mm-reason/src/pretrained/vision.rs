//! CLIP's vision transformer in the shapes that models which speak have it.

use mm_core::{
    Init, Modality, Scope,
    nn::{Norm, NormConfig, TransformerConfig},
};
use mm_repr::{
    family::Build,
    image::vit::{Patches, Stretch, Tokens, Trunk, VitConfig, block, grid},
};

/// What sets them apart.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Whether a class token stands first.
    pub(super) class: bool,
    /// Whether the patches' convolution has a bias.
    pub(super) bias: bool,
    /// Whether a normalisation stands before the blocks.
    pub(super) first_norm: bool,
    /// Whether one ends them.
    pub(super) final_norm: bool,
}

/// The transformer under `scope`, in CLIP's words.
pub(super) fn trunk(b: &Build<'_>, scope: &Scope<'_>, c: &VitConfig, shape: Shape) -> mm_repr::Result<Trunk> {
    let (tables, width, placed) = (scope.pp("embeddings"), c.hidden_size, i64::from(shape.class));
    let grid = grid(b, c, "vision_config.patch_size")?;
    let norm = NormConfig { epsilon: c.layer_norm_eps, ..NormConfig::default() };
    let class = shape.class.then(|| tables.param("class_embedding", &[1, width], Init::Normal(0.02)));
    let positions = tables.pp("position_embedding");
    Ok(Trunk {
        patches: Patches::new(&tables.pp("patch_embedding"), c.num_channels, width, &c.patch_size.get(), shape.bias)?,
        tokens: Tokens {
            before: class.transpose()?,
            positions: positions.param("weight", &[grid[0] * grid[1] + placed, width], Init::Normal(0.02))?,
            placed,
            unplaced: None,
            grid,
            stretch: Stretch::Plain,
        },
        first_norm: shape.first_norm.then(|| Norm::new(&scope.pp("pre_layrnorm"), width, norm)).transpose()?,
        blocks: b.transformer(
            &scope.pp("encoder"),
            TransformerConfig { layers: c.num_hidden_layers, block: block(c), final_norm: shape.final_norm },
        )?,
        width,
        modality: Modality::IMAGE,
    })
}
