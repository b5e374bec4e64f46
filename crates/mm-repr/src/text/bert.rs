//! BERT (Devlin 2018): word, position and segment embeddings, a normalisation, post-norm blocks.
//! A family is a description: its config, what it gives the shared block, its name map, its embeddings.

use mm_core::{
    Encoder, Features, Input, Modality, Module, Result, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Embedding, Mask, MlpConfig, Norm, NormConfig, NormKind, Transformer,
        TransformerConfig,
    },
};
use serde::Deserialize;

/// What transformers writes into `config.json` (fields that do not change the features are not read).
#[derive(Debug, Clone, Deserialize)]
pub struct BertConfig {
    /// Entries of the word table.
    pub vocab_size: i64,
    /// Width of the features.
    pub hidden_size: i64,
    /// Number of blocks.
    pub num_hidden_layers: i64,
    /// Heads of each.
    pub num_attention_heads: i64,
    /// Width inside each block's network.
    pub intermediate_size: i64,
    /// What stands inside each block's network.
    #[serde(default)]
    pub hidden_act: Activation,
    /// Longest text, in tokens.
    pub max_position_embeddings: i64,
    /// Entries of the segment table.
    #[serde(default = "two")]
    pub type_vocab_size: i64,
    /// Added to the variance in normalisations.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// Rate of dropout while training.
    #[serde(default)]
    pub hidden_dropout_prob: f64,
    /// Rate at which attention weights are dropped while training.
    #[serde(default)]
    pub attention_probs_dropout_prob: f64,
}

fn two() -> i64 {
    2
}

fn epsilon() -> f64 {
    1e-12
}

/// Token ids `[batch, length]` → features `[batch, length, hidden_size]`.
pub struct Bert {
    words: Embedding,
    positions: Embedding,
    segments: Embedding,
    norm: Norm,
    blocks: Transformer,
    config: BertConfig,
}

impl Bert {
    /// The network under `scope`, named as [`Bert::rename`] expects.
    pub fn new(scope: &Scope<'_>, config: &BertConfig) -> Result<Self> {
        let width = config.hidden_size;
        let attention = AttentionConfig {
            dropout: config.attention_probs_dropout_prob,
            ..AttentionConfig::new(width, config.num_attention_heads)
        };
        let norm = NormConfig { kind: NormKind::Layer, epsilon: config.layer_norm_eps, bias: true };
        let mlp =
            MlpConfig { hidden: config.intermediate_size, activation: config.hidden_act, gated: false, bias: true };
        let block = BlockConfig {
            attention,
            cross: None,
            mlp,
            norm,
            norm_first: false,
            dropout: config.hidden_dropout_prob,
            layer_scale: None,
        };
        let tables = scope.pp("embeddings");
        Ok(Self {
            words: Embedding::new(&tables.pp("word_embeddings"), config.vocab_size, width)?,
            positions: Embedding::new(&tables.pp("position_embeddings"), config.max_position_embeddings, width)?,
            segments: Embedding::new(&tables.pp("token_type_embeddings"), config.type_vocab_size, width)?,
            norm: Norm::new(&tables.pp("LayerNorm"), width, norm)?,
            blocks: Transformer::new(
                &scope.pp("encoder"),
                &TransformerConfig { layers: config.num_hidden_layers, block, final_norm: false },
            )?,
            config: config.clone(),
        })
    }

    /// A name here → the name in transformers' checkpoints.
    pub fn rename(name: &str) -> String {
        const MAP: &[(&str, &str)] = &[
            (".layers.", ".layer."),
            (".self_attn.q_proj.", ".attention.self.query."),
            (".self_attn.k_proj.", ".attention.self.key."),
            (".self_attn.v_proj.", ".attention.self.value."),
            (".self_attn.out_proj.", ".attention.output.dense."),
            (".layer_norm1.", ".attention.output.LayerNorm."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
            (".layer_norm2.", ".output.LayerNorm."),
        ];
        MAP.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
    }
}

impl Encoder for Bert {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        let ids = &input.values;
        let length = ids.size(1)?;
        if length > self.config.max_position_embeddings {
            return Err(mm_core::Error::shape(
                "token ids",
                &ids.shape(),
                format!("at most {} tokens", self.config.max_position_embeddings),
            ));
        }
        let places = Tensor::arange(0, length, ids.device())?;
        let segments = self.segments.weight().select(0, 0)?; // every token is of the first segment: [width]
        let x = self.words.forward(ids)?.add(&self.positions.forward(&places)?)?.add(&segments)?; // [batch, length, width]
        let x = self.norm.forward(&x, train)?.dropout(self.config.hidden_dropout_prob, train)?;
        let mask = input.mask.clone().map(Mask::Padding);
        Features::new(self.blocks.forward(&x, mask.as_ref(), None, None, train)?, input.mask.clone())
    }

    fn width(&self) -> i64 {
        self.config.hidden_size
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}
