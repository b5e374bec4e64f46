//! BLIP (Li 2022): a vision transformer, and BERT that looks at it: as a decoder that describes, as an encoder of a question whose features
//! a decoder answers from, as an encoder that says whether picture and text belong together.

use super::{Attribution, EncodedMedia, Prompt, Request, Tokenizer, TrainBatch, Voice, bert, heat};
use crate::{
    Error, Result,
    decoder::{Decoder, Reading, State},
    generate::{GenerationConfig, Prefill},
};
use mm_core::{
    DType, Encoder, Input, Modality, Module, Processor, Tensor,
    nn::{AttentionMaps, ForwardArgs, Linear, Mask},
};
use mm_data::ImageProcessor;
use mm_repr::{
    BLIP_VISION_DEFAULTS, BLIP_VISION_VARIANT, BlipTextConfig, blip_vision_weight_map,
    family::{Family, ModelBuilder, WeightMap},
    image::{clip_vision_backbone, preprocessing, vision_config, vit::VitBackbone},
};
use std::sync::Arc;

/// The family of this file.
pub(super) const FAMILY: Family<Box<dyn Voice>> = Family {
    model_type: "blip",
    weight_map: |c, _| {
        let bias = if c.shape("text_decoder.cls.predictions.bias").is_some() { "" } else { "decoder." };
        let head = WeightMap::new(&[
            ("text_decoder.transform.dense.", "text_decoder.cls.predictions.transform.dense."),
            ("text_decoder.transform.norm.", "text_decoder.cls.predictions.transform.LayerNorm."),
            ("text_decoder.head.weight", "text_decoder.cls.predictions.decoder.weight"),
        ])
        .and_within(
            "text_decoder.",
            "^text_decoder.head.bias",
            &format!("text_decoder.cls.predictions.{bias}bias"),
        );
        // Heads first: what is left below `text_decoder.` is BERT's.
        let marked = WeightMap::new(&[("^text_decoder.embed", "BODY.embed"), ("^text_decoder.layers", "BODY.layers")]);
        blip_vision_weight_map()
            .then(head)
            .then(marked)
            .then(bert::names("BODY.", "text_decoder.bert."))
            .then(bert::names("text_encoder.", "text_encoder."))
    },
    build,
};

