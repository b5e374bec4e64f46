//! The text encoders whose blocks normalise after each part: BERT (Devlin 2018), RoBERTa (Liu 2019), XLM-RoBERTa (Conneau 2019),
//! DistilBERT (Sanh 2019), MPNet (Song 2020). They differ in names, in how positions are numbered and in what else is added.

use super::{SentenceEncoder, TextProcessor};
use crate::{
    Error, Result,
    family::{Family, Model, ModelBuilder, Tower, WeightMap, config, prefix},
};
use mm_core::{
    Checkpoint, Encoder, Features, Init, Input, Modality, Module, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Embedding, ForwardArgs, Mask, MlpConfig, Norm, NormConfig, NormKind,
        Transformer, TransformerConfig, relative_position_buckets,
    },
};
use serde_json::Value;

config! {
    /// transformers' `BertConfig` and its kin; `n_layers`, `dim` … are DistilBERT's words for the same.
    TextConfig {
        vocab_size: i64 = 30522,
        hidden_size: i64 = 768,
        num_hidden_layers: i64 = 12,
        num_attention_heads: i64 = 12,
        intermediate_size: i64 = 3072,
        hidden_act: Activation = Activation::Gelu,
        max_position_embeddings: i64 = 512,
        type_vocab_size: i64 = 2,
        layer_norm_eps: f64 = 1e-12,
        pad_token_id: i64 = 1,
        relative_attention_num_buckets: i64 = 32,
    }
}

config! {
    /// transformers' `DistilBertConfig`.
    DistilConfig {
        vocab_size: i64 = 30522,
        dim: i64 = 768,
        n_layers: i64 = 6,
        n_heads: i64 = 12,
        hidden_dim: i64 = 3072,
        activation: Activation = Activation::Gelu,
        max_position_embeddings: i64 = 512,
    }
}

/// What sets the families apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Kind {
    /// Positions count from this number's successor, over tokens that are not this number (RoBERTa's padding token).
    first_after: Option<i64>,
    segments: bool,
    /// One table of relative distances for all blocks (MPNet).
    relative: bool,
}

impl Kind {
    pub(crate) const BERT: Self = Self { first_after: None, segments: true, relative: false };

    /// BERT in BLIP, which knows no segments.
    pub(crate) const BLIP: Self = Self { first_after: None, segments: false, relative: false };

    /// Of RoBERTa, whose padding token is `pad`.
    pub(crate) const fn roberta(pad: i64) -> Self {
        Self { first_after: Some(pad), segments: true, relative: false }
    }
}

/// Token ids `[batch, length]` → features `[batch, length, width]`.
pub(crate) struct TextTransformer {
    words: Embedding,
    positions: Embedding,
    segments: Option<Embedding>,
    norm: Norm,
    relative: Option<(Tensor, i64)>,
    blocks: Transformer,
    kind: Kind,
    width: i64,
    /// Most tokens of a text.
    longest: i64,
}

impl TextTransformer {
    pub(crate) fn new(build: &ModelBuilder<'_>, scope: &Scope<'_>, config: &TextConfig, kind: Kind) -> Result<Self> {
        let width = config.hidden_size;
        let norm = NormConfig { kind: NormKind::LayerNorm, eps: config.layer_norm_eps, bias: true };
        let mlp = MlpConfig::new(config.intermediate_size, config.hidden_act);
        let block =
            BlockConfig { norm, ..BlockConfig::new(AttentionConfig::new(width, config.num_attention_heads), mlp) };
        let (tables, encoder) = (scope.pp("embeddings"), scope.pp("encoder"));
        let buckets = config.relative_attention_num_buckets;
        let relative = if kind.relative {
            let shape = [buckets, config.num_attention_heads];
            let table = encoder.pp("relative_attention_bias").param("weight", &shape, Init::Normal(0.02))?;
            // The buckets themselves are fixed at 32 in the reference program; a smaller table cannot be indexed there either.
            if buckets < 32 {
                return Err(
                    build.config_error(format!("relative_attention_num_buckets: found {buckets}, wanted at least 32"))
                );
            }
            Some((table, 32))
        } else {
            None
        };
        let segments =
            kind.segments.then(|| Embedding::new(&tables.pp("token_type_embeddings"), config.type_vocab_size, width));
        Ok(Self {
            words: Embedding::new(&tables.pp("word_embeddings"), config.vocab_size, width)?,
            positions: Embedding::new(&tables.pp("position_embeddings"), config.max_position_embeddings, width)?,
            segments: segments.transpose()?,
            norm: Norm::new(&tables.pp("LayerNorm"), width, norm)?,
            relative,
            blocks: build.transformer(
                &encoder,
                TransformerConfig { num_layers: config.num_hidden_layers, block, final_norm: false },
            )?,
            kind,
            width,
            longest: config.max_position_embeddings - kind.first_after.map_or(0, |pad| pad + 1),
        })
    }
}

