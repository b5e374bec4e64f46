//! What BLIP, GIT and other decoders of BERT's kind share: sizes, names, the layer before the scores.

use crate::decoder::DecoderConfig;
use mm_core::nn::{Activation, AttentionConfig, BlockConfig, MlpConfig, NormConfig, NormKind, TransformerConfig};
use mm_repr::{family::WeightMap, text::BERT_WEIGHT_MAP};

/// BERT's sizes.
pub(super) struct Sizes {
    pub(super) vocabulary: i64,
    pub(super) width: i64,
    pub(super) layers: i64,
    pub(super) heads: i64,
    pub(super) hidden: i64,
    pub(super) activation: Activation,
    pub(super) epsilon: f64,
    pub(super) positions: i64,
}

/// A decoder of these sizes; `context` is the width of what its cross-attention looks at.
pub(super) fn decoder(s: &Sizes, causal: bool, context: Option<i64>) -> DecoderConfig {
    let norm = NormConfig { kind: NormKind::Layer, epsilon: s.epsilon, bias: true };
    let attention = AttentionConfig { causal, ..AttentionConfig::new(s.width, s.heads) };
    let cross = context.map(|c| AttentionConfig { context_width: Some(c), ..AttentionConfig::new(s.width, s.heads) });
    let block = BlockConfig { cross, norm, ..BlockConfig::new(attention, MlpConfig::new(s.hidden, s.activation)) };
    let blocks = TransformerConfig { layers: s.layers, block, final_norm: false };
    DecoderConfig { input_norm: Some(norm), head_bias: true, ..DecoderConfig::new(s.vocabulary, s.positions, blocks) }
}

/// BERT's words for the parts of a decoder that is at `place` here and at `there` in the checkpoint.
pub(super) fn names(place: &str, there: &str) -> WeightMap {
    let own = [
        (".embed_tokens.", ".embeddings.word_embeddings."),
        (".embed_positions.", ".embeddings.position_embeddings."),
        (".embed_norm.", ".embeddings.LayerNorm."),
        (".cross_attn.q_proj.", ".crossattention.self.query."),
        (".cross_attn.k_proj.", ".crossattention.self.key."),
        (".cross_attn.v_proj.", ".crossattention.self.value."),
        (".cross_attn.out_proj.", ".crossattention.output.dense."),
        (".layer_norm_cross.", ".crossattention.output.LayerNorm."),
        (".layers.", ".encoder.layers."),
    ];
    let rules =
        own.iter().chain(BERT_WEIGHT_MAP).fold(WeightMap::default(), |n, (from, to)| n.and_within(place, from, to));
    rules.and_within(place, &format!("^{place}"), there)
}
