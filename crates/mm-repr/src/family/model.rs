//! The model that a family builds: one encoder with its processor for each modality.

use super::{builder::ModelBuilder, weight_map::WeightMap};
use crate::{Result, text::PairProcessor};
use mm_core::{Checkpoint, Encoder, Features, Input, Module, Processor, Tensor, nn::Linear};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// A pretrained encoder, with a classifier where its checkpoint has one.
pub trait PretrainedEncoder: Encoder {
    /// The layer that maps the embedding to class scores, if there is one.
    fn classifier(&self) -> Option<&Linear> {
        None
    }

    /// Whether the checkpoint has a classifier.
    fn has_classifier(&self) -> bool {
        self.classifier().is_some()
    }

    /// Class scores before softmax, `[batch, classes]`; `None` without a classifier.
    fn logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        self.classifier().map(|c| c.forward(&self.embed(input, false)?, false)).transpose()
    }

    /// Class scores of pairs of texts before softmax or sigmoid, `[batch, classes]`, for token ids and token types
    /// `[batch, length, 2]`; `None` without a classifier of texts.
    fn pair_logits(&self, _input: &Input) -> mm_core::Result<Option<Tensor>> {
        Ok(None)
    }

    /// The input of the first block and the output of every block; `None` if the family does not expose them.
    fn hidden_states(&self, _input: &Input) -> mm_core::Result<Option<Vec<Features>>> {
        Ok(None)
    }

    /// Whether, on a CPU, only attention computes the padding of a batch, so that texts of different lengths are computed
    /// together at little cost.
    fn skips_padding(&self) -> bool {
        false
    }

    /// Like [`Encoder::embed`] for texts that begin with a prompt, whose first `skipped` tokens are not pooled; see
    /// [`NamedPrompt`].
    fn embed_after_prompt(&self, input: &Input, _skipped: i64) -> mm_core::Result<Tensor> {
        self.embed(input, false)
    }
}

/// A prompt of a text encoder, as sentence-transformers folders have them.
#[derive(Clone)]
pub struct NamedPrompt {
    /// Text → tensor, with the prompt in front of each text.
    pub processor: Arc<dyn Processor>,
    /// Number of tokens of the prompt, where the encoder does not pool them; `None` where it pools all tokens.
    pub skipped: Option<i64>,
}

/// One modality of a pretrained model: preprocessing and encoder.
pub struct Tower {
    /// Raw value → tensor.
    pub processor: Arc<dyn Processor>,
    /// Batch of tensors → features.
    pub encoder: Box<dyn PretrainedEncoder>,
    /// The prompts that can be asked for by name. `processor` prepends the default one, if there is one.
    pub prompts: BTreeMap<String, NamedPrompt>,
    /// A query and a text → tokens, where the model is a reranker.
    pub pairs: Option<Arc<PairProcessor>>,
}

impl Tower {
    /// Combines a processor with its encoder.
    pub fn new(processor: impl Processor + 'static, encoder: impl PretrainedEncoder + 'static) -> Self {
        Self { processor: Arc::new(processor), encoder: Box::new(encoder), prompts: BTreeMap::new(), pairs: None }
    }
}

/// How a contrastive model scores a pair of unit vectors: `logit_scale · a·b + logit_bias`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContrastiveHead {
    /// Inverse temperature.
    pub logit_scale: f64,
    /// Added to each score; set where a sigmoid is applied to each score alone (SigLIP) instead of a softmax over all.
    pub logit_bias: Option<f64>,
}

/// A built model.
pub struct Model {
    /// One for each modality.
    pub towers: Vec<Tower>,
    /// How pairs are scored, for models that embed several modalities into one space.
    pub contrastive_head: Option<ContrastiveHead>,
}

impl From<Tower> for Model {
    fn from(tower: Tower) -> Self {
        Self { towers: vec![tower], contrastive_head: None }
    }
}

/// A model family, whose builder returns an `M`.
pub struct Family<M = Model> {
    /// `model_type` in `config.json`. Folders of timm and open_clip have none; [`crate::Pretrained`] recognizes them.
    pub model_type: &'static str,
    /// Maps parameter names to names in this checkpoint.
    pub weight_map: fn(&Checkpoint, &Value) -> WeightMap,
    /// Builds the model.
    pub build: fn(&ModelBuilder<'_>) -> Result<M>,
}