struct Blip {
    vision: VitBackbone,
    /// Of a question, or of a text to be matched.
    encoder: Option<Decoder>,
    decoder: Option<Decoder>,
    matching: Option<Linear>,
    processor: Arc<dyn Processor>,
    start: i64,
    end: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn Voice>> {
    let text: BlipTextConfig = b.parse_part(&b.config["text_config"], "text_config")?;
    let vit = vision_config(b, &b.config["vision_config"], "vision_config", BLIP_VISION_DEFAULTS)?;
    let width = vit.hidden_size;
    let trunk = clip_vision_backbone(b, &b.scope.pp("vision_model"), &vit, BLIP_VISION_VARIANT)?;
    let sizes = bert::Sizes {
        vocabulary: text.vocab_size,
        width: text.hidden_size,
        layers: text.num_hidden_layers,
        heads: text.num_attention_heads,
        hidden: text.intermediate_size,
        activation: text.hidden_act,
        epsilon: text.layer_norm_eps,
        positions: text.max_position_embeddings,
    };
    let has = |part: &str| b.checkpoint.names().any(|n| n.starts_with(part));
    let (asks, speaks) = (has("text_encoder."), has("text_decoder."));
    if !asks && !speaks {
        return Err(b.config_error("neither a text_decoder nor a text_encoder is in the checkpoint; wanted BLIP for captions, questions or retrieval"));
    }
    let encoder = asks.then(|| {
        let mut config = bert::decoder(&sizes, false, Some(width));
        config.head_bias = false;
        Decoder::new(b, &b.scope.pp("text_encoder"), config)
    });
    let decoder = speaks.then(|| {
        let seen = if asks { text.hidden_size } else { width };
        let mut config = bert::decoder(&sizes, true, Some(seen));
        config.transform = config.input_norm.map(|norm| (text.hidden_act, norm));
        Decoder::new(b, &b.scope.pp("text_decoder"), config)
    });
    let matching = b.scope.pp("itm_head");
    let matching = matching.has("weight").then(|| Linear::new(&matching, text.hidden_size, 2, true)).transpose()?;
    Ok(Box::new(Blip {
        vision: trunk,
        encoder: encoder.transpose()?,
        decoder: decoder.transpose()?,
        matching,
        processor: Arc::new(ImageProcessor::new(preprocessing(b)?)),
        start: text.bos_token_id,
        end: text.sep_token_id,
    }))
}

impl Blip {
    /// Features `[1, tokens, width]` of a question that looks at the picture.
    fn question(
        encoder: &Decoder,
        seen: &EncodedMedia,
        ids: &[i64],
        weights: Option<&mut Vec<AttentionMaps>>,
    ) -> mm_core::Result<Tensor> {
        let ids = Tensor::from_vec(ids, &[1, ids.len() as i64])?.to_device(seen.values.device())?;
        let mut state = encoder.state(1, ids.size(1)?, Some((seen.values.clone(), None)))?;
        let x = encoder.embed(&ids, 0)?;
        encoder.read(&x, &mut state, Reading { open: true, weights, ..Reading::default() })
    }
}

impl Voice for Blip {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.processor)
    }

    fn see(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let values = self.vision.encode(&Input { values: values.clone(), mask: None }, false)?.values;
        Ok(EncodedMedia::of(values))
    }

    fn prompt(&self, tokens: &Tokenizer, _seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<Prompt> {
        match asked {
            Request::Caption(words) if self.encoder.is_none() => {
                let mut ids = vec![self.start];
                if let Some(words) = words {
                    // The tokenizer's own first token gives its place to the decoder's, and its last is left away.
                    let read = tokens.encode(words, true)?;
                    ids.extend(read.get(1..read.len().saturating_sub(1)).unwrap_or_default());
                }
                Ok(Prompt { ids, goes_on: true, ..Prompt::default() })
            }
            Request::Question(question) if self.encoder.is_some() => {
                Ok(Prompt { ids: vec![self.start], question: tokens.encode(question, true)?, goes_on: false })
            }
            Request::Caption(_) => Err(Error::invalid_argument(
                "this BLIP",
                "a wish for a caption",
                "a question: it was trained to answer",
            )),
            Request::Question(_) => Err(Error::invalid_argument(
                "this BLIP",
                "a question",
                "a wish for a caption: it was trained to describe",
            )),
            _ => Err(Error::invalid_argument(
                "a BLIP",
                "something else than a picture to describe or to ask about",
                "that",
            )),
        }
    }

    fn begin(&self, seen: Option<&EncodedMedia>, prompt: &Prompt, room: i64) -> mm_core::Result<Prefill<State>> {
        let missing = |what: &str| mm_core::Error::config("this BLIP", what.to_owned(), "a picture and a decoder");
        let seen = seen.ok_or_else(|| missing("no picture"))?;
        let decoder = self.decoder.as_ref().ok_or_else(|| missing("a checkpoint that only matches"))?;
        let context = match &self.encoder {
            Some(encoder) => Self::question(encoder, seen, &prompt.question, None)?,
            None => seen.values.clone(),
        };
        let (rows, room) = (context.size(0)?, prompt.ids.len() as i64 + room);
        decoder.begin(decoder.state(rows, room, Some((context, None)))?, &prompt.ids)
    }

    fn decoder(&self) -> Option<&Decoder> {
        self.decoder.as_ref()
    }

    fn learn(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Option<Tensor>> {
        let Some(decoder) = &self.decoder else { return Ok(None) };
        let seen = self.see(batch.modality, batch.values)?.values;
        let Some(encoder) = &self.encoder else {
            return decoder.teacher_forcing(batch.decoder_input_ids()?, Some((&seen, None)), batch.train).map(Some);
        };
        let question = batch.question.ok_or_else(|| mm_core::Error::Sample("no question".into()))?;
        let mask = question.mask.clone().map(Mask::Padding);
        let (context, train) = (Some((&seen, None)), batch.train);
        let pass = ForwardArgs { mask: mask.as_ref(), context, open: true, train, ..ForwardArgs::default() };
        let asked = encoder.pass(&encoder.embed(&question.values, 0)?, pass)?;
        decoder.teacher_forcing(batch.decoder_input_ids()?, Some((&asked, mask.as_ref())), batch.train).map(Some)
    }

    fn matches(&self, seen: &EncodedMedia, prompt: &Prompt) -> mm_core::Result<Option<f64>> {
        let (Some(encoder), Some(head)) = (&self.encoder, &self.matching) else { return Ok(None) };
        let hidden = Self::question(encoder, seen, &prompt.question, None)?;
        let logits = head.forward(&hidden.select(1, 0)?, false)?.to_dtype(DType::F64)?.softmax(-1)?;
        Ok(Some(logits.to_vec::<f64>()?[1]))
    }

    fn explain(
        &self,
        tokens: &Tokenizer,
        seen: &EncodedMedia,
        prompt: &Prompt,
        said: &[i64],
    ) -> Result<Option<Attribution>> {
        let all: Vec<i64> = prompt.ids.iter().chain(said).copied().collect();
        // Where the decoder looks while it says that.
        let saying = |decoder: &Decoder, context: Tensor| -> mm_core::Result<Vec<AttentionMaps>> {
            let mut looked = Vec::new();
            let ids = Tensor::from_vec(&all, &[1, all.len() as i64])?.to_device(context.device())?;
            let mut state = decoder.state(1, all.len() as i64, Some((context, None)))?;
            let reading = Reading { weights: Some(&mut looked), ..Reading::default() };
            decoder.read(&decoder.embed(&ids, 0)?, &mut state, reading)?;
            Ok(looked)
        };
        let mut looked = Vec::new();
        let mut words = Vec::new();
        match (&self.encoder, &self.decoder) {
            (Some(encoder), decoder) => {
                let features = Self::question(encoder, seen, &prompt.question, Some(&mut looked))?;
                if let Some(decoder) = decoder {
                    // How much the answer read each word of the question.
                    words = heat::words(tokens, &prompt.question, &heat::mean(&saying(decoder, features)?)?);
                }
            }
            (None, Some(decoder)) => looked = saying(decoder, seen.values.clone())?,
            (None, None) => {}
        }
        // The first of the picture's places is the class token.
        let patches = heat::mean(&looked)?.get(1..).map(<[f32]>::to_vec).unwrap_or_default();
        Ok(Some(Attribution { patches, grid: self.vision.tokens.grid.map(|n| n as usize), words, steps: Vec::new() }))
    }

    fn settle(&self, config: &mut GenerationConfig) {
        config.eos_token_id = vec![self.end];
        config.max_new_tokens = config.max_new_tokens.min(30);
    }
}
