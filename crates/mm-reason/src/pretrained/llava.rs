//! LLaVA 1.5: hidden states of CLIP's or `SigLIP`'s vision encoder, projected, among the tokens of a language model.
//!
//! *Improved Baselines with Visual Instruction Tuning* (Liu et al., 2023), <https://arxiv.org/abs/2310.03744>.

use super::{
    attribution::PrefixAttention,
    decoder::load_decoder,
    image_tokens::{self, ImageSpan, Placeholder},
    llama_decoder::{llama_decoder, llama_weight_map},
    tokenizer::Tokenizer,
    traits::{ConditionalGenerator, MediaEncoder, PretrainedFamily},
    types::{Attribution, EncodedMedia, MediaItem, Prompt, Request, TrainBatch},
};
use crate::{Result, generate::Prefill};
use mm_core::{
    Device, Modality, Module, Processor, Tensor,
    nn::{
        Activation, Linear,
        decoder::{Decoder, DecoderState},
    },
};
use mm_data::ImageProcessor;
use mm_repr::{
    family::{Family, ModelBuilder, WeightMap},
    image::{
        VisionDefaults, VisionVariant, clip_vision_backbone, preprocessing, vision_config,
        vit::{VitBackbone, VitConfig},
    },
};
use serde_json::Value;
use std::sync::Arc;

/// Language models that LLaVA checkpoints use.
const TEXT_MODEL_TYPES: [&str; 3] = ["llama", "qwen2", "mistral"];
/// Rotary base of these language models, where the config names none.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;
/// Token of an image, where the config names none.
const DEFAULT_IMAGE_TOKEN: i64 = 32_000;

pub(super) const FAMILY: PretrainedFamily = PretrainedFamily {
    family: Family {
        model_type: "llava",
        weight_map: |c, config| {
            // transformers 5 has all weights below `model.`; before, the language model was separate.
            let (text, head, top) = if c.names().any(|n| n.starts_with("model.")) {
                ("model.language_model.", "lm_head.", "model.")
            } else {
                ("language_model.model.", "language_model.lm_head.", "")
            };
            let siglip = config["vision_config"]["model_type"] == "siglip_vision_model";
            let last = if siglip { "post_layernorm." } else { "encoder.final_layer_norm." };
            let inner = if c.names().any(|n| n.contains("vision_tower.vision_model.")) { "vision_model." } else { "" };
            WeightMap::default()
                .and_within("vision.", "vision.encoder.final_layer_norm.", &format!("vision.{last}"))
                .and_within("vision.", "^vision.", &format!("{top}vision_tower.{inner}"))
                .and_within("projector.", "^projector.", &format!("{top}multi_modal_projector."))
                .then(llama_weight_map(text, head))
        },
        build,
    },
    classifier_prefix: None,
};

struct Projector {
    linear_1: Linear,
    activation: Activation,
    linear_2: Linear,
}

