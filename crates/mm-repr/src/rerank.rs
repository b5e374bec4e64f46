//! Relevance of texts to a query, by checkpoints that score the two together (cross-encoders).

use crate::{
    Error, Pretrained, Result,
    classify::sigmoid,
    text::{PairProcessor, TokenizedPair},
};
use mm_core::{Modality, Tensor};
use std::sync::Arc;

/// The relevance of a text to a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relevance {
    /// The score as the model gives it.
    pub logit: f32,
}

impl Relevance {
    /// The score from 0 to 1: the sigmoid of the logit, as text-embeddings-inference gives it for every reranker.
    /// (sentence-transformers leaves it out for checkpoints whose config names another `activation_fn`; the order of the
    /// texts is the same.)
    pub fn score(self) -> f64 {
        sigmoid(self.logit)
    }
}

impl Pretrained {
    /// Whether it scores texts together with a query: a checkpoint `…ForSequenceClassification` of text with one label.
    pub fn is_reranker(&self) -> bool {
        self.pair_processor().is_ok()
    }

    /// The relevance of each text to the query, in the order of the texts.
    ///
    /// # Errors
    /// If the model is no reranker, or a text cannot be tokenized.
    pub fn relevance(&self, query: &str, texts: &[String]) -> Result<Vec<Relevance>> {
        self.relevance_of_pairs(&self.tokenize_pairs(query, texts)?)
    }

    /// The query with each of the texts as tokens, in the order of the texts; truncated to the model's length.
    ///
    /// # Errors
    /// If the model is no reranker, or a text cannot be tokenized.
    pub fn tokenize_pairs(&self, query: &str, texts: &[String]) -> Result<Vec<TokenizedPair>> {
        self.pair_processor()?.pairs(query, texts)
    }

    /// Like [`Self::relevance`], for pairs that [`Self::tokenize_pairs`] gave, in their order.
    ///
    /// # Errors
    /// If the model is no reranker.
    pub fn relevance_of_pairs(&self, pairs: &[TokenizedPair]) -> Result<Vec<Relevance>> {
        self.pair_processor()?;
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let samples = pairs.iter().map(TokenizedPair::to_tensor).collect::<mm_core::Result<Vec<_>>>()?;
        let logits = self.pair_logits(&samples)?;
        Ok(logits.to_vec::<f32>()?.into_iter().map(|logit| Relevance { logit }).collect())
    }

    /// Logits `[pairs, 1]` of pairs as tensors, see [`TokenizedPair::to_tensor`].
    ///
    /// # Errors
    /// If the model is no reranker, or there are no pairs.
    pub fn pair_logits(&self, samples: &[Tensor]) -> Result<Tensor> {
        let tower = self.tower(&Modality::TEXT)?;
        let none = || mm_core::Error::Sample(format!("{}: this model scores no pairs", self.folder().display()));
        self.run_batched(tower, samples, |input| tower.encoder.pair_logits(input)?.ok_or_else(none))
    }

    /// How a query and a text become tokens.
    ///
    /// # Errors
    /// If the model is no reranker.
    pub fn pair_processor(&self) -> Result<&Arc<PairProcessor>> {
        let tower = self.tower(&Modality::TEXT)?;
        let no_reranker = || {
            let found = self.architecture.as_deref().unwrap_or("none");
            let reason = format!(
                "architectures: found {found}, expected a reranker: …ForSequenceClassification with one label (id2label) \
                 and no problem_type"
            );
            Error::folder(self.folder().join("config.json"), reason)
        };
        tower.pairs.as_ref().ok_or_else(no_reranker)
    }
}