impl TextTransformer {
    /// Most tokens of a text.
    pub(crate) fn longest(&self) -> i64 {
        self.longest
    }
}

impl TextTransformer {
    /// What goes into the first block, `[batch, length, width]`, and its mask.
    fn embedded(&self, input: &Input, train: bool) -> mm_core::Result<(Tensor, Option<Mask>)> {
        let ids = &input.values;
        let length = ids.size(1)?;
        if length > self.longest {
            return Err(mm_core::Error::shape("token ids", &ids.shape(), format!("at most {} tokens", self.longest)));
        }
        let places = match self.kind.first_after {
            None => self.positions.forward(&Tensor::arange(0, length, ids.device())?)?, // [length, width]
            Some(pad) => {
                let real = ids.eq_scalar(pad as f64)?.logical_not()?.to_dtype(mm_core::DType::I64)?;
                self.positions
                    .forward(&real.cumsum(1)?.mul(&real)?.add_scalar(pad as f64)?.to_dtype(mm_core::DType::I64)?)?
            }
        };
        let mut x = self.words.forward(ids)?.add(&places)?; // [batch, length, width]
        if let Some(segments) = &self.segments {
            x = x.add(&segments.weight().select(0, 0)?)?; // every token is of the first segment
        }
        let x = self.norm.forward(&x, train)?;
        let mask = match &self.relative {
            None => input.mask.clone().map(Mask::Padding),
            Some((table, buckets)) => {
                let index = relative_position_buckets(length, length, 0, *buckets, 128)?.to_device(ids.device())?;
                let mut bias = table.embedding(&index)?.permute(&[2, 0, 1])?.unsqueeze(0)?; // [1, heads, length, length]
                if let Some(mask) = &input.mask {
                    let rows = ids.size(0)?;
                    let hidden = mask.logical_not()?.reshape(&[rows, 1, 1, length])?;
                    bias = bias.expand(&[rows, -1, -1, -1])?.masked_fill(&hidden, bias.dtype()?.mask_value())?;
                }
                Some(Mask::Bias(bias))
            }
        };
        Ok((x, mask))
    }

    /// What goes into the first block and what comes out of each.
    pub(crate) fn hidden_states(&self, input: &Input) -> mm_core::Result<Vec<Features>> {
        let (x, mask) = self.embedded(input, false)?;
        let states = self.blocks.hidden_states(&x, mask.as_ref(), false)?;
        states.into_iter().map(|x| Features::new(x, input.mask.clone())).collect()
    }
}

