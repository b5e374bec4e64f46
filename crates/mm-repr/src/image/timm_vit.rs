//! timm's `vision_transformer` and `deit` architectures, whose sizes are read from the shapes of the weights.

use super::{
    preprocess::timm_preprocessing,
    timm::{architecture, check_model_args, shape, unsupported},
    vit::{
        ClassifierPooling, PositionInterpolation, SizePair, VitConfig, VitModel, VitVariant, build_backbone,
        classifiers, patch_grid, vit_block,
    },
};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Tower, WeightMap},
};
use mm_core::nn::{Activation, Norm, NormConfig};
use mm_data::ImageProcessor;

/// The family of this file.
pub(crate) const FAMILIES: &[Family] =
    &[Family { model_type: "timm/vision_transformer", weight_map: |_, _| weight_map(), build }];

const LAYER_NORM_EPS: f64 = 1e-6;

/// Settings of timm's `model_args` that show in the weights, or are read from the config.
const MODEL_ARGS: [&str; 13] = [
    "num_heads",
    "patch_size",
    "embed_dim",
    "depth",
    "mlp_ratio",
    "init_values",
    "class_token",
    "reg_tokens",
    "no_embed_class",
    "fc_norm",
    "qkv_bias",
    "weight_init",
    "fix_init",
];

/// Number of heads of timm's vision transformers with this name and dimension; `None` if no rule is known.
fn num_heads(architecture: &str, embed_dim: i64) -> Option<i64> {
    let has_sixteen = matches!(embed_dim, 1152 | 1280 | 1408 | 1664)
        || architecture.starts_with("vit_giantopt_")
        || architecture == "vit_base_patch16_gap_224";
    if has_sixteen { Some(16) } else { (embed_dim % 64 == 0).then_some(embed_dim / 64) }
}

/// The activation of timm's vision transformer of this name.
fn activation(architecture: &str) -> Activation {
    let tanh =
        ["patch32_siglip", "vit_giantopt_", "vit_so400m_patch16_siglip"].iter().any(|p| architecture.contains(p))
            || (architecture.starts_with("vit_large_patch16_siglip") && architecture.ends_with("_512"));
    match (architecture.contains("quickgelu"), tanh) {
        (true, _) => Activation::QuickGelu,
        (false, true) => Activation::GeluNew,
        (false, false) => Activation::Gelu,
    }
}

