//! LLaVA 1.5 (Liu 2023): a layer of CLIP's features, projected, among the words of a language model.

use super::{Attribution, EncodedMedia, Prompt, Request, Tokenizer, TrainBatch, Voice, heat::Back, language};
use crate::{
    Result,
    decoder::{Decoder, State},
    generate::Prefill,
};
use mm_core::{
    Modality, Module, Processor, Tensor,
    nn::{Activation, Linear},
};
use mm_data::ImageProcessor;
use mm_repr::{
    family::{Family, ModelBuilder, WeightMap},
    image::{
        VisionDefaults, VisionVariant, clip_vision_backbone, preprocessing, vision_config,
        vit::{VitBackbone, VitConfig},
    },
};
use std::sync::Arc;

/// The family of this file.
pub(super) const FAMILY: Family<Box<dyn Voice>> = Family {
    model_type: "llava",
    weight_map: |c, config| {
        // transformers 5 put everything below `model.`; before, the language model was a whole of its own.
        let newer = c.names().any(|n| n.starts_with("model."));
        let (text, head, top) = if newer {
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
            .then(language::names(text, head))
    },
    build,
};

struct Llava {
    vision: VitBackbone,
    /// Which layers' features, 0 being what goes into the first.
    layers: Vec<usize>,
    /// Whether the class token stays away.
    cut: bool,
    projector: (Linear, Activation, Linear),
    decoder: Decoder,
    processor: Arc<dyn Processor>,
    image: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn Voice>> {
    let (c, text, seen) = (b.config, &b.config["text_config"], &b.config["vision_config"]);
    let kind = text["model_type"].as_str().unwrap_or("llama");
    if !["llama", "qwen2", "mistral"].contains(&kind) {
        return Err(
            b.config_error(format!("text_config.model_type: `{kind}` is not read; wanted llama, qwen2 or mistral"))
        );
    }
    let siglip = match seen["model_type"].as_str().unwrap_or("clip_vision_model") {
        "clip_vision_model" => false,
        "siglip_vision_model" => true,
        other => {
            return Err(b.config_error(format!(
                "vision_config.model_type: `{other}` is not read; wanted clip_vision_model or siglip_vision_model"
            )));
        }
    };
    let defaults = if siglip {
        VisionDefaults { image: 336, patch: 16, activation: Activation::GeluNew, epsilon: 1e-6 }
    } else {
        VisionDefaults { image: 336, patch: 14, activation: Activation::QuickGelu, epsilon: 1e-5 }
    };
    let sizes = vision_config(b, seen, "vision_config", defaults)?;
    let count = sizes.num_hidden_layers;
    let layers: Vec<i64> = match &c["vision_feature_layer"] {
        serde_json::Value::Array(list) => list.iter().filter_map(serde_json::Value::as_i64).collect(),
        one => vec![one.as_i64().unwrap_or(-2)],
    };
    let layers: Vec<usize> = layers
        .iter()
        .map(|l| {
            let place = if *l < 0 { count + 1 + l } else { *l };
            let inside = usize::try_from(place).ok().filter(|p| *p as i64 <= count);
            inside
                .ok_or_else(|| b.config_error(format!("vision_feature_layer: found {l}, wanted one of {count} layers")))
        })
        .collect::<mm_repr::Result<_>>()?;
    let furthest = layers.iter().copied().max().unwrap_or(0) as i64;
    let shape = VisionVariant { class: !siglip, bias: siglip, first_norm: !siglip, final_norm: false };
    // What comes after the layers that are read is not needed.
    let used = VitConfig { num_hidden_layers: furthest, ..sizes.clone() };
    let trunk = clip_vision_backbone(b, &b.scope.pp("vision"), &used, shape)?;
    let config = language::config(b, text, kind, 10_000.0)?;
    let bias = c["multimodal_projector_bias"].as_bool().unwrap_or(true);
    let activation = serde_json::from_value(c["projector_hidden_act"].clone()).unwrap_or(Activation::Gelu);
    let place = b.scope.pp("projector");
    let image = ["image_token_id", "image_token_index"].iter().find_map(|k| c[*k].as_i64());
    Ok(Box::new(Llava {
        projector: (
            Linear::new(&place.pp("linear_1"), sizes.hidden_size * layers.len() as i64, config.width, bias)?,
            activation,
            Linear::new(&place.pp("linear_2"), config.width, config.width, bias)?,
        ),
        vision: trunk,
        layers,
        cut: c["vision_feature_select_strategy"].as_str().unwrap_or("default") == "default" && !siglip,
        decoder: Decoder::new(b, &b.scope.pp("text"), config)?,
        processor: Arc::new(ImageProcessor::new(preprocessing(b)?)),
        image: image.unwrap_or(32_000),
    }))
}

impl Voice for Llava {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.processor)
    }

    fn see(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let states = self.vision.blocks.hidden_states(&self.vision.embed_patches(values)?, None, false)?;
        let mut chosen = Vec::new();
        for layer in &self.layers {
            let x = &states[*layer];
            chosen.push(if self.cut { x.narrow(1, 1, x.size(1)? - 1)? } else { x.clone() });
        }
        let x = Tensor::cat(&chosen.iter().collect::<Vec<_>>(), -1)?;
        let (first, activation, last) = &self.projector;
        Ok(EncodedMedia::of(last.forward(&first.activate(&x, *activation)?, false)?))
    }

    fn prompt(&self, tokens: &Tokenizer, seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<Prompt> {
        let image = tokens.id_to_token(self.image).unwrap_or_else(|| "<image>".into());
        // How LLaVA 1.5 was trained to be asked.
        let plain = |text: &str, looks: bool| {
            let place = if looks { format!("{image}\n") } else { String::new() };
            format!("USER: {place}{text} ASSISTANT:")
        };
        let text = language::write(tokens, seen.map(|_| "image"), asked, plain)?;
        let features = seen.map_or(Ok(0), |s| s.values.size(1))?;
        Ok(Prompt { ids: language::ids(tokens, &text, self.image, features)?, ..Prompt::default() })
    }

    fn begin(&self, seen: Option<&EncodedMedia>, prompt: &Prompt, room: i64) -> mm_core::Result<Prefill<State>> {
        language::begin(&self.decoder, seen, &prompt.ids, self.image, room, None)
    }

    fn explain(
        &self,
        tokens: &Tokenizer,
        seen: &EncodedMedia,
        prompt: &Prompt,
        said: &[i64],
    ) -> Result<Option<Attribution>> {
        let [down, across] = self.vision.tokens.grid.map(|n| n as usize);
        let first = prompt.ids.iter().position(|id| *id == self.image).unwrap_or(0);
        let places = (first, seen.values.size(1)? as usize);
        let start = self.begin(Some(seen), prompt, said.len() as i64)?;
        let back = Back { start, places, grid: [1, down, across], prompt, placeholder: Some(self.image) };
        Ok(Some(back.heat(&self.decoder, tokens, said)?))
    }

    fn learn(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Option<Tensor>> {
        let (seen, ids) = (self.see(batch.modality, batch.values)?.values, batch.decoder_input_ids()?);
        let mut rows = Vec::new();
        for row in 0..ids.size(0)? {
            let own = ids.select(0, row)?.to_vec::<i64>()?;
            let placed = language::Placed::new(&own, self.image, seen.select(0, row)?)?;
            if placed.read.len() != own.len() {
                return Err(mm_core::Error::Sample("the prompt and the picture do not fit together".into()));
            }
            let places = Tensor::arange(0, own.len() as i64, mm_core::Device::Cpu)?;
            rows.push((placed, places));
        }
        language::learn(&self.decoder, ids, rows, batch.train).map(Some)
    }

    fn decoder(&self) -> Option<&Decoder> {
        Some(&self.decoder)
    }
}
