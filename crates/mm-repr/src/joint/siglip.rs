//! SigLIP, trained with a sigmoid loss: bidirectional text blocks and attention pooling.
//!
//! *Sigmoid Loss for Language Image Pre-Training* (Zhai et al., 2023), <https://arxiv.org/abs/2303.15343>.

use super::{
    clip::CLIP_WEIGHT_MAP,
    dual_encoder::{
        AttentionPooling, ClipTextConfig, ClipTextEncoder, ImageEncoder, ImagePooling, Projection, TextPooling,
        scalar_param,
    },
};
use crate::{
    Result,
    family::{ContrastiveHead, Family, Model, ModelBuilder, Tower, WeightMap},
    image::{VisionDefaults, VisionVariant, clip_vision_backbone, preprocessing, vision_config, vit::VitConfig},
    text::transformer::text_processor,
};
use mm_core::nn::{Activation, Linear};
use mm_data::ImageProcessor;
use serde_json::json;

/// The family of this file.
pub(crate) const FAMILIES: &[Family] = &[Family { model_type: "siglip", weight_map: |_, _| weight_map(), build }];

fn weight_map() -> WeightMap {
    WeightMap::new(CLIP_WEIGHT_MAP).and(&[
        (".head.attention.q_proj.weight", ".head.attention.in_proj_weight#0/3"),
        (".head.attention.k_proj.weight", ".head.attention.in_proj_weight#1/3"),
        (".head.attention.v_proj.weight", ".head.attention.in_proj_weight#2/3"),
        (".head.attention.q_proj.bias", ".head.attention.in_proj_bias#0/3"),
        (".head.attention.k_proj.bias", ".head.attention.in_proj_bias#1/3"),
        (".head.attention.v_proj.bias", ".head.attention.in_proj_bias#2/3"),
    ])
}

/// Defaults of transformers' `SiglipVisionConfig`.
const SIGLIP_VISION: VisionDefaults =
    VisionDefaults { image_size: 224, patch_size: 16, hidden_act: Activation::GeluNew, layer_norm_eps: 1e-6 };

fn text_config(b: &ModelBuilder<'_>) -> Result<ClipTextConfig> {
    // Defaults of transformers' `SiglipTextConfig`.
    let defaults = json!({
        "vocab_size": 32000,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "max_position_embeddings": 64,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    });
    b.parse_with_defaults(&b.config["text_config"], "text_config", &defaults)
}

fn image_encoder(b: &ModelBuilder<'_>, c: &VitConfig) -> Result<ImageEncoder> {
    let scope = b.scope.pp("vision_model");
    let variant = VisionVariant { class_token: false, patch_bias: true, pre_norm: false, final_norm: true };
    let backbone = clip_vision_backbone(b, &scope, c, variant)?;
    let pooling = ImagePooling::Attention(Box::new(AttentionPooling::new(&scope.pp("head"), c)?));
    Ok(ImageEncoder { backbone, pooling, projection: Projection(None) })
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let text = text_config(b)?;
    let vision = vision_config(b, &b.config["vision_config"], "vision_config", SIGLIP_VISION)?;
    let dim = text.projection_size.unwrap_or(text.hidden_size);
    let head = Linear::new(&b.scope.pp("text_model").pp("head"), text.hidden_size, dim, true)?;
    let text_encoder = ClipTextEncoder::new(b, &text, false, TextPooling::Last, Projection(Some(head)))?;
    let tokenizer = text_processor(b, text.max_position_embeddings, text.vocab_size)?.pad_to_max_length();
    let images = ImageProcessor::new(preprocessing(b)?);
    let towers = vec![Tower::new(tokenizer, text_encoder), Tower::new(images, image_encoder(b, &vision)?)];
    let logit_scale = scalar_param(&b.scope, "logit_scale")?.exp();
    let logit_bias = Some(scalar_param(&b.scope, "logit_bias")?);
    Ok(Model { towers, contrastive_head: Some(ContrastiveHead { logit_scale, logit_bias }) })
}
