//! Decoders with Llama's architecture: Llama, Mistral and Qwen2, as language models behind an image encoder.
//!
//! *LLaMA: Open and Efficient Foundation Language Models* (Touvron et al., 2023), <https://arxiv.org/abs/2302.13971>.

use mm_core::nn::{
    Activation, AttentionConfig, BlockConfig, MlpConfig, NormConfig, NormKind, RotaryEmbedding, TransformerConfig,
    decoder::DecoderConfig,
};
use mm_repr::{
    checkpoint_config,
    family::{ModelBuilder, WeightMap},
};
use serde_json::Value;
use std::f64::consts::PI;

checkpoint_config! {
    /// transformers' `LlamaConfig` and those of similar models.
    LlamaConfig {
        vocab_size: i64 = 32000,
        hidden_size: i64 = 4096,
        intermediate_size: i64 = 11008,
        num_hidden_layers: i64 = 32,
        num_attention_heads: i64 = 32,
        num_key_value_heads: Option<i64> = None,
        head_dim: Option<i64> = None,
        hidden_act: Activation = Activation::Silu,
        max_position_embeddings: i64 = 2048,
        rms_norm_eps: f64 = 1e-6,
        attention_bias: bool = false,
        mlp_bias: bool = false,
        rope_theta: f64 = 10_000.0,
        use_sliding_window: bool = false,
    }
}

/// Checkpoint names of a decoder that is under `text.` in the model, under `prefix` in the checkpoint, with its
/// language model head at `head`.
pub(super) fn llama_weight_map(prefix: &str, head: &str) -> WeightMap {
    let rules = [
        ("text.final_layer_norm.", "text.norm."),
        (".self_attn.out_proj.", ".self_attn.o_proj."),
        (".layer_norm1.", ".input_layernorm."),
        (".layer_norm2.", ".post_attention_layernorm."),
        (".mlp.fc1.", ".mlp.gate_proj."),
        (".mlp.gate.", ".mlp.up_proj."),
        (".mlp.fc2.", ".mlp.down_proj."),
        ("^text.head.", head),
        ("^text.", prefix),
    ];
    rules.iter().fold(WeightMap::default(), |map, (from, to)| map.and_within("text.", from, to))
}

/// Sizes of the decoder that `text` describes; `default_theta` is the rotary base where it names none.
pub(super) fn llama_decoder(
    b: &ModelBuilder<'_>,
    text: &Value,
    model_type: &str,
    default_theta: f64,
) -> mm_repr::Result<DecoderConfig> {
    let mut c: LlamaConfig = b.parse_part(text, "text_config")?;
    let qwen2 = model_type.starts_with("qwen2");
    // Defaults of the config classes of the other model types.
    if text["rms_norm_eps"].is_null() && qwen2 {
        c.rms_norm_eps = if model_type == "qwen2_vl" { 1e-5 } else { 1e-6 };
    }
    if text["max_position_embeddings"].is_null() && model_type != "llama" {
        c.max_position_embeddings = 32_768;
    }
    if c.use_sliding_window || (model_type == "mistral" && text["sliding_window"].is_i64()) {
        return Err(b.config_error("text_config: sliding window attention is not supported"));
    }
    let head_dim = c.head_dim.unwrap_or(c.hidden_size / c.num_attention_heads.max(1));
    if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
        let reason = format!("text_config: found heads of {head_dim} dimensions, expected 1 to {MAX_HEAD_DIM}");
        return Err(b.config_error(reason));
    }
    let attention = AttentionConfig {
        causal: true,
        bias: qwen2 || c.attention_bias,
        output_bias: !qwen2 && c.attention_bias,
        num_kv_heads: c.num_key_value_heads,
        head_dim: Some(head_dim),
        ..AttentionConfig::new(c.hidden_size, c.num_attention_heads)
    };
    let norm = NormConfig { kind: NormKind::RmsNorm, eps: c.rms_norm_eps, bias: false };
    let mlp = MlpConfig { hidden_dim: c.intermediate_size, activation: c.hidden_act, gated: true, bias: c.mlp_bias };
    let block = BlockConfig { norm, ..BlockConfig::pre_norm(attention, mlp) };
    let blocks = TransformerConfig::new(c.num_hidden_layers, block);
    Ok(DecoderConfig {
        learned_positions: None,
        rotary: Some(rotary(b, text, head_dim, default_theta)?),
        ..DecoderConfig::new(c.vocab_size, c.max_position_embeddings, blocks)
    })
}

/// Maximum dimension of a head.
const MAX_HEAD_DIM: i64 = 1 << 16;

/// Rotary position embeddings, with the scaling that `rope_parameters` or `rope_scaling` names.
fn rotary(b: &ModelBuilder<'_>, text: &Value, head_dim: i64, default_theta: f64) -> mm_repr::Result<RotaryEmbedding> {
    let rope = if text["rope_parameters"].is_object() { &text["rope_parameters"] } else { &text["rope_scaling"] };
    let theta = rope["rope_theta"].as_f64().or_else(|| text["rope_theta"].as_f64()).unwrap_or(default_theta);
    let inv_freq: Vec<f64> = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
    let float = |key: &str, default: f64| rope[key].as_f64().unwrap_or(default);
    let inv_freq: Vec<f64> = match rope["rope_type"].as_str().or_else(|| rope["type"].as_str()) {
        None | Some("default" | "mrope") => inv_freq,
        Some("linear") => inv_freq.iter().map(|f| f / float("factor", 1.0)).collect(),
        Some("llama3") => {
            let scaling = Llama3Scaling {
                factor: float("factor", 8.0),
                low_freq_factor: float("low_freq_factor", 1.0),
                high_freq_factor: float("high_freq_factor", 4.0),
                original_positions: float("original_max_position_embeddings", 8192.0),
            };
            inv_freq.iter().map(|f| scaling.apply(*f)).collect()
        }
        Some(other) => {
            let reason = format!("text_config: rope_type: found `{other}`, expected default, linear or llama3");
            return Err(b.config_error(reason));
        }
    };
    let mrope_section = rope["mrope_section"].as_array().map(|list| {
        let mut out = [0i64; 3];
        list.iter().take(3).enumerate().for_each(|(i, v)| out[i] = v.as_i64().unwrap_or(0));
        out
    });
    if mrope_section.is_some_and(|section| section.iter().fold(0, |sum: i64, n| sum.saturating_add(*n)) != head_dim / 2)
    {
        let reason = format!("text_config: mrope_section: found {mrope_section:?}, expected a sum of {}", head_dim / 2);
        return Err(b.config_error(reason));
    }
    Ok(RotaryEmbedding { head_dim, inv_freq: inv_freq.iter().map(|f| *f as f32).collect(), mrope_section })
}

/// Llama 3's scaling: low frequencies are divided by a factor, high ones kept, those between interpolated.
struct Llama3Scaling {
    factor: f64,
    low_freq_factor: f64,
    high_freq_factor: f64,
    original_positions: f64,
}

impl Llama3Scaling {
    fn apply(&self, inv_freq: f64) -> f64 {
        let wavelength = 2.0 * PI / inv_freq;
        if wavelength < self.original_positions / self.high_freq_factor {
            inv_freq
        } else if wavelength > self.original_positions / self.low_freq_factor {
            inv_freq / self.factor
        } else {
            let smooth = (self.original_positions / wavelength - self.low_freq_factor)
                / (self.high_freq_factor - self.low_freq_factor);
            (1.0 - smooth) * inv_freq / self.factor + smooth * inv_freq
        }
    }
}
