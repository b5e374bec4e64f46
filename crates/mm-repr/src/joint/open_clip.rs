//! CLIP as open_clip stores it.
//!
//! *Reproducible scaling laws for contrastive language-image learning* (Cherti et al., 2022),
//! <https://arxiv.org/abs/2212.07143>.

use super::dual_encoder::{ClipTextConfig, ClipTextEncoder, ImageEncoder, Projection, TextPooling, contrastive_model};
use crate::{
    Error, Result,
    family::{Family, Model, ModelBuilder, Tower, WeightMap},
    image::{
        preprocess::open_clip_preprocessing,
        vit::{SizePair, VitConfig},
    },
    text::transformer::text_processor,
};
use mm_core::nn::Activation;
use mm_data::ImageProcessor;
use serde_json::Value;

/// The family of this file.
pub(crate) const FAMILIES: &[Family] =
    &[Family { model_type: "open_clip", weight_map: |_, _| WeightMap::new(OPEN_CLIP_WEIGHT_MAP), build }];

const OPEN_CLIP_WEIGHT_MAP: &[(&str, &str)] = &[
    ("text_model.encoder.final_layer_norm.", "ln_final."),
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_projection.weight", "text_projection^T"),
    ("visual_projection.weight", "visual.proj^T"),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.q_proj.weight", ".attn.in_proj_weight#0/3"),
    (".self_attn.k_proj.weight", ".attn.in_proj_weight#1/3"),
    (".self_attn.v_proj.weight", ".attn.in_proj_weight#2/3"),
    (".self_attn.q_proj.bias", ".attn.in_proj_bias#0/3"),
    (".self_attn.k_proj.bias", ".attn.in_proj_bias#1/3"),
    (".self_attn.v_proj.bias", ".attn.in_proj_bias#2/3"),
    (".self_attn.out_proj.", ".attn.out_proj."),
];

/// An error about `open_clip_config.json`.
fn config_error(b: &ModelBuilder<'_>, reason: impl Into<mm_core::Cause>) -> Error {
    Error::folder(b.folder.join("open_clip_config.json"), reason)
}

fn size(b: &ModelBuilder<'_>, value: &Value, key: &str) -> Result<i64> {
    value[key].as_i64().ok_or_else(|| config_error(b, format!("model_cfg: has no `{key}`")))
}

fn mlp_dim(value: &Value, dim: i64) -> i64 {
    (dim as f64 * value["mlp_ratio"].as_f64().unwrap_or(4.0)) as i64
}

fn text_config(b: &ModelBuilder<'_>, text: &Value, activation: Activation) -> Result<ClipTextConfig> {
    let dim = size(b, text, "width")?;
    Ok(ClipTextConfig {
        vocab_size: text["vocab_size"].as_i64().unwrap_or(49408),
        hidden_size: dim,
        intermediate_size: mlp_dim(text, dim),
        num_hidden_layers: size(b, text, "layers")?,
        num_attention_heads: size(b, text, "heads")?,
        max_position_embeddings: text["context_length"].as_i64().unwrap_or(77),
        hidden_act: activation,
        ..ClipTextConfig::default()
    })
}

fn vision_config(b: &ModelBuilder<'_>, vision: &Value, activation: Activation) -> Result<VitConfig> {
    let dim = size(b, vision, "width")?;
    let head_width = vision["head_width"].as_i64().unwrap_or(64);
    let heads = dim.checked_div(head_width).filter(|heads| *heads > 0 && heads * head_width == dim);
    let heads = heads.ok_or_else(|| {
        let reason = format!("head_width: found {head_width}, expected a divisor of the width {dim}");
        config_error(b, format!("model_cfg.vision_cfg.{reason}"))
    })?;
    let pair =
        |key: &str, default: i64| serde_json::from_value(vision[key].clone()).unwrap_or(SizePair::Square(default));
    Ok(VitConfig {
        hidden_size: dim,
        num_hidden_layers: size(b, vision, "layers")?,
        num_attention_heads: heads,
        intermediate_size: mlp_dim(vision, dim),
        hidden_act: activation,
        layer_norm_eps: 1e-5,
        image_size: pair("image_size", 224),
        patch_size: pair("patch_size", 16),
        ..VitConfig::default()
    })
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let model = &b.config["model_cfg"];
    let (text, vision) = (&model["text_cfg"], &model["vision_cfg"]);
    for (key, value) in [("hf_model_name", text), ("timm_model_name", vision)] {
        if !value[key].is_null() {
            let reason =
                format!("model_cfg.{key}: towers of other libraries are not supported; expected open_clip's own");
            return Err(config_error(b, reason));
        }
    }
    if !vision["layers"].is_i64() {
        return Err(config_error(b, "model_cfg.vision_cfg.layers: expected one number (a vision transformer)"));
    }
    let quick_gelu = model["quick_gelu"].as_bool().unwrap_or(false);
    let activation = if quick_gelu { Activation::QuickGelu } else { Activation::Gelu };
    let text = text_config(b, text, activation)?;
    let vision = vision_config(b, vision, activation)?;
    let dim = size(b, model, "embed_dim")?;
    let projection = Projection::new(b, "text_projection", text.hidden_size, dim)?;
    let text_encoder = ClipTextEncoder::new(b, &text, true, TextPooling::LargestId, projection)?;
    let tokenizer = text_processor(b, text.max_position_embeddings, text.vocab_size)?;
    let projection = Projection::new(b, "visual_projection", vision.hidden_size, dim)?;
    let image_encoder = ImageEncoder::clip(b, &vision, projection)?;
    let images = ImageProcessor::new(open_clip_preprocessing(b, vision.image_size.get())?);
    contrastive_model(b, Tower::new(tokenizer, text_encoder), Tower::new(images, image_encoder))
}
