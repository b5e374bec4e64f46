//! An image encoder and a text decoder with cross-attention to it, transformers' `VisionEncoderDecoderModel`: ViT or
//! DeiT with GPT-2 (ViT-GPT2) or with `TrOCR`'s decoder.
//!
//! *TrOCR: Transformer-based Optical Character Recognition with Pre-trained Models* (Li et al., 2021),
//! <https://arxiv.org/abs/2109.10282>.

use super::{
    decoder::load_decoder,
    tokenizer::Tokenizer,
    traits::{ConditionalGenerator, MediaEncoder, PretrainedFamily},
    types::{EncodedMedia, Prompt, Request, TrainBatch},
};
use crate::{
    Error, Result,
    generate::{Prefill, prefill},
};
use mm_core::{
    Device, Encoder, Input, Modality, Module, Processor, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Linear, MlpConfig, NormConfig, NormKind, TransformerConfig,
        decoder::{Decoder, DecoderConfig, DecoderState, LearnedPositions},
        sinusoidal_positions,
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

/// GPT-2 stores its weights transposed (`^T`).
const GPT2_WEIGHT_MAP: &[(&str, &str)] = &[
    ("text.embed_tokens.", "text.transformer.wte."),
    ("text.embed_positions.", "text.transformer.wpe."),
    ("text.final_layer_norm.", "text.transformer.ln_f."),
    ("text.head.", "text.lm_head."),
    ("text.layers.", "text.transformer.h."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".layer_norm_cross.", ".ln_cross_attn."),
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

const TROCR_WEIGHT_MAP: &[(&str, &str)] = &[
    ("text.head.", "decoder.output_projection."),
    ("text.embed_norm.", "text.layernorm_embedding."),
    (".layer_norm1.", ".self_attn_layer_norm."),
    (".layer_norm2.", ".final_layer_norm."),
    (".layer_norm_cross.", ".encoder_attn_layer_norm."),
    (".cross_attn.", ".encoder_attn."),
    (".mlp.fc", ".fc"),
    ("^text.", "decoder.model.decoder."),
];

/// Unused entries at the start of `TrOCR`'s table of learned positions.
const TROCR_POSITION_OFFSET: i64 = 2;

pub(super) const FAMILY: PretrainedFamily = PretrainedFamily {
    family: Family {
        model_type: "vision-encoder-decoder",
        weight_map: |c, config| {
            let gpt2 = config["decoder"]["model_type"] == "gpt2";
            let rules = if gpt2 { GPT2_WEIGHT_MAP } else { TROCR_WEIGHT_MAP };
            let text = rules.iter().fold(WeightMap::default(), |map, (from, to)| map.and_within("text.", from, to));
            text.then(vit_weight_map(c, &["encoder."]).only_within("backbone."))
        },
        build,
    },
    classifier_prefix: None,
};

struct VisionEncoderDecoder {
    vision: VitBackbone,
    projection: Option<Linear>,
    decoder: Decoder,
    processor: Arc<dyn Processor>,
    decoder_start_token_id: Option<i64>,
}

fn model_type(config: &Value) -> &str {
    config["model_type"].as_str().unwrap_or_default()
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn MediaEncoder>> {
    let (encoder, text) = (&b.config["encoder"], &b.config["decoder"]);
    let distilled = match model_type(encoder) {
        "vit" => false,
        "deit" => true,
        other => return Err(b.config_error(format!("encoder.model_type: found `{other}`, expected vit or deit"))),
    };
    let vision = vit_backbone(&b.part(encoder), distilled)?;
    let (config, context_dim) = match model_type(text) {
        "gpt2" => gpt2(b, text)?,
        "trocr" => trocr(b, text)?,
        other => return Err(b.config_error(format!("decoder.model_type: found `{other}`, expected gpt2 or trocr"))),
    };
    let projection = b.scope.pp("enc_to_dec_proj");
    let projection = projection.has("weight").then(|| Linear::new(&projection, vision.embed_dim, config.dim, true));
    let projection = projection.transpose()?;
    let encoder_dim = projection.as_ref().map_or(vision.embed_dim, |_| config.dim);
    if encoder_dim != context_dim {
        return Err(b.config_error(format!(
            "decoder: cross-attention takes features of dimension {context_dim}, the encoder returns {encoder_dim}"
        )));
    }
    let own = b.json("generation_config.json")?;
    let in_config = ["decoder_start_token_id", "bos_token_id"];
    let in_config = in_config.iter().find_map(|key| b.config[*key].as_i64().or(text[*key].as_i64()));
    Ok(Box::new(VisionEncoderDecoder {
        projection,
        decoder: load_decoder(b, &b.scope.pp("text"), config)?,
        processor: Arc::new(ImageProcessor::new(preprocessing(b)?)),
        decoder_start_token_id: own["decoder_start_token_id"].as_i64().or(in_config),
        vision,
    }))
}

/// Sizes of GPT-2's decoder, and the dimension of its cross-attention's context.
fn gpt2(b: &ModelBuilder<'_>, config: &Value) -> mm_repr::Result<(DecoderConfig, i64)> {
    let c: Gpt2Config = b.parse_part(config, "decoder")?;
    if c.scale_attn_by_inverse_layer_idx {
        return Err(b.config_error("decoder.scale_attn_by_inverse_layer_idx: true is not supported"));
    }
    let scale = (!c.scale_attn_weights).then_some(1.0);
    let attention = |causal| AttentionConfig { causal, scale, ..AttentionConfig::new(c.n_embd, c.n_head) };
    let norm = NormConfig { kind: NormKind::LayerNorm, eps: c.layer_norm_epsilon, bias: true };
    let hidden = c.n_inner.unwrap_or(4 * c.n_embd);
    let block = BlockConfig {
        cross_attention: Some(attention(false)),
        norm,
        ..BlockConfig::pre_norm(attention(true), MlpConfig::new(hidden, c.activation_function))
    };
    let blocks = TransformerConfig::new(c.n_layer, block);
    Ok((DecoderConfig::new(c.vocab_size, c.n_positions, blocks), c.n_embd))
}

/// Sizes of `TrOCR`'s decoder, and the dimension of its cross-attention's context.
fn trocr(b: &ModelBuilder<'_>, config: &Value) -> mm_repr::Result<(DecoderConfig, i64)> {
    let c: TrocrConfig = b.parse_part(config, "decoder")?;
    let context_dim = c.cross_attention_hidden_size.unwrap_or(c.d_model);
    let attention = AttentionConfig::new(c.d_model, c.decoder_attention_heads);
    let norm = NormConfig::default();
    let block = BlockConfig {
        cross_attention: Some(AttentionConfig { context_dim: Some(context_dim), ..attention.clone() }),
        norm,
        ..BlockConfig::post_norm(
            AttentionConfig { causal: true, ..attention },
            MlpConfig::new(c.decoder_ffn_dim, c.activation_function),
        )
    };
    let count = c.max_position_embeddings;
    // Sinusoidal positions start after the index of the padding token.
    let fixed_positions = if c.use_learned_position_embeddings {
        None
    } else {
        let table = sinusoidal_positions(count + c.pad_token_id + 1, c.d_model, true, Device::Cpu)?;
        Some(table.narrow(0, c.pad_token_id + 1, count)?)
    };
    let learned = LearnedPositions { count, offset: TROCR_POSITION_OFFSET };
    let blocks = TransformerConfig::new(c.decoder_layers, block);
    let config = DecoderConfig {
        learned_positions: c.use_learned_position_embeddings.then_some(learned),
        fixed_positions,
        embed_scale: if c.scale_embedding { (c.d_model as f64).sqrt() } else { 1.0 },
        embed_norm: c.layernorm_embedding.then_some(norm),
        ..DecoderConfig::new(c.vocab_size, count, blocks)
    };
    Ok((config, context_dim))
}

impl MediaEncoder for VisionEncoderDecoder {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.processor)
    }

    fn encode(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let x = self.vision.encode(&Input { values: values.clone(), mask: None }, false)?.values;
        Ok(EncodedMedia::new(match &self.projection {
            Some(projection) => projection.forward(&x, false)?,
            None => x,
        }))
    }

    fn prompt(&self, tokenizer: &Tokenizer, _media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        let Request::Caption(text) = request else {
            let expected = "a caption: the model captions images";
            return Err(Error::invalid_argument("request to this model", "not a caption", expected));
        };
        let start = self.decoder_start_token_id;
        let start = start.or(tokenizer.special_token_id("bos_token")).or(tokenizer.special_token_id("cls_token"));
        let start = start.ok_or_else(|| {
            let found = "neither decoder_start_token_id nor bos_token_id";
            Error::invalid_argument("config.json", found, "the token that a text starts with")
        })?;
        let mut ids = vec![start];
        if let Some(text) = text {
            ids.extend(tokenizer.encode(text, false)?);
        }
        Ok(Prompt { decoder_input_ids: ids, part_of_output: true, ..Prompt::default() })
    }

    fn as_generator(&self) -> Option<&dyn ConditionalGenerator> {
        Some(self)
    }
}

impl ConditionalGenerator for VisionEncoderDecoder {
    fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn prefill(
        &self,
        media: Option<&EncodedMedia>,
        prompt: &Prompt,
        max_new_tokens: i64,
    ) -> mm_core::Result<Prefill<DecoderState>> {
        let media = media.ok_or_else(|| mm_core::Error::config("input of this model", "no image", "an image"))?;
        let (rows, ids) = (media.values.size(0)?, &prompt.decoder_input_ids);
        let context = Some((media.values.clone(), None));
        let state = self.decoder.init_state(rows, ids.len() as i64 + max_new_tokens, context)?;
        prefill(&self.decoder, state, ids)
    }

    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        let image = self.encode(batch.modality, batch.values)?.values;
        self.decoder.teacher_forcing(batch.decoder_input_ids()?, Some((&image, None)), batch.train)
    }
}
