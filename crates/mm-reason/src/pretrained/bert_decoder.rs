//! BERT as a decoder, as BLIP and GIT have it.

use mm_core::nn::{
    Activation, AttentionConfig, BlockConfig, MlpConfig, NormConfig, NormKind, TransformerConfig,
    decoder::DecoderConfig,
};
use mm_repr::{family::WeightMap, text::BERT_WEIGHT_MAP};

/// Sizes of a BERT model.
pub(super) struct BertSizes {
    pub(super) vocab_size: i64,
    pub(super) dim: i64,
    pub(super) num_layers: i64,
    pub(super) num_heads: i64,
    pub(super) intermediate_dim: i64,
    pub(super) activation: Activation,
    pub(super) norm_eps: f64,
    pub(super) max_positions: i64,
}

impl BertSizes {
    /// A decoder of these sizes, with cross-attention to a context of dimension `context_dim`.
    pub(super) fn decoder(&self, causal: bool, context_dim: Option<i64>) -> DecoderConfig {
        let norm = NormConfig { kind: NormKind::LayerNorm, eps: self.norm_eps, bias: true };
        let attention = || AttentionConfig::new(self.dim, self.num_heads);
        let cross = context_dim.map(|dim| AttentionConfig { context_dim: Some(dim), ..attention() });
        let mlp = MlpConfig::new(self.intermediate_dim, self.activation);
        let block = BlockConfig {
            cross_attention: cross,
            norm,
            ..BlockConfig::post_norm(AttentionConfig { causal, ..attention() }, mlp)
        };
        let blocks = TransformerConfig::new(self.num_layers, block);
        DecoderConfig {
            embed_norm: Some(norm),
            head_bias: true,
            ..DecoderConfig::new(self.vocab_size, self.max_positions, blocks)
        }
    }
}

/// Checkpoint names of a decoder that is under `ours` in the model and under `theirs` in the checkpoint.
pub(super) fn bert_weight_map(ours: &str, theirs: &str) -> WeightMap {
    let rules = [
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
    let all = rules.iter().chain(BERT_WEIGHT_MAP);
    let map = all.fold(WeightMap::default(), |map, (from, to)| map.and_within(ours, from, to));
    map.and_within(ours, &format!("^{ours}"), theirs)
}
