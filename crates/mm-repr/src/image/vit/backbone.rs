//! The backbone: patch embedding, special tokens, positions and transformer blocks.

use super::{
    config::{VitConfig, strided_patch_grid},
    patch_embed::PatchEmbed,
};
use crate::{Result, family::ModelBuilder};
use mm_core::{
    DType, Encoder, Features, Init, Input, Interpolation, Modality, Module, Tensor,
    nn::{BlockConfig, ForwardArgs, Norm, Transformer, TransformerConfig},
};

/// Interpolation of position embeddings for another number of patches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PositionInterpolation {
    /// Bicubic.
    Bicubic,
    /// Bicubic with antialiasing.
    AntialiasedBicubic,
    /// Another number of patches is an error.
    Disabled,
}

/// Position embeddings and the tokens before the patches.
pub struct VitEmbeddings {
    /// Class and distillation tokens, `[1, embed_dim]` each: the parameters themselves, so that they can be trained.
    pub prefix_tokens: Vec<Tensor>,
    /// `[positions, embed_dim]`.
    pub positions: Tensor,
    /// Number of positions that belong to the prefix tokens: all of them or none.
    pub prefix_positions: i64,
    /// Tokens without positions between the prefix tokens and the patches, `[tokens, embed_dim]`.
    pub registers: Option<Tensor>,
    /// `[rows, columns]` of the patch positions.
    pub grid: [i64; 2],
    /// How the positions are adapted to another grid.
    pub interpolation: PositionInterpolation,
}

/// Patch embedding, tokens, positions and blocks of a vision transformer.
pub struct VitBackbone {
    /// Patch embedding.
    pub patch_embed: PatchEmbed,
    /// Tokens and positions.
    pub embeddings: VitEmbeddings,
    /// Normalization before the blocks (CLIP).
    pub pre_norm: Option<Norm>,
    /// Transformer blocks.
    pub blocks: Transformer,
    /// Feature dimension.
    pub embed_dim: i64,
    /// The modality that it takes.
    pub modality: Modality,
}

impl VitBackbone {
    /// Expands tokens `[tokens, embed_dim]` to `[rows, tokens, embed_dim]`.
    fn expand(tokens: &Tensor, rows: i64) -> mm_core::Result<Tensor> {
        tokens.unsqueeze(0)?.expand(&[rows, -1, -1])
    }

    /// Positions for a grid of patches, interpolated where it is not the learned one.
    fn positions(&self, grid: [i64; 2]) -> mm_core::Result<Tensor> {
        let e = &self.embeddings;
        if grid == e.grid {
            return Ok(e.positions.clone());
        }
        if e.interpolation == PositionInterpolation::Disabled {
            let expected = format!("{:?}, the grid of the model's positions", e.grid);
            return Err(mm_core::Error::shape("patches", &grid, expected));
        }
        let prefix = e.positions.narrow(0, 0, e.prefix_positions)?;
        let flat = e.positions.narrow(0, e.prefix_positions, e.grid[0] * e.grid[1])?;
        let map = flat.reshape(&[1, e.grid[0], e.grid[1], self.embed_dim])?.permute(&[0, 3, 1, 2])?;
        // In float32, since half precision would shift the positions.
        let mode = match e.interpolation {
            PositionInterpolation::AntialiasedBicubic => Interpolation::BicubicAntialias,
            _ => Interpolation::Bicubic { align_corners: false },
        };
        let map = map.to_dtype(DType::F32)?.contiguous()?.interpolate(grid, mode)?;
        let flat = map.permute(&[0, 2, 3, 1])?.reshape(&[-1, self.embed_dim])?.to_dtype(e.positions.dtype()?)?;
        Tensor::cat(&[&prefix, &flat], 0)
    }

