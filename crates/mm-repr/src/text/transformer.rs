//! The transformer of BERT and its relatives: post-norm blocks on the sum of token, position and segment embeddings.
//!
//! *BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding* (Devlin et al., 2018),
//! <https://arxiv.org/abs/1810.04805>.

use super::tokenizer::TextProcessor;
use crate::{Error, Result, checkpoint_config, family::ModelBuilder, json::read_json};
use mm_core::{
    DType, Device, Encoder, Features, Init, Input, Modality, Module, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Embedding, ForwardArgs, Mask, MlpConfig, Norm, NormConfig, NormKind,
        Transformer, TransformerConfig, Unpadding, relative_position_buckets,
    },
};

checkpoint_config! {
    /// transformers' `BertConfig` and the configs of its relatives.
    BertConfig {
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

/// Differences between the families.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Variant {
    /// Positions are counted from the successor of this id, over tokens other than it (RoBERTa's padding token).
    position_offset: Option<i64>,
    /// Whether there are segment (token type) embeddings.
    segments: bool,
    /// Whether there is a bias for relative positions, shared by all blocks (MPNet).
    relative_bias: bool,
}

impl Variant {
    pub(crate) const BERT: Self = Self { position_offset: None, segments: true, relative_bias: false };

    /// BERT in BLIP and DistilBERT.
    pub(crate) const BERT_WITHOUT_SEGMENTS: Self = Self { segments: false, ..Self::BERT };

    /// The reference implementation counts positions from two, whatever the padding token is.
    pub(super) const MPNET: Self = Self { position_offset: Some(1), segments: false, relative_bias: true };

    /// RoBERTa with this padding token.
    pub(crate) const fn roberta(pad_token_id: i64) -> Self {
        Self { position_offset: Some(pad_token_id), segments: true, relative_bias: false }
    }
}

/// Buckets of relative positions in the reference implementation, whatever the config says.
const RELATIVE_BUCKETS: i64 = 32;

/// Token ids `[batch, length]` → features `[batch, length, dim]`.
pub(crate) struct TextTransformer {
    tokens: Embedding,
    positions: Embedding,
    segments: Option<Embedding>,
    norm: Norm,
    /// `[buckets, heads]`.
    relative_bias: Option<Tensor>,
    blocks: Transformer,
    variant: Variant,
    dim: i64,
    max_length: i64,
}

impl TextTransformer {
    pub(crate) fn new(b: &ModelBuilder<'_>, scope: &Scope<'_>, c: &BertConfig, variant: Variant) -> Result<Self> {
        let dim = c.hidden_size;
        let norm = NormConfig { kind: NormKind::LayerNorm, eps: c.layer_norm_eps, bias: true };
        let mlp = MlpConfig::new(c.intermediate_size, c.hidden_act);
        let block =
            BlockConfig { norm, ..BlockConfig::post_norm(AttentionConfig::new(dim, c.num_attention_heads), mlp) };
        let (embeddings, encoder) = (scope.pp("embeddings"), scope.pp("encoder"));
        let relative_bias = if variant.relative_bias {
            let buckets = c.relative_attention_num_buckets;
            if buckets < RELATIVE_BUCKETS {
                let expected = format!("expected at least {RELATIVE_BUCKETS}");
                return Err(b.config_error(format!("relative_attention_num_buckets: found {buckets}, {expected}")));
            }
            let table = encoder.pp("relative_attention_bias");
            Some(table.param("weight", &[buckets, c.num_attention_heads], Init::Normal(0.02))?)
        } else {
            None
        };
        let segments =
            variant.segments.then(|| Embedding::new(&embeddings.pp("token_type_embeddings"), c.type_vocab_size, dim));
        let transformer = TransformerConfig::new(c.num_hidden_layers, block);
        Ok(Self {
            tokens: Embedding::new(&embeddings.pp("word_embeddings"), c.vocab_size, dim)?,
            positions: Embedding::new(&embeddings.pp("position_embeddings"), c.max_position_embeddings, dim)?,
            segments: segments.transpose()?,
            norm: Norm::new(&embeddings.pp("LayerNorm"), dim, norm)?,
            relative_bias,
            blocks: b.transformer(&encoder, transformer)?,
            variant,
            dim,
            max_length: c.max_position_embeddings - variant.position_offset.map_or(0, |pad| pad + 1),
        })
    }

    /// Maximum number of tokens.
    pub(crate) fn max_length(&self) -> i64 {
        self.max_length
    }

    /// Number of token types; `None` where tokens have none.
    pub(super) fn num_token_types(&self) -> mm_core::Result<Option<i64>> {
        self.segments.as_ref().map(|segments| segments.weight().size(0)).transpose()
    }

    /// The input of the first block `[batch, length, dim]`, and the attention mask. `token_types` are `[batch, length]`;
    /// without them all tokens are of the first type.
    fn embed_tokens(
        &self,
        input: &Input,
        token_types: Option<&Tensor>,
        train: bool,
    ) -> mm_core::Result<(Tensor, Option<Mask>)> {
        let ids = &input.values;
        let length = ids.size(1)?;
        if length > self.max_length {
            let expected = format!("at most {} tokens", self.max_length);
            return Err(mm_core::Error::shape("token ids", &ids.shape(), expected));
        }
        let positions = match self.variant.position_offset {
            None => Tensor::arange(0, length, ids.device())?, // [length]
            Some(pad) => {
                let valid = ids.eq_scalar(pad as f64)?.logical_not()?.to_dtype(DType::I64)?;
                valid.cumsum(1)?.mul(&valid)?.add_scalar(pad as f64)?.to_dtype(DType::I64)?
            }
        };
        let mut x = self.tokens.forward(ids)?.add(&self.positions.forward(&positions)?)?; // [batch, length, dim]
        if let Some(segments) = &self.segments {
            x = match token_types {
                Some(types) => x.add(&segments.weight().embedding(types)?)?,
                None => x.add(&segments.weight().select(0, 0)?)?,
            };
        }
        let x = self.norm.forward(&x, train)?;
        let mask = match &self.relative_bias {
            None => input.mask.clone().map(Mask::Padding),
            Some(table) => Some(Mask::Bias(relative_bias(table, input)?)),
        };
        Ok((x, mask))
    }

    /// The input of the first block and the output of every block.
    pub(crate) fn hidden_states(&self, input: &Input) -> mm_core::Result<Vec<Features>> {
        let (x, mask) = self.embed_tokens(input, None, false)?;
        let states = self.blocks.hidden_states(&x, mask.as_ref(), false)?;
        states.into_iter().map(|x| Features::new(x, input.mask.clone())).collect()
    }

    /// Features of pairs of texts, given as token ids and token types `[batch, length, 2]`.
    pub(super) fn encode_pairs(&self, input: &Input) -> mm_core::Result<Features> {
        let ids = Input { values: input.values.select(2, 0)?, mask: input.mask.clone() };
        let types = input.values.select(2, 1)?;
        // Padding has the id of the padding token as its type too.
        let types = input.mask.as_ref().map_or_else(|| Ok(types.clone()), |m| types.mul(&m.to_dtype(DType::I64)?))?;
        self.run_blocks(&ids, Some(&types), false)
    }

    fn run_blocks(&self, input: &Input, token_types: Option<&Tensor>, train: bool) -> mm_core::Result<Features> {
        let (x, mask) = self.embed_tokens(input, token_types, train)?;
        let args = ForwardArgs { mask: mask.as_ref(), train, ..ForwardArgs::default() };
        let unpadding = unpadding(input, train)?;
        let x = match &unpadding {
            None => self.blocks.forward(&x, args)?,
            Some(unpadding) => {
                let args = ForwardArgs { unpadding: Some(unpadding), ..args };
                unpadding.pad(&self.blocks.forward(&unpadding.unpad(&x)?, args)?)?
            }
        };
        Features::new(x, input.mask.clone())
    }
}

/// The places of the tokens in a batch with padding. On a GPU, counting them would wait for what is computed.
fn unpadding(input: &Input, train: bool) -> mm_core::Result<Option<Unpadding>> {
    match &input.mask {
        Some(mask) if !train && mask.device() == Device::Cpu => Unpadding::new(mask),
        _ => Ok(None),
    }
}

/// MPNet's bias, with padding masked: `[batch or 1, heads, length, length]`.
fn relative_bias(table: &Tensor, input: &Input) -> mm_core::Result<Tensor> {
    let (batch, length) = (input.values.size(0)?, input.values.size(1)?);
    let index =
        relative_position_buckets(length, length, 0, RELATIVE_BUCKETS, 128)?.to_device(input.values.device())?;
    let bias = table.embedding(&index)?.permute(&[2, 0, 1])?.unsqueeze(0)?; // [1, heads, length, length]
    let Some(mask) = &input.mask else { return Ok(bias) };
    let padding = mask.logical_not()?.reshape(&[batch, 1, 1, length])?;
    bias.expand(&[batch, -1, -1, -1])?.masked_fill(&padding, bias.dtype()?.mask_value())
}

impl Encoder for TextTransformer {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.run_blocks(input, None, train)
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

/// transformers' names of BERT's layers.
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

/// The folder's tokenizer, truncating at the model's limit.
///
/// # Errors
/// If the tokenizer has more entries than the embedding table.
pub(crate) fn text_processor(b: &ModelBuilder<'_>, max_positions: i64, vocab_size: i64) -> Result<TextProcessor> {
    let processor = TextProcessor::from_folders(b.folder, b.tokenizer_folder, max_length(b, max_positions)?)?;
    if processor.vocab_size() as i64 > vocab_size {
        return Err(Error::folder(
            b.tokenizer_folder,
            format!(
                "the tokenizer has {} entries, the embedding table only {vocab_size}: one of the two is of another model",
                processor.vocab_size()
            ),
        ));
    }
    Ok(processor)
}

/// sentence-transformers' limit, else the tokenizer's, but never more than the number of positions.
fn max_length(b: &ModelBuilder<'_>, max_positions: i64) -> Result<usize> {
    let max_positions = u64::try_from(max_positions).unwrap_or(0).max(1);
    let sentence = b.json("sentence_bert_config.json")?["max_seq_length"].as_u64();
    let tokenizer = read_json(&b.tokenizer_folder.join("tokenizer_config.json"))?;
    let tokenizer = tokenizer["model_max_length"].as_f64().map(|v| v as u64);
    Ok(sentence.or(tokenizer).unwrap_or(max_positions).min(max_positions) as usize)
}
