//! BERT and its relatives: RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT and MPNet, with the pooling of
//! sentence-transformers folders and the classifiers of `…ForSequenceClassification`.
//!
//! *RoBERTa: A Robustly Optimized BERT Pretraining Approach* (Liu et al., 2019), <https://arxiv.org/abs/1907.11692>;
//! *Unsupervised Cross-lingual Representation Learning at Scale* (XLM-RoBERTa; Conneau et al., 2019),
//! <https://arxiv.org/abs/1911.02116>; *CamemBERT: a Tasty French Language Model* (Martin et al., 2019),
//! <https://arxiv.org/abs/1911.03894>; *DistilBERT, a distilled version of BERT* (Sanh et al., 2019),
//! <https://arxiv.org/abs/1910.01108>; *MPNet: Masked and Permuted Pre-training for Language Understanding* (Song et
//! al., 2020), <https://arxiv.org/abs/2004.09297>.

use super::{
    classifier::{HEAD, HeadLayout, TextClassifier},
    pairs::PairProcessor,
    sentence::SentenceEncoder,
    transformer::{BERT_WEIGHT_MAP, BertConfig, TextTransformer, Variant, text_processor},
};
use crate::{
    Result, checkpoint_config,
    family::{Family, Model, ModelBuilder, NamedPrompt, Scores, Tower, WeightMap, detect_prefix},
};
use mm_core::{Checkpoint, nn::Activation};
use std::{collections::BTreeMap, sync::Arc};

checkpoint_config! {
    /// transformers' `DistilBertConfig`.
    DistilBertConfig {
        vocab_size: i64 = 30522,
        dim: i64 = 768,
        n_layers: i64 = 6,
        n_heads: i64 = 12,
        hidden_dim: i64 = 3072,
        activation: Activation = Activation::Gelu,
        max_position_embeddings: i64 = 512,
    }
}

const MPNET_WEIGHT_MAP: &[(&str, &str)] = &[
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

const DISTILBERT_WEIGHT_MAP: &[(&str, &str)] = &[
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

/// Checkpoints of a model with a head have the encoder's weights under a prefix, those of a bare encoder do not. The
/// head's own weights have none.
fn weight_map(checkpoint: &Checkpoint, prefix: &str, rules: &[(&str, &str)]) -> WeightMap {
    let prefix = detect_prefix(checkpoint, "embeddings.word_embeddings.weight", &[prefix, ""]);
    WeightMap::new(rules).and(&[("^", prefix), (&format!("^{prefix}{HEAD}"), "")])
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "bert",
        weight_map: |c, _| weight_map(c, "bert.", BERT_WEIGHT_MAP),
        build: |b| build(b, &b.parse()?, Variant::BERT, HeadLayout::BERT),
    },
    Family {
        model_type: "roberta",
        weight_map: |c, _| weight_map(c, "roberta.", BERT_WEIGHT_MAP),
        build: build_roberta,
    },
    Family {
        model_type: "xlm-roberta",
        weight_map: |c, _| weight_map(c, "roberta.", BERT_WEIGHT_MAP),
        build: build_roberta,
    },
    Family {
        model_type: "camembert",
        weight_map: |c, _| weight_map(c, "roberta.", BERT_WEIGHT_MAP),
        build: build_roberta,
    },
    Family {
        model_type: "distilbert",
        weight_map: |c, _| weight_map(c, "distilbert.", DISTILBERT_WEIGHT_MAP),
        build: build_distilbert,
    },
    Family {
        model_type: "mpnet",
        weight_map: |c, _| weight_map(c, "mpnet.", MPNET_WEIGHT_MAP),
        build: |b| build(b, &b.parse()?, Variant::MPNET, HeadLayout::ROBERTA),
    },
];

fn build_roberta(b: &ModelBuilder<'_>) -> Result<Model> {
    let config: BertConfig = b.parse()?;
    build(b, &config, Variant::roberta(config.pad_token_id), HeadLayout::ROBERTA)
}

fn build_distilbert(b: &ModelBuilder<'_>) -> Result<Model> {
    let c: DistilBertConfig = b.parse()?;
    let config = BertConfig {
        vocab_size: c.vocab_size,
        hidden_size: c.dim,
        num_hidden_layers: c.n_layers,
        num_attention_heads: c.n_heads,
        intermediate_size: c.hidden_dim,
        hidden_act: c.activation,
        max_position_embeddings: c.max_position_embeddings,
        ..BertConfig::default()
    };
    build(b, &config, Variant::BERT_WITHOUT_SEGMENTS, HeadLayout::DISTILBERT)
}

fn build(b: &ModelBuilder<'_>, config: &BertConfig, variant: Variant, head: HeadLayout) -> Result<Model> {
    let network = TextTransformer::new(b, &b.scope, config, variant)?;
    let processor = text_processor(b, network.max_length(), config.vocab_size)?;
    let prompt_length = processor.prompt_length()? as i64;
    let device = b.scope.device();
    let classifier = TextClassifier::new(b, head, config.hidden_size)?;
    let is_reranker = classifier.is_some() && Scores::of(b.config, b.num_labels()) == Scores::Relevance;
    let num_token_types = network.num_token_types()?;
    let pairs = is_reranker.then(|| PairProcessor::new(b, &processor, num_token_types).map(Arc::new)).transpose()?;
    let encoder = SentenceEncoder::new(b.folder, network, b.layer.is_some(), prompt_length, device)?;
    let encoder = encoder.with_classifier(classifier);
    let mut prompts = BTreeMap::new();
    for (name, processor) in processor.with_each_prompt() {
        let skipped = (!encoder.pools_prompt()).then(|| processor.prompt_length()).transpose()?;
        prompts.insert(name, NamedPrompt { processor: Arc::new(processor), skipped: skipped.map(|n| n as i64) });
    }
    Ok(Tower { prompts, pairs, ..Tower::new(processor, encoder) }.into())
}