    /// The input of the first block, `[batch, tokens, embed_dim]`.
    pub fn embed_patches(&self, pixels: &Tensor) -> mm_core::Result<Tensor> {
        let (mut x, grid) = self.patch_embed.forward(pixels)?; // [batch, patches, embed_dim]
        let (rows, e) = (x.size(0)?, &self.embeddings);
        let positions = self.positions(grid)?;
        let prefix = e.prefix_tokens.iter().map(|t| Self::expand(t, rows)).collect::<mm_core::Result<Vec<_>>>()?;
        let after_prefix = |x: Tensor| {
            if prefix.is_empty() { Ok(x) } else { Tensor::cat(&prefix.iter().chain([&x]).collect::<Vec<_>>(), 1) }
        };
        x = if e.prefix_positions > 0 { after_prefix(x)?.add(&positions)? } else { after_prefix(x.add(&positions)?)? };
        if let Some(registers) = &e.registers {
            let prefix = prefix.len() as i64;
            let patches = x.size(1)? - prefix;
            x = Tensor::cat(
                &[&x.narrow(1, 0, prefix)?, &Self::expand(registers, rows)?, &x.narrow(1, prefix, patches)?],
                1,
            )?;
        }
        match &self.pre_norm {
            Some(norm) => norm.forward(&x, false),
            None => Ok(x),
        }
    }
}

impl Encoder for VitBackbone {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let x = self.embed_patches(&input.values)?;
        Features::new(self.blocks.forward(&x, ForwardArgs { train, ..ForwardArgs::default() })?, None)
    }

    fn dim(&self) -> i64 {
        self.embed_dim
    }

    fn modality(&self) -> Modality {
        self.modality.clone()
    }
}

/// Differences between the families' backbones.
pub(crate) struct VitVariant<'a> {
    /// Names of the tokens before the patches.
    pub(crate) prefix_tokens: &'a [&'a str],
    /// Whether these have positions.
    pub(crate) prefix_positions: bool,
    /// Number of register tokens.
    pub(crate) registers: Option<i64>,
    /// How positions are adapted to another grid.
    pub(crate) interpolation: PositionInterpolation,
    /// Stride of the patches if they overlap.
    pub(crate) stride: Option<[i64; 2]>,
    /// The modality.
    pub(crate) modality: Modality,
}

impl<'a> VitVariant<'a> {
    /// A backbone for images with these prefix tokens, which have positions.
    pub(crate) fn image(prefix_tokens: &'a [&'a str]) -> Self {
        Self {
            prefix_tokens,
            prefix_positions: true,
            registers: None,
            interpolation: PositionInterpolation::Bicubic,
            stride: None,
            modality: Modality::IMAGE,
        }
    }
}

/// Builds the backbone under `backbone` of the builder's scope.
pub(crate) fn build_backbone(
    b: &ModelBuilder<'_>,
    config: &VitConfig,
    variant: VitVariant<'_>,
    block: BlockConfig,
) -> Result<VitBackbone> {
    let scope = b.scope.pp("backbone");
    let embeddings = scope.pp("embeddings");
    let (embed_dim, patch) = (config.hidden_size, config.patch_size.get());
    let stride = variant.stride.unwrap_or(patch);
    let grid = strided_patch_grid(b, config, stride, "patch_size")?;
    let projection = embeddings.pp("patch_embeddings").pp("projection");
    let patch_embed = PatchEmbed::new(&projection, config.num_channels, embed_dim, &patch, true)?;
    let table = |name: &str, rows: i64| embeddings.param(name, &[rows, embed_dim], Init::Normal(0.02));
    let tokens = variant.prefix_tokens.iter().map(|name| table(name, 1)).collect::<Result<Vec<_>, _>>()?;
    let prefix_positions = if variant.prefix_positions { tokens.len() as i64 } else { 0 };
    let positions = table("position_embeddings", grid[0] * grid[1] + prefix_positions)?;
    let registers = variant.registers.map(|n| table("register_tokens", n)).transpose()?;
    let interpolation = variant.interpolation;
    Ok(VitBackbone {
        patch_embed: patch_embed.with_stride(stride, [0, 0]),
        embeddings: VitEmbeddings {
            prefix_tokens: tokens,
            positions,
            prefix_positions,
            registers,
            grid,
            interpolation,
        },
        pre_norm: None,
        blocks: b.transformer(&scope.pp("encoder"), TransformerConfig::new(config.num_hidden_layers, block))?,
        embed_dim,
        modality: variant.modality,
    })
}
