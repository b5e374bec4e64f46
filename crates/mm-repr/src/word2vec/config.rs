//! Training options, named and defaulted as in gensim (whose default architecture is CBOW).

use super::subwords::SubwordConfig;
use crate::Result;
use serde::{Deserialize, Serialize};

/// Largest allowed [`Word2VecConfig::window`].
pub(super) const MAX_WINDOW: usize = 100;

/// The prediction task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Each context word predicts the center word.
    #[default]
    SkipGram,
    /// The mean of the context words predicts the center word.
    Cbow,
}

/// Options of [`WordVectors::train`](super::WordVectors::train).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Word2VecConfig {
    /// Skip-gram or CBOW.
    pub architecture: Architecture,
    /// Dimension of the vectors.
    pub vector_size: usize,
    /// Maximum distance between the center word and a context word, 1 to 100.
    pub window: usize,
    /// Whether the window of each position is sampled uniformly from 1 to `window`, which weights near words more.
    pub shrink_windows: bool,
    /// Number of negative samples per positive one; 0 selects hierarchical softmax.
    pub negative: usize,
    /// Negatives are sampled in proportion to count^`ns_exponent`.
    pub ns_exponent: f64,
    /// Whether neighboring context words share their negatives (skip-gram): twice as fast, slightly less accurate.
    pub share_negatives: bool,
    /// Words with a lower count are ignored.
    pub min_count: u64,
    /// Subsampling threshold: words with a higher relative frequency are randomly dropped; 0 disables it.
    pub sample: f64,
    /// Passes over the corpus.
    pub epochs: usize,
    /// Initial learning rate.
    pub alpha: f64,
    /// Final learning rate; the rate decays linearly.
    pub min_alpha: f64,
    /// Training threads; with one, the result is a function of corpus, options and seed.
    pub workers: usize,
    /// Random seed.
    pub seed: u64,
    /// Character n-grams, which give vectors to out-of-vocabulary words; `None` trains words only.
    pub subwords: Option<SubwordConfig>,
}

impl Default for Word2VecConfig {
    fn default() -> Self {
        Self {
            architecture: Architecture::SkipGram,
            vector_size: 100,
            window: 5,
            shrink_windows: true,
            negative: 5,
            ns_exponent: 0.75,
            share_negatives: true,
            min_count: 5,
            sample: 1e-3,
            epochs: 5,
            alpha: 0.025,
            min_alpha: 1e-4,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            seed: 0,
            subwords: None,
        }
    }
}

impl Word2VecConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let invalid =
            |field: &str, found: String, expected: &str| Err(mm_core::Error::config(field, found, expected).into());
        if !(1..=10_000).contains(&self.vector_size) {
            return invalid("vector_size", self.vector_size.to_string(), "1 to 10,000");
        }
        if !(1..=MAX_WINDOW).contains(&self.window) {
            return invalid("window", self.window.to_string(), "1 to 100");
        }
        if self.epochs == 0 {
            return invalid("epochs", self.epochs.to_string(), "at least 1");
        }
        if !(self.alpha > 0.0 && self.alpha <= 1.0) {
            return invalid("alpha", self.alpha.to_string(), "a learning rate in (0, 1]");
        }
        if !(0.0..=self.alpha).contains(&self.min_alpha) {
            return invalid("min_alpha", self.min_alpha.to_string(), "a learning rate in [0, alpha]");
        }
        if !(0.0..=1.0).contains(&self.sample) {
            return invalid("sample", self.sample.to_string(), "0 to 1");
        }
        match &self.subwords {
            Some(s) if s.min_n == 0 || s.max_n < s.min_n || s.bucket == 0 => {
                invalid("subwords", format!("{s:?}"), "1 ≤ min_n ≤ max_n and bucket ≥ 1")
            }
            _ => Ok(()),
        }
    }
}
