//! VideoMAE: a vision transformer on patches that span several frames, with fixed sinusoidal positions.
//!
//! *VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training* (Tong et al.,
//! 2022), <https://arxiv.org/abs/2203.12602>.

use crate::{
    Result, checkpoint_config,
    family::{Family, Model, ModelBuilder, Tower, WeightMap},
    image::{
        preprocessing,
        vit::{
            ClassifierPooling, PatchEmbed, PositionInterpolation, VitBackbone, VitConfig, VitEmbeddings, VitModel,
            classifiers, patch_grid, vit_block, vit_weight_map,
        },
    },
};
use mm_core::{
    Checkpoint, Modality,
    nn::{Norm, NormConfig, TransformerConfig, sinusoidal_positions},
};
use mm_data::VideoProcessor;

/// The family of this file.
pub(crate) const FAMILIES: &[Family] = &[Family { model_type: "videomae", weight_map: |c, _| weight_map(c), build }];

/// Maximum number of frames of a clip.
const MAX_FRAMES: i64 = 1 << 16;

checkpoint_config! {
    /// Fields of transformers' `VideoMAEConfig` that [`VitConfig`] does not have. Older versions wrote `qv_bias` as
    /// `qkv_bias`.
    VideoMaeConfig {
        num_frames: i64 = 16,
        tubelet_size: i64 = 2,
        use_mean_pooling: bool = true,
        qkv_bias: bool = true,
        qv_bias: Option<bool> = None,
    }
}

fn weight_map(checkpoint: &Checkpoint) -> WeightMap {
    let map = vit_weight_map(checkpoint, &["videomae.", ""]);
    if checkpoint.names().any(|n| n.ends_with(".q_bias")) {
        return map.and(&[(".query.bias", ".q_bias"), (".value.bias", ".v_bias")]);
    }
    map
}

fn build_backbone(b: &ModelBuilder<'_>, config: &VitConfig, video: &VideoMaeConfig) -> Result<VitBackbone> {
    let (scope, embed_dim, patch) = (b.scope.pp("backbone"), config.hidden_size, config.patch_size.get());
    let tubelet = video.tubelet_size;
    if tubelet < 1 || video.num_frames < tubelet {
        let expected = format!("1 to the {} frames", video.num_frames);
        return Err(b.config_error(format!("tubelet_size: found {tubelet}, expected {expected}")));
    }
    if video.num_frames > MAX_FRAMES {
        return Err(b.config_error(format!("num_frames: found {}, expected at most {MAX_FRAMES}", video.num_frames)));
    }
    let [rows, columns] = patch_grid(b, config, "patch_size")?;
    let grid = [video.num_frames / tubelet * rows, columns];
    let mut block = vit_block(config);
    block.attention.bias = video.qv_bias.unwrap_or(video.qkv_bias);
    block.attention.key_bias = false;
    let projection = scope.pp("embeddings.patch_embeddings.projection");
    let patch_embed =
        PatchEmbed::new(&projection, config.num_channels, embed_dim, &[tubelet, patch[0], patch[1]], true)?;
    let positions = sinusoidal_positions(grid[0] * grid[1], embed_dim, false, b.scope.device())?;
    let positions = positions.to_dtype(patch_embed.dtype()?)?;
    let final_norm = !video.use_mean_pooling;
    let transformer = TransformerConfig { final_norm, ..TransformerConfig::new(config.num_hidden_layers, block) };
    Ok(VitBackbone {
        patch_embed,
        embeddings: VitEmbeddings {
            prefix_tokens: Vec::new(),
            positions,
            prefix_positions: 0,
            registers: None,
            grid,
            interpolation: PositionInterpolation::Disabled,
        },
        pre_norm: None,
        blocks: b.transformer(&scope.pp("encoder"), transformer)?,
        embed_dim,
        modality: Modality::VIDEO,
    })
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let (config, video): (VitConfig, VideoMaeConfig) = (b.parse()?, b.parse()?);
    let backbone = build_backbone(b, &config, &video)?;
    let classifiers = classifiers(b, &["classifier"], config.hidden_size)?;
    let has_norm = video.use_mean_pooling && !classifiers.is_empty();
    let norm = has_norm.then(|| Norm::new(&b.scope.pp("fc_norm"), config.hidden_size, NormConfig::default()));
    let classifier_pooling =
        if video.use_mean_pooling { ClassifierPooling::MeanFrom(0) } else { ClassifierPooling::ClassToken };
    let network =
        VitModel { backbone, embedding_pooling: None, classifier_pooling, norm: norm.transpose()?, classifiers };
    let num_frames = usize::try_from(video.num_frames).unwrap_or(1);
    Ok(Tower::new(VideoProcessor::new(preprocessing(b)?, num_frames), network).into())
}
