//! A picture encoder and a text decoder that looks at it: transformers' `VisionEncoderDecoderModel`, of ViT or DeiT and GPT-2 (ViT-GPT2) or
//! TrOCR's decoder (Li 2021).

use super::{EncodedMedia, Prompt, Request, Tokenizer, TrainBatch, Voice};
use crate::{
    Error, Result,
    decoder::{Decoder, DecoderConfig, State},
    generate::Prefill,
};
use mm_core::{
    Encoder, Input, Modality, Module, Processor, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Linear, MlpConfig, NormConfig, NormKind, TransformerConfig,
        sinusoidal,
    },
};
use mm_data::ImageProcessor;
use mm_repr::{
    checkpoint_config,
    family::{Family, ModelBuilder, WeightMap},
    image::{
        preprocessing,
        vit::{VitBackbone, vit_backbone, vit_weight_map},
    },
};
use serde_json::Value;
use std::sync::Arc;

checkpoint_config! {
    /// transformers' `GPT2Config`.
    Gpt2Config {
        vocab_size: i64 = 50257,
        n_positions: i64 = 1024,
        n_embd: i64 = 768,
        n_layer: i64 = 12,
        n_head: i64 = 12,
        n_inner: Option<i64> = None,
        activation_function: Activation = Activation::GeluNew,
        layer_norm_epsilon: f64 = 1e-5,
        scale_attn_weights: bool = true,
        scale_attn_by_inverse_layer_idx: bool = false,
    }
}

checkpoint_config! {
    /// transformers' `TrOCRConfig`.
    TrocrConfig {
        vocab_size: i64 = 50265,
        d_model: i64 = 1024,
        decoder_layers: i64 = 12,
        decoder_attention_heads: i64 = 16,
        decoder_ffn_dim: i64 = 4096,
        activation_function: Activation = Activation::Gelu,
        max_position_embeddings: i64 = 512,
        scale_embedding: bool = false,
        use_learned_position_embeddings: bool = true,
        layernorm_embedding: bool = true,
        pad_token_id: i64 = 1,
        cross_attention_hidden_size: Option<i64> = None,
    }
}

const GPT2_NAMES: &[(&str, &str)] = &[
    ("text.embed_tokens.", "text.transformer.wte."),
    ("text.embed_positions.", "text.transformer.wpe."),
    ("text.final_layer_norm.", "text.transformer.ln_f."),
    ("text.head.", "text.lm_head."),
    ("text.layers.", "text.transformer.h."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".layer_norm_cross.", ".ln_cross_attn."),
    // GPT-2 keeps its weights transposed.
    (".self_attn.q_proj.", ".attn.c_attn.^T#0/3"),
    (".self_attn.k_proj.", ".attn.c_attn.^T#1/3"),
    (".self_attn.v_proj.", ".attn.c_attn.^T#2/3"),
    (".self_attn.out_proj.", ".attn.c_proj.^T"),
    (".cross_attn.q_proj.", ".crossattention.q_attn.^T"),
    (".cross_attn.k_proj.", ".crossattention.c_attn.^T#0/2"),
    (".cross_attn.v_proj.", ".crossattention.c_attn.^T#1/2"),
    (".cross_attn.out_proj.", ".crossattention.c_proj.^T"),
    (".mlp.fc1.", ".mlp.c_fc.^T"),
    (".mlp.fc2.", ".mlp.c_proj.^T"),
    ("^text.", "decoder."),
];

const TROCR_NAMES: &[(&str, &str)] = &[
    ("text.head.", "decoder.output_projection."),
    ("text.embed_norm.", "text.layernorm_embedding."),
    (".layer_norm1.", ".self_attn_layer_norm."),
    (".layer_norm2.", ".final_layer_norm."),
    (".layer_norm_cross.", ".encoder_attn_layer_norm."),
    (".cross_attn.", ".encoder_attn."),
    (".mlp.fc", ".fc"),
    ("^text.", "decoder.model.decoder."),
];

/// The family of this file.
pub(super) const FAMILY: Family<Box<dyn Voice>> = Family {
    model_type: "vision-encoder-decoder",
    weight_map: |c, config| {
        let rules = if config["decoder"]["model_type"] == "gpt2" { GPT2_NAMES } else { TROCR_NAMES };
        let text = rules.iter().fold(WeightMap::default(), |n, (from, to)| n.and_within("text.", from, to));
        text.then(vit_weight_map(c, &["encoder."]).only_within("trunk."))
    },
    build,
};