fn weight_map() -> WeightMap {
    WeightMap::new(&[
        ("backbone.encoder.final_layer_norm.", "norm."),
        ("backbone.encoder.layers.", "blocks."),
        ("backbone.embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("backbone.embeddings.cls_token", "cls_token"),
        ("backbone.embeddings.distillation_token", "dist_token"),
        ("backbone.embeddings.register_tokens", "reg_token"),
        ("backbone.embeddings.position_embeddings", "pos_embed"),
        (".layer_norm1.", ".norm1."),
        (".layer_norm2.", ".norm2."),
        (".layer_scale1", ".ls1.gamma"),
        (".layer_scale2", ".ls2.gamma"),
        (".self_attn.q_proj.", ".attn.qkv.#0/3"),
        (".self_attn.k_proj.", ".attn.qkv.#1/3"),
        (".self_attn.v_proj.", ".attn.qkv.#2/3"),
        (".self_attn.out_proj.", ".attn.proj."),
        ("^cls_classifier.", "head."),
        ("^distillation_classifier.", "head_dist."),
        ("^classifier.", "head."),
    ])
}

/// Refuses variants that would load and compute something else.
fn check_supported(b: &ModelBuilder<'_>, architecture: &str) -> Result<()> {
    // Rotary positions, or normalizations after the layers, which leave no trace in the weights.
    if ["_rope_", "_pe_", "_rpn_", "_relpos_", "_dinov3", "_sapiens"].iter().any(|part| architecture.contains(part)) {
        return Err(unsupported(b, "a ViT with learned positions and normalizations before the layers"));
    }
    check_model_args(b, &MODEL_ARGS)?;
    for (weight, feature) in [
        ("norm_pre.weight", "a normalization before the blocks"),
        ("blocks.0.attn.q_norm.weight", "normalized queries"),
        ("attn_pool.latent", "attention pooling"),
        ("blocks.0.mlp.w12.weight", "packed SwiGLU"),
    ] {
        if b.checkpoint.shape(weight).is_some() {
            let reason =
                format!("architecture `{architecture}` has {feature}, which mm does not support in timm's ViT");
            return Err(b.config_error(reason));
        }
    }
    if b.checkpoint.shape("norm.weight").is_none() {
        let reason = format!("architecture `{architecture}` has no final normalization, which mm does not support");
        return Err(b.config_error(reason));
    }
    Ok(())
}

fn config(b: &ModelBuilder<'_>, architecture: &str) -> Result<VitConfig> {
    let has = |name: &str| b.checkpoint.shape(name).is_some();
    let [embed_dim, num_channels, patch_height, patch_width] = shape(b, "patch_embed.proj.weight")?;
    let input_size = &b.config["pretrained_cfg"]["input_size"];
    let side = |i: usize| input_size[i].as_i64().unwrap_or(224);
    let num_heads = b.config["model_args"]["num_heads"].as_i64().or_else(|| num_heads(architecture, embed_dim));
    let num_heads = num_heads.filter(|heads| *heads > 0).ok_or_else(|| {
        b.config_error(format!("model_args.num_heads: found none, which dimension {embed_dim} needs"))
    })?;
    let num_layers = (0..1000).take_while(|i| has(&format!("blocks.{i}.norm1.weight"))).count() as i64;
    Ok(VitConfig {
        hidden_size: embed_dim,
        num_hidden_layers: num_layers,
        num_attention_heads: num_heads,
        intermediate_size: shape::<2>(b, "blocks.0.mlp.fc1.weight")?[0],
        layer_norm_eps: LAYER_NORM_EPS,
        image_size: SizePair::Rectangle(side(1), side(2)),
        patch_size: SizePair::Rectangle(patch_height, patch_width),
        num_channels,
        qkv_bias: has("blocks.0.attn.qkv.bias"),
        hidden_act: activation(architecture),
        ..VitConfig::default()
    })
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let has = |name: &str| b.checkpoint.shape(name).is_some();
    let architecture = architecture(b);
    check_supported(b, architecture)?;
    let config = config(b, architecture)?;
    let tokens: Vec<&str> = [("cls_token", "cls_token"), ("dist_token", "distillation_token")]
        .into_iter()
        .filter(|(timm_name, _)| has(timm_name))
        .map(|(_, name)| name)
        .collect();
    let registers = if has("reg_token") { Some(shape::<3>(b, "reg_token")?[1]) } else { None };
    let mut block = vit_block(&config);
    block.layer_scale = has("blocks.0.ls1.gamma").then_some(1.0);
    // With timm's `no_embed_class`, only patches have positions.
    let patches = patch_grid(b, &config, "patch_size")?.iter().product::<i64>();
    let prefix_positions = shape::<3>(b, "pos_embed")?[1] > patches;
    let interpolation = PositionInterpolation::AntialiasedBicubic;
    let variant = VitVariant { prefix_positions, registers, interpolation, ..VitVariant::image(&tokens) };
    let backbone = build_backbone(b, &config, variant, block)?;
    let norm_config = NormConfig { eps: LAYER_NORM_EPS, ..NormConfig::default() };
    let norm = has("fc_norm.weight").then(|| Norm::new(&b.scope.pp("fc_norm"), config.hidden_size, norm_config));

    let global_pool = b.config["global_pool"].as_str().or(b.config["model_args"]["global_pool"].as_str());
    let distilled = tokens.len() == 2;
    let classifier_pooling = match (global_pool, distilled) {
        (Some("avg"), _) => ClassifierPooling::MeanFrom(tokens.len() as i64 + registers.unwrap_or(0)),
        (_, true) => ClassifierPooling::TwoClassifiers,
        (_, false) => ClassifierPooling::ClassToken,
    };
    let names: &[&str] = if distilled { &["cls_classifier", "distillation_classifier"] } else { &["classifier"] };
    let network = VitModel {
        classifiers: classifiers(b, names, config.hidden_size)?,
        backbone,
        embedding_pooling: Some(if distilled { ClassifierPooling::MeanOfTwoTokens } else { classifier_pooling }),
        classifier_pooling,
        norm: norm.transpose()?,
    };
    Ok(Tower::new(ImageProcessor::new(timm_preprocessing(b)?), network).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As timm 1.0.31 builds them (`timm.create_model(NAME).blocks[0]`).
    #[test]
    fn heads_and_activations_are_those_of_timm() {
        for (name, dim, heads, hidden_act) in [
            ("vit_base_patch16_224", 768, 12, Activation::Gelu),
            ("vit_base_patch16_gap_224", 768, 16, Activation::Gelu),
            ("vit_huge_patch14_gap_224", 1280, 16, Activation::Gelu),
            ("vit_giant_patch14_224", 1408, 16, Activation::Gelu),
            ("vit_gigantic_patch14_224", 1664, 16, Activation::Gelu),
            ("vit_giant_patch14_dinov2", 1536, 24, Activation::Gelu),
            ("vit_giantopt_patch16_siglip_gap_256", 1536, 16, Activation::GeluNew),
            ("vit_so400m_patch14_siglip_gap_224", 1152, 16, Activation::Gelu),
            ("vit_so400m_patch16_siglip_gap_256", 1152, 16, Activation::GeluNew),
            ("vit_large_patch16_siglip_gap_512", 1024, 16, Activation::GeluNew),
            ("vit_large_patch16_siglip_gap_256", 1024, 16, Activation::Gelu),
            ("vit_base_patch32_siglip_gap_256", 768, 12, Activation::GeluNew),
            ("vit_base_patch32_clip_quickgelu_224", 768, 12, Activation::QuickGelu),
        ] {
            assert_eq!((num_heads(name, dim), activation(name)), (Some(heads), hidden_act), "{name}");
        }
        assert_eq!(num_heads("vit_odd", 100), None);
    }
}
