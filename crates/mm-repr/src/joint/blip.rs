//! BLIP for retrieval: a vision transformer and a BERT, projected into one space from their first tokens. Matching,
//! captioning and answering, in which the text attends to the image, are in mm-reason.
//!
//! *BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding and Generation* (Li et
//! al., 2022), <https://arxiv.org/abs/2201.12086>.

use super::dual_encoder::{BertTextEncoder, ImageEncoder, ImagePooling, Projection};
use crate::{
    Result, checkpoint_config,
    family::{ContrastiveHead, Family, Model, ModelBuilder, Tower, WeightMap},
    image::{VisionDefaults, VisionVariant, clip_vision_backbone, preprocessing, vision_config},
    text::transformer::{BERT_WEIGHT_MAP, BertConfig, TextTransformer, Variant, text_processor},
};
use mm_core::nn::{Activation, Linear};
use mm_data::ImageProcessor;

checkpoint_config! {
    /// transformers' `BlipTextConfig`.
    BlipTextConfig {
        vocab_size: i64 = 30524,
        hidden_size: i64 = 768,
        intermediate_size: i64 = 3072,
        num_hidden_layers: i64 = 12,
        num_attention_heads: i64 = 8,
        max_position_embeddings: i64 = 512,
        hidden_act: Activation = Activation::Gelu,
        layer_norm_eps: f64 = 1e-12,
        bos_token_id: i64 = 30522,
        sep_token_id: i64 = 102,
    }
}

/// Defaults of transformers' `BlipVisionConfig`.
pub const BLIP_VISION_DEFAULTS: VisionDefaults =
    VisionDefaults { image_size: 384, patch_size: 16, hidden_act: Activation::Gelu, layer_norm_eps: 1e-5 };

/// BLIP's vision transformer.
pub const BLIP_VISION_VARIANT: VisionVariant =
    VisionVariant { class_token: true, patch_bias: true, pre_norm: false, final_norm: true };

/// Maps BLIP's vision transformer under `vision_model` to transformers' names.
pub fn blip_vision_weight_map() -> WeightMap {
    WeightMap::new(&[
        ("vision_model.encoder.final_layer_norm.", "vision_model.post_layernorm."),
        (".self_attn.q_proj.", ".self_attn.qkv.#0/3"),
        (".self_attn.k_proj.", ".self_attn.qkv.#1/3"),
        (".self_attn.v_proj.", ".self_attn.qkv.#2/3"),
        (".self_attn.out_proj.", ".self_attn.projection."),
        (".position_embedding.weight", ".position_embedding"),
    ])
    .only_within("vision_model.")
}

/// The family of this file.
pub(crate) const FAMILIES: &[Family] = &[Family {
    model_type: "blip",
    weight_map: |_, _| {
        BERT_WEIGHT_MAP
            .iter()
            .fold(blip_vision_weight_map(), |map, (from, to)| map.and_within("text_encoder.", from, to))
    },
    build,
}];

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let c: BlipTextConfig = b.parse_part(&b.config["text_config"], "text_config")?;
    let (image_scope, text_scope) = (b.scope.pp("vision_proj"), b.scope.pp("text_proj"));
    if !(image_scope.has("weight") && text_scope.has("weight")) {
        return Err(b.config_error(
            "this BLIP has no vision_proj and text_proj, so it has no embeddings; expected a BlipForImageTextRetrieval (BLIP for captions \
             and questions is used by `mm caption` and `mm answer`)",
        ));
    }
    let dim = b.config["image_text_hidden_size"].as_i64().unwrap_or(256);
    let text = BertConfig {
        vocab_size: c.vocab_size,
        hidden_size: c.hidden_size,
        intermediate_size: c.intermediate_size,
        num_hidden_layers: c.num_hidden_layers,
        num_attention_heads: c.num_attention_heads,
        max_position_embeddings: c.max_position_embeddings,
        hidden_act: c.hidden_act,
        layer_norm_eps: c.layer_norm_eps,
        ..BertConfig::default()
    };
    let vision = vision_config(b, &b.config["vision_config"], "vision_config", BLIP_VISION_DEFAULTS)?;
    let projection = |scope, input| Ok::<_, crate::Error>(Projection(Some(Linear::new(scope, input, dim, true)?)));
    let bert = TextTransformer::new(b, &b.scope.pp("text_encoder"), &text, Variant::BERT_WITHOUT_SEGMENTS)?;
    let tokenizer = text_processor(b, text.max_position_embeddings, text.vocab_size)?;
    let text_encoder = BertTextEncoder { bert, projection: projection(&text_scope, text.hidden_size)? };
    let image_encoder = ImageEncoder {
        backbone: clip_vision_backbone(b, &b.scope.pp("vision_model"), &vision, BLIP_VISION_VARIANT)?,
        pooling: ImagePooling::ClassToken,
        projection: projection(&image_scope, vision.hidden_size)?,
    };
    let images = ImageProcessor::new(preprocessing(b)?);
    // Checkpoints do not have the temperature of training: scores are cosines, as in transformers.
    let contrastive_head = Some(ContrastiveHead { logit_scale: 1.0, logit_bias: None });
    Ok(Model { towers: vec![Tower::new(tokenizer, text_encoder), Tower::new(images, image_encoder)], contrastive_head })
}
