//! CLAP: RoBERTa for text and HTS-AT for audio, projected into one space.
//!
//! *Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption Augmentation* (Wu et
//! al., 2022), <https://arxiv.org/abs/2211.06687>.

mod audio;
mod config;
mod fusion;
mod htsat;
mod projection;
mod text;

use self::{audio::ClapAudioEncoder, config::ClapAudioConfig, projection::Projection};
use super::dual_encoder::scalar_param;
use crate::{
    Result,
    audio::SpectrogramProcessor,
    family::{ContrastiveHead, Family, Model, ModelBuilder, Tower, WeightMap},
    text::transformer::BERT_WEIGHT_MAP,
};

/// The family of this module.
pub(crate) const FAMILIES: &[Family] = &[Family { model_type: "clap", weight_map: |_, _| weight_map(), build }];

fn weight_map() -> WeightMap {
    let text = |map: WeightMap, (from, to): &(&str, &str)| map.and_within("text_model.", from, to);
    let map = BERT_WEIGHT_MAP.iter().fold(WeightMap::default(), text);
    [
        (".self_attn.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
        (".self_attn.q_proj.", ".attention.self.query."),
        (".self_attn.k_proj.", ".attention.self.key."),
        (".self_attn.v_proj.", ".attention.self.value."),
        (".self_attn.out_proj.", ".attention.output.dense."),
        (".layer_norm1.", ".layernorm_before."),
        (".layer_norm2.", ".layernorm_after."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ]
    .iter()
    .fold(map, |map, (from, to)| map.and_within("audio_model.", from, to))
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let text = text::build(b)?;
    let config: ClapAudioConfig = b.parse_part(&b.config["audio_config"], "audio_config")?;
    let projection = Projection::new(b, "audio_projection", config.hidden_size)?;
    let audio = ClapAudioEncoder::new(b, &config, projection)?;
    let logit_scale = scalar_param(&b.scope, "logit_scale_a")?.exp();
    // Also in the checkpoint, not used by transformers' scores.
    scalar_param(&b.scope, "logit_scale_t")?;
    let audio = Tower::new(SpectrogramProcessor::clap(b)?, audio);
    let contrastive_head = Some(ContrastiveHead { logit_scale, logit_bias: None });
    Ok(Model { towers: vec![text, audio], contrastive_head })
}
