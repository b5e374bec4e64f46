//! Chinese-CLIP: CLIP's vision tower with a BERT.
//!
//! *Chinese CLIP: Contrastive Vision-Language Pretraining in Chinese* (Yang et al., 2022),
//! <https://arxiv.org/abs/2211.01335>.

use super::{
    clip::{CLIP_VISION, CLIP_WEIGHT_MAP},
    dual_encoder::{BertTextEncoder, ImageEncoder, Projection, contrastive_model},
};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Tower, WeightMap},
    image::{preprocessing, vision_config},
    text::transformer::{BERT_WEIGHT_MAP, BertConfig, TextTransformer, Variant, text_processor},
};
use mm_data::ImageProcessor;

/// The family of this file.
pub(crate) const FAMILIES: &[Family] = &[Family { model_type: "chinese_clip", weight_map: |_, _| weight_map(), build }];

fn weight_map() -> WeightMap {
    // Only the text tower has BERT's names: it is `bert_model` here and `text_model` in the checkpoint.
    let map = BERT_WEIGHT_MAP
        .iter()
        .fold(WeightMap::new(CLIP_WEIGHT_MAP), |map, (from, to)| map.and_within("bert_model.", from, to));
    map.and(&[("^bert_model.", "text_model.")])
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let text: BertConfig = b.parse_part(&b.config["text_config"], "text_config")?;
    let vision = vision_config(b, &b.config["vision_config"], "vision_config", CLIP_VISION)?;
    let dim = b.config["projection_dim"].as_i64().unwrap_or(512);
    let bert = TextTransformer::new(b, &b.scope.pp("bert_model"), &text, Variant::BERT)?;
    let projection = Projection::new(b, "text_projection", text.hidden_size, dim)?;
    let tokenizer = text_processor(b, text.max_position_embeddings, text.vocab_size)?;
    let text_encoder = BertTextEncoder { bert, projection };
    let projection = Projection::new(b, "visual_projection", vision.hidden_size, dim)?;
    let image_encoder = ImageEncoder::clip(b, &vision, projection)?;
    let images = ImageProcessor::new(preprocessing(b)?);
    contrastive_model(b, Tower::new(tokenizer, text_encoder), Tower::new(images, image_encoder))
}
