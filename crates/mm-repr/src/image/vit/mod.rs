//! Vision transformers: the parts that ViT, DeiT, DINOv2, timm's ViTs, CLIP, AST and VideoMAE share, and the families
//! ViT and DeiT.
//!
//! *An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale* (Dosovitskiy et al., 2020),
//! <https://arxiv.org/abs/2010.11929>.

mod backbone;
mod config;
mod deit;
mod patch_embed;
mod pooling;
mod weight_map;

pub use backbone::{PositionInterpolation, VitBackbone, VitEmbeddings};
pub(crate) use backbone::{VitVariant, build_backbone};
pub(crate) use config::classifiers;
pub use config::{SizePair, VitConfig, patch_grid, vit_block};
pub(crate) use deit::FAMILIES;
pub use deit::vit_backbone;
pub use patch_embed::PatchEmbed;
pub(crate) use pooling::{ClassifierPooling, VitModel};
pub use weight_map::vit_weight_map;
