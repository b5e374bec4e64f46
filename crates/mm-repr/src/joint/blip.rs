//! BLIP (Li 2022) for retrieval by vectors: its vision transformer and its BERT, which reads alone here, projected into one space from their
//! first places. What looks at the picture while it reads (matching, answering, describing) is mm-reason's.

use super::clip::{BertTower, ImageTower, Pooler, Projection};
use crate::{
    Result,
    family::{ContrastiveHead, Family, Model, ModelBuilder, Tower, WeightMap, config},
    image::{VisionDefaults, VisionVariant, clip_vision_backbone, preprocessing, vision_config},
    text::transformer::{BERT_WEIGHT_MAP, Kind, TextConfig, TextTransformer, processor},
};
use mm_core::nn::{Activation, Linear};
use mm_data::ImageProcessor;

config! {
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

/// transformers' `BlipVisionConfig`.
pub const BLIP_VISION_DEFAULTS: VisionDefaults =
    VisionDefaults { image: 384, patch: 16, activation: Activation::Gelu, epsilon: 1e-5 };

/// How BLIP's vision transformer differs.
pub const BLIP_VISION_VARIANT: VisionVariant =
    VisionVariant { class: true, bias: true, first_norm: false, final_norm: true };

/// The names of BLIP's vision transformer below `vision_model.`.
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
pub(crate) const FAMILY: Family = Family {
    model_type: "blip",
    weight_map: |_, _| {
        BERT_WEIGHT_MAP
            .iter()
            .fold(blip_vision_weight_map(), |names, (from, to)| names.and_within("text_encoder.", from, to))
    },
    build,
};

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let c: BlipTextConfig = b.parse_part(&b.config["text_config"], "text_config")?;
    let (seen, read) = (b.scope.pp("vision_proj"), b.scope.pp("text_proj"));
    if !(seen.has("weight") && read.has("weight")) {
        return Err(b.config_error(
            "this BLIP has no vision_proj and text_proj, so pictures and texts have no vectors in one space; wanted a BlipForImageTextRetrieval \
             (those that describe or answer are for `mm caption` and `mm answer`)",
        ));
    }
    let space = b.config["image_text_hidden_size"].as_i64().unwrap_or(256);
    let text = TextConfig {
        vocab_size: c.vocab_size,
        hidden_size: c.hidden_size,
        intermediate_size: c.intermediate_size,
        num_hidden_layers: c.num_hidden_layers,
        num_attention_heads: c.num_attention_heads,
        max_position_embeddings: c.max_position_embeddings,
        hidden_act: c.hidden_act,
        layer_norm_eps: c.layer_norm_eps,
        ..TextConfig::default()
    };
    let vit = vision_config(b, &b.config["vision_config"], "vision_config", BLIP_VISION_DEFAULTS)?;
    let projection = |scope, width| Ok::<_, crate::Error>(Projection(Some(Linear::new(scope, width, space, true)?)));
    let bert = TextTransformer::new(b, &b.scope.pp("text_encoder"), &text, Kind::BLIP)?;
    let words = processor(b, text.max_position_embeddings, text.vocab_size)?;
    let image = ImageTower {
        trunk: clip_vision_backbone(b, &b.scope.pp("vision_model"), &vit, BLIP_VISION_VARIANT)?,
        pooler: Pooler::First,
        projection: projection(&seen, vit.hidden_size)?,
    };
    let pixels = ImageProcessor::new(preprocessing(b)?);
    let tower = BertTower(bert, projection(&read, text.hidden_size)?);
    // The temperature that it was trained with is not in its checkpoints: scores are cosines, as in the reference program.
    let contrastive_head = Some(ContrastiveHead { scale: 1.0, bias: None });
    Ok(Model { towers: vec![Tower::new(words, tower), Tower::new(pixels, image)], contrastive_head })
}
