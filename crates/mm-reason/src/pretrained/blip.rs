//! BLIP: a vision transformer, and BERT with cross-attention to its features as a caption decoder, as a question
//! encoder whose features an answer decoder attends to, or as an encoder for image-text matching.
//!
//! *BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language Understanding and Generation*
//! (Li et al., 2022), <https://arxiv.org/abs/2201.12086>.

use super::{
    attribution::{mean_cross_attention, named_tokens},
    bert_decoder::{BertSizes, bert_weight_map},
    decoder::load_decoder,
    tokenizer::Tokenizer,
    traits::{ConditionalGenerator, MediaEncoder, PretrainedFamily},
    types::{Attribution, EncodedMedia, Prompt, Request, TrainBatch},
};
use crate::{
    Error, Result,
    generate::{GenerationConfig, Prefill, prefill},
};
use mm_core::{
    DType, Encoder, Input, Modality, Module, Processor, Tensor,
    nn::{
        AttentionMaps, ForwardArgs, Linear, Mask,
        decoder::{Decoder, DecoderArgs, DecoderState},
    },
};
use mm_data::ImageProcessor;
use mm_repr::{
    BLIP_VISION_DEFAULTS, BLIP_VISION_VARIANT, BlipTextConfig, blip_vision_weight_map,
    family::{Family, ModelBuilder, WeightMap},
    image::{clip_vision_backbone, preprocessing, vision_config, vit::VitBackbone},
};
use std::sync::Arc;

/// transformers' default of `max_length` for BLIP's text decoder.
const MAX_NEW_TOKENS: usize = 30;

pub(super) const FAMILY: PretrainedFamily = PretrainedFamily {
    family: Family {
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
            // The head is mapped first; what remains below `text_decoder.` is BERT.
            let marked =
                WeightMap::new(&[("^text_decoder.embed", "BODY.embed"), ("^text_decoder.layers", "BODY.layers")]);
            blip_vision_weight_map()
                .then(head)
                .then(marked)
                .then(bert_weight_map("BODY.", "text_decoder.bert."))
                .then(bert_weight_map("text_encoder.", "text_encoder."))
        },
        build,
    },
    classifier_prefix: None,
};

/// The parts for image-text matching, which a generator has too.
struct Blip {
    vision: VitBackbone,
    /// Encoder of a question, or of a text to be matched.
    text_encoder: Option<Decoder>,
    itm_head: Option<Linear>,
    processor: Arc<dyn Processor>,
    bos_token_id: i64,
    sep_token_id: i64,
}

