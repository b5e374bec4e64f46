//! The text tower: RoBERTa, pooled and projected.

use super::projection::Projection;
use crate::{
    Result,
    family::{ModelBuilder, PretrainedEncoder, Tower},
    text::transformer::{BertConfig, TextTransformer, Variant, text_processor},
};
use mm_core::{Encoder, Features, Input, Modality, Module, Pooling, Tensor, nn::Linear};
use serde_json::json;

pub(super) struct ClapTextEncoder {
    roberta: TextTransformer,
    pooler: Linear,
    projection: Projection,
}

impl Encoder for ClapTextEncoder {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.roberta.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let first = self.encode(input, train)?.pool(Pooling::Cls)?;
        self.projection.apply(&self.pooler.forward(&first, train)?.tanh()?)
    }

    fn dim(&self) -> i64 {
        self.roberta.dim()
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.dim()
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

impl PretrainedEncoder for ClapTextEncoder {}

pub(super) fn build(b: &ModelBuilder<'_>) -> Result<Tower> {
    let defaults = json!({"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1});
    let c: BertConfig = b.parse_with_defaults(&b.config["text_config"], "text_config", &defaults)?;
    let roberta = TextTransformer::new(b, &b.scope.pp("text_model"), &c, Variant::roberta(c.pad_token_id))?;
    let tokenizer = text_processor(b, roberta.max_length(), c.vocab_size)?;
    let pooler = Linear::new(&b.scope.pp("text_model.pooler.dense"), c.hidden_size, c.hidden_size, true)?;
    let projection = Projection::new(b, "text_projection", c.hidden_size)?;
    Ok(Tower::new(tokenizer, ClapTextEncoder { roberta, pooler, projection }))
}
