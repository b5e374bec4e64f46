//! CLIP as transformers stores it.
//!
//! *Learning Transferable Visual Models From Natural Language Supervision* (Radford et al., 2021),
//! <https://arxiv.org/abs/2103.00020>.

use super::dual_encoder::{ClipTextConfig, ClipTextEncoder, ImageEncoder, Projection, TextPooling, contrastive_model};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Tower, WeightMap},
    image::{VisionDefaults, preprocessing, vision_config},
    text::transformer::text_processor,
};
use mm_core::nn::Activation;
use mm_data::ImageProcessor;

/// The family of this file.
pub(crate) const FAMILIES: &[Family] =
    &[Family { model_type: "clip", weight_map: |_, _| WeightMap::new(CLIP_WEIGHT_MAP), build }];

/// Where transformers' names differ.
pub(super) const CLIP_WEIGHT_MAP: &[(&str, &str)] = &[
    (".encoder.final_layer_norm.", ".final_layer_norm."),
    ("vision_model.final_layer_norm.", "vision_model.post_layernorm."),
];

/// Defaults of transformers' `CLIPVisionConfig`.
pub(super) const CLIP_VISION: VisionDefaults =
    VisionDefaults { image_size: 224, patch_size: 32, hidden_act: Activation::QuickGelu, layer_norm_eps: 1e-5 };

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let text: ClipTextConfig = b.parse_part(&b.config["text_config"], "text_config")?;
    let vision = vision_config(b, &b.config["vision_config"], "vision_config", CLIP_VISION)?;
    let dim = b.config["projection_dim"].as_i64().unwrap_or(512);
    // Older configs have an end token of 2, which means "the largest id".
    let pooling = if text.eos_token_id == 2 { TextPooling::LargestId } else { TextPooling::FirstOf(text.eos_token_id) };
    let projection = Projection::new(b, "text_projection", text.hidden_size, dim)?;
    let text_encoder = ClipTextEncoder::new(b, &text, true, pooling, projection)?;
    let tokenizer = text_processor(b, text.max_position_embeddings, text.vocab_size)?;
    let projection = Projection::new(b, "visual_projection", vision.hidden_size, dim)?;
    let image_encoder = ImageEncoder::clip(b, &vision, projection)?;
    let images = ImageProcessor::new(preprocessing(b)?);
    contrastive_model(b, Tower::new(tokenizer, text_encoder), Tower::new(images, image_encoder))
}