struct EncoderDecoder {
    vision: VitBackbone,
    projection: Option<Linear>,
    decoder: Decoder,
    processor: Arc<dyn Processor>,
    start: Option<i64>,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn Voice>> {
    let (seen, text) = (&b.config["encoder"], &b.config["decoder"]);
    let kind = |v: &Value| v["model_type"].as_str().unwrap_or_default().to_owned();
    let distilled = match kind(seen).as_str() {
        "vit" => false,
        "deit" => true,
        other => {
            return Err(b.config_error(format!("encoder.model_type: `{other}` is not read here; wanted vit or deit")));
        }
    };
    let vision = vit_backbone(&b.part(seen), distilled)?;
    let (config, context) = match kind(text).as_str() {
        "gpt2" => gpt2(b, text)?,
        "trocr" => trocr(b, text)?,
        other => {
            return Err(b.config_error(format!("decoder.model_type: `{other}` is not read here; wanted gpt2 or trocr")));
        }
    };
    let projection = b.scope.pp("enc_to_dec_proj");
    let projection =
        projection.has("weight").then(|| Linear::new(&projection, vision.width, config.width, true)).transpose()?;
    let given = projection.as_ref().map_or(vision.width, |_| config.width);
    if given != context {
        return Err(
            b.config_error(format!("decoder: looks at features of width {context}, but the encoder gives {given}"))
        );
    }
    let start = ["decoder_start_token_id", "bos_token_id"];
    let start = start.iter().find_map(|k| b.config[*k].as_i64().or(text[*k].as_i64()));
    Ok(Box::new(EncoderDecoder {
        projection,
        decoder: Decoder::new(b, &b.scope.pp("text"), config)?,
        processor: Arc::new(ImageProcessor::new(preprocessing(b)?)),
        start: b.json("generation_config.json")?["decoder_start_token_id"].as_i64().or(start),
        vision,
    }))
}

fn gpt2(b: &ModelBuilder<'_>, config: &Value) -> mm_repr::Result<(DecoderConfig, i64)> {
    let c: Gpt2Config = b.parse_part(config, "decoder")?;
    if c.scale_attn_by_inverse_layer_idx {
        return Err(b.config_error("decoder.scale_attn_by_inverse_layer_idx: true is not read"));
    }
    let scale = (!c.scale_attn_weights).then_some(1.0);
    let attention = |causal| AttentionConfig { causal, scale, ..AttentionConfig::new(c.n_embd, c.n_head) };
    let norm = NormConfig { kind: NormKind::Layer, epsilon: c.layer_norm_epsilon, bias: true };
    let hidden = c.n_inner.unwrap_or(4 * c.n_embd);
    let block = BlockConfig {
        cross: Some(attention(false)),
        norm,
        norm_first: true,
        ..BlockConfig::new(attention(true), MlpConfig::new(hidden, c.activation_function))
    };
    let blocks = TransformerConfig { layers: c.n_layer, block, final_norm: true };
    Ok((DecoderConfig::new(c.vocab_size, c.n_positions, blocks), c.n_embd))
}

fn trocr(b: &ModelBuilder<'_>, config: &Value) -> mm_repr::Result<(DecoderConfig, i64)> {
    let c: TrocrConfig = b.parse_part(config, "decoder")?;
    let context = c.cross_attention_hidden_size.unwrap_or(c.d_model);
    let attention = AttentionConfig::new(c.d_model, c.decoder_attention_heads);
    let norm = NormConfig::default();
    let block = BlockConfig {
        cross: Some(AttentionConfig { context_width: Some(context), ..attention.clone() }),
        norm,
        ..BlockConfig::new(
            AttentionConfig { causal: true, ..attention },
            MlpConfig::new(c.decoder_ffn_dim, c.activation_function),
        )
    };
    // Learned positions begin with two that are not used; made ones come after the padding token's number.
    let fixed = if c.use_learned_position_embeddings {
        None
    } else {
        let table = sinusoidal(c.max_position_embeddings + c.pad_token_id + 1, c.d_model, true, mm_core::Device::Cpu)?;
        Some(table.narrow(0, c.pad_token_id + 1, c.max_position_embeddings)?)
    };
    let blocks = TransformerConfig { layers: c.decoder_layers, block, final_norm: false };
    let config = DecoderConfig {
        positions: c.use_learned_position_embeddings.then_some((c.max_position_embeddings, 2)),
        fixed_positions: fixed,
        scale: if c.scale_embedding { (c.d_model as f64).sqrt() } else { 1.0 },
        input_norm: c.layernorm_embedding.then_some(norm),
        ..DecoderConfig::new(c.vocab_size, c.max_position_embeddings, blocks)
    };
    Ok((config, context))
}

impl Voice for EncoderDecoder {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.processor)
    }

    fn see(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let x = self.vision.encode(&Input { values: values.clone(), mask: None }, false)?.values;
        Ok(EncodedMedia::of(match &self.projection {
            Some(projection) => projection.forward(&x, false)?,
            None => x,
        }))
    }

    fn prompt(&self, tokens: &Tokenizer, _seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<Prompt> {
        let Request::Caption(words) = asked else {
            return Err(Error::invalid_argument(
                "this model",
                "a question",
                "a wish for a caption: it was trained to describe",
            ));
        };
        let start = self.start.or(tokens.special_token_id("bos_token")).or(tokens.special_token_id("cls_token"));
        let start = start.ok_or_else(|| {
            Error::invalid_argument(
                "config.json",
                "no decoder_start_token_id and no bos_token_id",
                "the token that texts begin with",
            )
        })?;
        let mut ids = vec![start];
        if let Some(words) = words {
            ids.extend(tokens.encode(words, false)?);
        }
        Ok(Prompt { ids, goes_on: true, ..Prompt::default() })
    }

    fn begin(&self, seen: Option<&EncodedMedia>, prompt: &Prompt, room: i64) -> mm_core::Result<Prefill<State>> {
        let seen = seen.ok_or_else(|| mm_core::Error::config("this model", "no picture", "a picture"))?;
        let (rows, room) = (seen.values.size(0)?, prompt.ids.len() as i64 + room);
        self.decoder.begin(self.decoder.state(rows, room, Some((seen.values.clone(), None)))?, &prompt.ids)
    }

    fn learn(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Option<Tensor>> {
        let seen = self.see(batch.modality, batch.values)?.values;
        self.decoder.teacher_forcing(batch.decoder_input_ids()?, Some((&seen, None)), batch.train).map(Some)
    }

    fn decoder(&self) -> Option<&Decoder> {
        Some(&self.decoder)
    }
}