/// BLIP with a text decoder: for captions, or with a text encoder for questions.
struct BlipGenerator {
    blip: Blip,
    decoder: Decoder,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn MediaEncoder>> {
    let text: BlipTextConfig = b.parse_part(&b.config["text_config"], "text_config")?;
    let vit = vision_config(b, &b.config["vision_config"], "vision_config", BLIP_VISION_DEFAULTS)?;
    let vision_dim = vit.hidden_size;
    let vision = clip_vision_backbone(b, &b.scope.pp("vision_model"), &vit, BLIP_VISION_VARIANT)?;
    let sizes = BertSizes {
        vocab_size: text.vocab_size,
        dim: text.hidden_size,
        num_layers: text.num_hidden_layers,
        num_heads: text.num_attention_heads,
        intermediate_dim: text.intermediate_size,
        activation: text.hidden_act,
        norm_eps: text.layer_norm_eps,
        max_positions: text.max_position_embeddings,
    };
    let has = |part: &str| b.checkpoint.names().any(|name| name.starts_with(part));
    let (has_encoder, has_decoder) = (has("text_encoder."), has("text_decoder."));
    if !has_encoder && !has_decoder {
        return Err(b.config_error(
            "found neither text_decoder nor text_encoder in the checkpoint; expected BLIP for captioning, question \
             answering or retrieval",
        ));
    }
    let text_encoder = has_encoder.then(|| {
        let mut config = sizes.decoder(false, Some(vision_dim));
        config.head_bias = false;
        load_decoder(b, &b.scope.pp("text_encoder"), config)
    });
    let text_encoder = text_encoder.transpose()?;
    let decoder = has_decoder.then(|| {
        let mut config = sizes.decoder(true, Some(if has_encoder { text.hidden_size } else { vision_dim }));
        config.head_transform = config.embed_norm.map(|norm| (text.hidden_act, norm));
        load_decoder(b, &b.scope.pp("text_decoder"), config)
    });
    let decoder = decoder.transpose()?;
    let itm_head = b.scope.pp("itm_head");
    let itm_head = itm_head.has("weight").then(|| Linear::new(&itm_head, text.hidden_size, 2, true)).transpose()?;
    let blip = Blip {
        vision,
        text_encoder,
        itm_head,
        processor: Arc::new(ImageProcessor::new(preprocessing(b)?)),
        bos_token_id: text.bos_token_id,
        sep_token_id: text.sep_token_id,
    };
    Ok(match decoder {
        Some(decoder) => Box::new(BlipGenerator { blip, decoder }),
        None => Box::new(blip),
    })
}

/// Features `[1, tokens, dim]` of a question that attends to the image.
fn encode_question(
    encoder: &Decoder,
    media: &EncodedMedia,
    ids: &[i64],
    attention_maps: Option<&mut Vec<AttentionMaps>>,
) -> mm_core::Result<Tensor> {
    let ids = Tensor::from_vec(ids, &[1, ids.len() as i64])?.to_device(media.values.device())?;
    let mut state = encoder.init_state(1, ids.size(1)?, Some((media.values.clone(), None)))?;
    let args = DecoderArgs { bidirectional: true, attention_maps, ..DecoderArgs::default() };
    encoder.forward(&encoder.embed(&ids, 0)?, &mut state, args)
}

/// Attention maps of a decoder for these tokens and this context of its cross-attention.
fn decoder_attention(decoder: &Decoder, ids: &[i64], context: Tensor) -> mm_core::Result<Vec<AttentionMaps>> {
    let mut maps = Vec::new();
    let ids = Tensor::from_vec(ids, &[1, ids.len() as i64])?.to_device(context.device())?;
    let mut state = decoder.init_state(1, ids.size(1)?, Some((context, None)))?;
    let args = DecoderArgs { attention_maps: Some(&mut maps), ..DecoderArgs::default() };
    decoder.forward(&decoder.embed(&ids, 0)?, &mut state, args)?;
    Ok(maps)
}

impl Blip {
    /// The attribution from attention maps to the image, whose first position is the class token.
    fn attribution(&self, image_maps: &[AttentionMaps], words: Vec<(String, f32)>) -> mm_core::Result<Attribution> {
        let patches = mean_cross_attention(image_maps)?.get(1..).map(<[f32]>::to_vec).unwrap_or_default();
        let grid = self.vision.embeddings.grid.map(|n| n as usize);
        Ok(Attribution { patches, grid, words, steps: Vec::new() })
    }
}

impl MediaEncoder for Blip {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.processor)
    }

    fn encode(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let input = Input { values: values.clone(), mask: None };
        Ok(EncodedMedia::new(self.vision.encode(&input, false)?.values))
    }

    fn prompt(&self, tokenizer: &Tokenizer, _media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        let unsupported =
            |found: &str, expected: &str| Err(Error::invalid_argument("request to BLIP", found, expected));
        match request {
            Request::Caption(start) if self.text_encoder.is_none() => {
                let mut ids = vec![self.bos_token_id];
                if let Some(start) = start {
                    // Without the tokenizer's own first and last special tokens.
                    let tokens = tokenizer.encode(start, true)?;
                    ids.extend(tokens.get(1..tokens.len().saturating_sub(1)).unwrap_or_default());
                }
                Ok(Prompt { decoder_input_ids: ids, part_of_output: true, ..Prompt::default() })
            }
            Request::Question(question) if self.text_encoder.is_some() => Ok(Prompt {
                decoder_input_ids: vec![self.bos_token_id],
                question_ids: tokenizer.encode(question, true)?,
                part_of_output: false,
            }),
            Request::Caption(_) => unsupported("a caption", "a question: this checkpoint answers questions"),
            Request::Question(_) => unsupported("a question", "a caption: this checkpoint captions images"),
            _ => unsupported("a conversation or a transcription", "a caption or a question"),
        }
    }

    fn itm_score(&self, media: &EncodedMedia, prompt: &Prompt) -> mm_core::Result<Option<f64>> {
        let (Some(encoder), Some(head)) = (&self.text_encoder, &self.itm_head) else { return Ok(None) };
        let hidden = encode_question(encoder, media, &prompt.question_ids, None)?;
        let logits = head.forward(&hidden.select(1, 0)?, false)?.to_dtype(DType::F64)?.softmax(-1)?;
        Ok(Some(logits.to_vec::<f64>()?[1]))
    }

    fn explain(
        &self,
        _tokenizer: &Tokenizer,
        media: &EncodedMedia,
        prompt: &Prompt,
        _answer: &[i64],
    ) -> Result<Option<Attribution>> {
        let mut maps = Vec::new();
        if let Some(encoder) = &self.text_encoder {
            encode_question(encoder, media, &prompt.question_ids, Some(&mut maps))?;
        }
        Ok(Some(self.attribution(&maps, Vec::new())?))
    }
}