impl Encoder for TextTransformer {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let (x, mask) = self.embedded(input, train)?;
        Features::new(
            self.blocks.forward(&x, ForwardArgs { mask: mask.as_ref(), train, ..ForwardArgs::default() })?,
            input.mask.clone(),
        )
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

/// BERT's words for the shared block's parts.
pub const BERT_WEIGHT_MAP: &[(&str, &str)] = &[
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

const MPNET_NAMES: &[(&str, &str)] = &[
    (".layers.", ".layer."),
    (".self_attn.q_proj.", ".attention.attn.q."),
    (".self_attn.k_proj.", ".attention.attn.k."),
    (".self_attn.v_proj.", ".attention.attn.v."),
    (".self_attn.out_proj.", ".attention.attn.o."),
    (".layer_norm1.", ".attention.LayerNorm."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".layer_norm2.", ".output.LayerNorm."),
];

const DISTIL_NAMES: &[(&str, &str)] = &[
    ("encoder.layers.", "transformer.layer."),
    (".self_attn.q_proj.", ".attention.q_lin."),
    (".self_attn.k_proj.", ".attention.k_lin."),
    (".self_attn.v_proj.", ".attention.v_lin."),
    (".self_attn.out_proj.", ".attention.out_lin."),
    (".layer_norm1.", ".sa_layer_norm."),
    (".mlp.fc1.", ".ffn.lin1."),
    (".mlp.fc2.", ".ffn.lin2."),
    (".layer_norm2.", ".output_layer_norm."),
];

/// Bare models save bare names, heads on top of them save theirs below the family's.
fn names(checkpoint: &Checkpoint, below: &str, rules: &[(&str, &str)]) -> WeightMap {
    let start = prefix(checkpoint, "embeddings.word_embeddings.weight", &[below, ""]);
    WeightMap::new(rules).and(&[("^", start)])
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "bert",
        weight_map: |c, _| names(c, "bert.", BERT_WEIGHT_MAP),
        build: |b| build(b, Kind::BERT),
    },
    Family { model_type: "roberta", weight_map: |c, _| names(c, "roberta.", BERT_WEIGHT_MAP), build: |b| roberta(b) },
    Family {
        model_type: "xlm-roberta",
        weight_map: |c, _| names(c, "roberta.", BERT_WEIGHT_MAP),
        build: |b| roberta(b),
    },
    Family { model_type: "camembert", weight_map: |c, _| names(c, "roberta.", BERT_WEIGHT_MAP), build: |b| roberta(b) },
    Family { model_type: "distilbert", weight_map: |c, _| names(c, "distilbert.", DISTIL_NAMES), build: distil },
    Family {
        model_type: "mpnet",
        weight_map: |c, _| names(c, "mpnet.", MPNET_NAMES),
        // The reference program counts positions from two, whatever token it pads with.
        build: |b| build(b, Kind { first_after: Some(1), segments: false, relative: true }),
    },
];

fn roberta(b: &ModelBuilder<'_>) -> Result<Model> {
    build(b, Kind::roberta(b.parse::<TextConfig>()?.pad_token_id))
}

fn build(b: &ModelBuilder<'_>, kind: Kind) -> Result<Model> {
    finish(b, &b.parse()?, kind)
}

fn distil(b: &ModelBuilder<'_>) -> Result<Model> {
    let c: DistilConfig = b.parse()?;
    let config = TextConfig {
        vocab_size: c.vocab_size,
        hidden_size: c.dim,
        num_hidden_layers: c.n_layers,
        num_attention_heads: c.n_heads,
        intermediate_size: c.hidden_dim,
        hidden_act: c.activation,
        max_position_embeddings: c.max_position_embeddings,
        ..TextConfig::default()
    };
    finish(b, &config, Kind { first_after: None, segments: false, relative: false })
}

fn finish(b: &ModelBuilder<'_>, config: &TextConfig, kind: Kind) -> Result<Model> {
    let network = TextTransformer::new(b, &b.scope, config, kind)?;
    let processor = processor(b, network.longest, config.vocab_size)?;
    Ok(Tower::new(processor, SentenceEncoder::new(b.folder, network, b.layer.is_some())?).into())
}

/// The folder's tokenizer, held against the word table.
pub(crate) fn processor(b: &ModelBuilder<'_>, table: i64, entries: i64) -> Result<TextProcessor> {
    let processor = TextProcessor::from_folder(b.folder, longest(b, table)?)?;
    if processor.entries() as i64 > entries {
        return Err(Error::folder(
            b.folder,
            format!(
                "the tokenizer has {} entries, the word table only {entries}: one of the two is of another model",
                processor.entries()
            ),
        ));
    }
    Ok(processor)
}

/// sentence-transformers' own limit, else the tokenizer's, never above the position table.
fn longest(b: &ModelBuilder<'_>, table: i64) -> Result<usize> {
    let table = u64::try_from(table).unwrap_or(0).max(1);
    let own = b.json("sentence_bert_config.json")?["max_seq_length"].as_u64();
    let limit = b.json("tokenizer_config.json")?["model_max_length"].as_f64().map(|v| v as u64);
    Ok(own.or(limit).unwrap_or(table).min(table) as usize)
}

/// A part's config out of a joint model's, for its own kind of value.
pub(crate) fn text_config(b: &ModelBuilder<'_>, value: &Value) -> Result<TextConfig> {
    b.parse_part(value, "text_config")
}