struct Llava {
    vision: VitBackbone,
    /// Hidden states of the vision encoder that are concatenated; 0 is the input of the first block.
    feature_layers: Vec<usize>,
    drop_class_token: bool,
    projector: Projector,
    decoder: Decoder,
    processor: Arc<dyn Processor>,
    image_token: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn MediaEncoder>> {
    let (c, text, vision) = (b.config, &b.config["text_config"], &b.config["vision_config"]);
    let text_type = text["model_type"].as_str().unwrap_or("llama");
    if !TEXT_MODEL_TYPES.contains(&text_type) {
        let known = TEXT_MODEL_TYPES.join(", ");
        return Err(b.config_error(format!("text_config.model_type: found `{text_type}`, expected one of {known}")));
    }
    let siglip = match vision["model_type"].as_str().unwrap_or("clip_vision_model") {
        "clip_vision_model" => false,
        "siglip_vision_model" => true,
        other => {
            return Err(b.config_error(format!(
                "vision_config.model_type: found `{other}`, expected clip_vision_model or siglip_vision_model"
            )));
        }
    };
    let defaults = if siglip {
        VisionDefaults { image_size: 336, patch_size: 16, hidden_act: Activation::GeluNew, layer_norm_eps: 1e-6 }
    } else {
        VisionDefaults { image_size: 336, patch_size: 14, hidden_act: Activation::QuickGelu, layer_norm_eps: 1e-5 }
    };
    let vit = vision_config(b, vision, "vision_config", defaults)?;
    let feature_layers = feature_layers(b, vit.num_hidden_layers)?;
    let variant = VisionVariant { class_token: !siglip, patch_bias: siglip, pre_norm: !siglip, final_norm: false };
    // Blocks after the last feature layer are not needed.
    let num_hidden_layers = feature_layers.iter().copied().max().unwrap_or(0) as i64;
    let used = VitConfig { num_hidden_layers, ..vit.clone() };
    let backbone = clip_vision_backbone(b, &b.scope.pp("vision"), &used, variant)?;
    let config = llama_decoder(b, text, text_type, DEFAULT_ROPE_THETA)?;
    let (bias, scope) = (c["multimodal_projector_bias"].as_bool().unwrap_or(true), b.scope.pp("projector"));
    let vision_dim = vit.hidden_size * feature_layers.len() as i64;
    let image_token = ["image_token_id", "image_token_index"].iter().find_map(|key| c[*key].as_i64());
    Ok(Box::new(Llava {
        projector: Projector {
            linear_1: Linear::new(&scope.pp("linear_1"), vision_dim, config.dim, bias)?,
            activation: serde_json::from_value(c["projector_hidden_act"].clone()).unwrap_or(Activation::Gelu),
            linear_2: Linear::new(&scope.pp("linear_2"), config.dim, config.dim, bias)?,
        },
        vision: backbone,
        feature_layers,
        drop_class_token: c["vision_feature_select_strategy"].as_str().unwrap_or("default") == "default" && !siglip,
        decoder: load_decoder(b, &b.scope.pp("text"), config)?,
        processor: Arc::new(ImageProcessor::new(preprocessing(b)?)),
        image_token: image_token.unwrap_or(DEFAULT_IMAGE_TOKEN),
    }))
}

/// Indices of the hidden states that `vision_feature_layer` names, which may count from the end.
fn feature_layers(b: &ModelBuilder<'_>, num_layers: i64) -> mm_repr::Result<Vec<usize>> {
    let layers: Vec<i64> = match &b.config["vision_feature_layer"] {
        Value::Array(list) => list.iter().filter_map(Value::as_i64).collect(),
        one => vec![one.as_i64().unwrap_or(-2)],
    };
    let index = |layer: &i64| {
        let index = if *layer < 0 { num_layers + 1 + layer } else { *layer };
        let valid = usize::try_from(index).ok().filter(|i| *i as i64 <= num_layers);
        valid.ok_or_else(|| {
            b.config_error(format!("vision_feature_layer: found {layer}, expected one of {num_layers} layers"))
        })
    };
    layers.iter().map(index).collect()
}

impl MediaEncoder for Llava {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.processor)
    }

    fn encode(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let states = self.vision.blocks.hidden_states(&self.vision.embed_patches(values)?, None, false)?;
        let mut selected = Vec::new();
        for layer in &self.feature_layers {
            let x = &states[*layer];
            selected.push(if self.drop_class_token { x.narrow(1, 1, x.size(1)? - 1)? } else { x.clone() });
        }
        let x = Tensor::cat(&selected.iter().collect::<Vec<_>>(), -1)?;
        let Projector { linear_1, activation, linear_2 } = &self.projector;
        Ok(EncodedMedia::new(linear_2.forward(&linear_1.forward_activation(&x, *activation)?, false)?))
    }

    fn supports_several_media(&self) -> bool {
        true
    }

    fn prompt(&self, tokenizer: &Tokenizer, media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        let image = tokenizer.id_to_token(self.image_token).unwrap_or_else(|| "<image>".into());
        // The format that LLaVA 1.5 was trained with.
        let items = media.map_or(&[][..], |media| &media.items);
        let default = |text: &str| format!("USER: {}{text} ASSISTANT:", format!("{image}\n").repeat(items.len()));
        let text = image_tokens::prompt_text(tokenizer, &vec!["image"; items.len()], request, default)?;
        let placeholder = |item: &MediaItem| Placeholder { token: self.image_token, features: item.features };
        let placeholders: Vec<Placeholder> = items.iter().map(placeholder).collect();
        let decoder_input_ids = image_tokens::prompt_ids(tokenizer, &text, &[self.image_token], &placeholders)?;
        Ok(Prompt { decoder_input_ids, ..Prompt::default() })
    }

    fn as_generator(&self) -> Option<&dyn ConditionalGenerator> {
        Some(self)
    }

    fn explain(
        &self,
        tokenizer: &Tokenizer,
        media: &EncodedMedia,
        prompt: &Prompt,
        answer: &[i64],
    ) -> Result<Option<Attribution>> {
        let [rows, columns] = self.vision.embeddings.grid.map(|n| n as usize);
        let start = prompt.decoder_input_ids.iter().position(|id| *id == self.image_token).unwrap_or(0);
        let attention = PrefixAttention {
            prefill: self.prefill(Some(media), prompt, answer.len() as i64)?,
            image: (start, media.values.size(1)? as usize),
            grid: [1, rows, columns],
            prompt,
            image_token: Some(self.image_token),
        };
        Ok(Some(attention.attribution(&self.decoder, tokenizer, answer)?))
    }
}

impl ConditionalGenerator for Llava {
    fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn prefill(
        &self,
        media: Option<&EncodedMedia>,
        prompt: &Prompt,
        max_new_tokens: i64,
    ) -> mm_core::Result<Prefill<DecoderState>> {
        let ids = &prompt.decoder_input_ids;
        image_tokens::prefill(&self.decoder, media, ids, &[self.image_token], max_new_tokens, None)
    }

    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        let (image, ids) = (self.encode(batch.modality, batch.values)?.values, batch.decoder_input_ids()?);
        let mut rows = Vec::new();
        for row in 0..ids.size(0)? {
            let own = ids.select(0, row)?.to_vec::<i64>()?;
            let span = ImageSpan::new(&own, self.image_token, image.select(0, row)?)?;
            if span.expanded_ids.len() != own.len() {
                let reason = "found a prompt whose placeholders do not match the number of image features";
                return Err(mm_core::Error::Sample(reason.into()));
            }
            let positions = Tensor::arange(0, own.len() as i64, Device::Cpu)?;
            rows.push((span, positions));
        }
        image_tokens::forward(&self.decoder, ids, rows, batch.train)
    }
}