impl MediaEncoder for BlipGenerator {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        self.blip.processor(modality)
    }

    fn encode(&self, modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        self.blip.encode(modality, values)
    }

    fn prompt(&self, tokenizer: &Tokenizer, media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        self.blip.prompt(tokenizer, media, request)
    }

    fn as_generator(&self) -> Option<&dyn ConditionalGenerator> {
        Some(self)
    }

    fn itm_score(&self, media: &EncodedMedia, prompt: &Prompt) -> mm_core::Result<Option<f64>> {
        self.blip.itm_score(media, prompt)
    }

    fn explain(
        &self,
        tokenizer: &Tokenizer,
        media: &EncodedMedia,
        prompt: &Prompt,
        answer: &[i64],
    ) -> Result<Option<Attribution>> {
        let ids = [&prompt.decoder_input_ids, answer].concat();
        let Some(encoder) = &self.blip.text_encoder else {
            let maps = decoder_attention(&self.decoder, &ids, media.values.clone())?;
            return Ok(Some(self.blip.attribution(&maps, Vec::new())?));
        };
        let mut image_maps = Vec::new();
        let question = encode_question(encoder, media, &prompt.question_ids, Some(&mut image_maps))?;
        let question_attention = mean_cross_attention(&decoder_attention(&self.decoder, &ids, question)?)?;
        let words = named_tokens(tokenizer, &prompt.question_ids, &question_attention);
        Ok(Some(self.blip.attribution(&image_maps, words)?))
    }
}

impl ConditionalGenerator for BlipGenerator {
    fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn prefill(
        &self,
        media: Option<&EncodedMedia>,
        prompt: &Prompt,
        max_new_tokens: i64,
    ) -> mm_core::Result<Prefill<DecoderState>> {
        let media = media.ok_or_else(|| mm_core::Error::config("input of BLIP", "no image", "an image"))?;
        let context = match &self.blip.text_encoder {
            Some(encoder) => encode_question(encoder, media, &prompt.question_ids, None)?,
            None => media.values.clone(),
        };
        let (rows, capacity) = (context.size(0)?, prompt.decoder_input_ids.len() as i64 + max_new_tokens);
        let state = self.decoder.init_state(rows, capacity, Some((context, None)))?;
        prefill(&self.decoder, state, &prompt.decoder_input_ids)
    }

    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        let image = self.encode(batch.modality, batch.values)?.values;
        let (ids, train) = (batch.decoder_input_ids()?, batch.train);
        let Some(encoder) = &self.blip.text_encoder else {
            return self.decoder.teacher_forcing(ids, Some((&image, None)), train);
        };
        let question = batch.question()?;
        let mask = question.mask.clone().map(Mask::Padding);
        let (context, embedded) = (Some((&image, None)), encoder.embed(&question.values, 0)?);
        let pass = ForwardArgs { mask: mask.as_ref(), context, bidirectional: true, train, ..ForwardArgs::default() };
        let question = encoder.forward_uncached(&embedded, pass)?;
        self.decoder.teacher_forcing(ids, Some((&question, mask.as_ref())), train)
    }

    fn adjust_config(&self, config: &mut GenerationConfig) {
        config.eos_token_id = vec![self.blip.sep_token_id];
        config.max_new_tokens = config.max_new_tokens.min(MAX_NEW_TOKENS);
    }
}
