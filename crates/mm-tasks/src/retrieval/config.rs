//! Configuration of a retrieval model.

use super::TASK;
use crate::{
    Error, Result,
    config::{CommonConfig, TaskConfig},
    ranges::{Fraction, NonNegative, Positive, PositiveInt, Rate},
};
use mm_align::{ContrastiveConfig, ContrastiveKind, MemoryConfig, RobustConfig, attention::ScorePooling};
use mm_repr::word2vec::SubwordConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The projection from an encoder's embeddings into the shared space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectionConfig {
    /// Dimension of the hidden layer.
    pub hidden_dim: PositiveInt,
    /// Dropout rate.
    pub dropout: Rate,
}

impl Default for ProjectionConfig {
    fn default() -> Self {
        Self { hidden_dim: PositiveInt::new(512), dropout: Rate::percent(20) }
    }
}

/// The tower of one modality: an encoder and a projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerConfig {
    /// The encoder, by its `kind`.
    pub encoder: toml::Value,
    /// The projection into the shared space.
    #[serde(default)]
    pub projection: ProjectionConfig,
    /// Augmented views of each value that are cached next to the plain one, for frozen encoders; training samples one
    /// of them.
    #[serde(default)]
    pub num_views: usize,
    /// Standard deviation of Gaussian noise on the features during training, relative to their norm divided by the
    /// square root of their dimension.
    #[serde(default)]
    pub noise_std: NonNegative,
    /// Languages of the values that are used; all when empty.
    #[serde(default)]
    pub languages: Vec<String>,
}

/// Soft targets from the similarities of a frozen encoder, so that near matches are not treated as negatives.
///
/// From *`SoftCLIP`: Softer Cross-modal Alignment Makes CLIP Stronger* (Gao et al., 2024,
/// <https://arxiv.org/abs/2303.17561>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftTargetsConfig {
    /// The modality whose frozen encoder computes the similarities.
    pub modality: String,
    /// Weight of the soft loss; the hard loss has the rest.
    #[serde(default = "default_soft_weight")]
    pub weight: Fraction,
    /// Temperature of the softmax over the similarities.
    #[serde(default = "default_soft_temperature")]
    pub temperature: Positive,
}

fn default_soft_weight() -> Fraction {
    Fraction::HALF
}

fn default_soft_temperature() -> Positive {
    Positive::from_ratio(1, 10)
}

/// An auxiliary loss that matches speech to its transcript, as a bag of character n-grams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranscriptNgramConfig {
    /// The modality with speech. Its values and the texts of their rows must state their language.
    pub modality: String,
    /// Weight of this loss; the mean of the contrastive losses has weight 1.
    #[serde(default = "default_weight")]
    pub weight: NonNegative,
    /// Lengths of the n-grams and the number of hash buckets.
    #[serde(default = "default_ngrams")]
    pub ngrams: SubwordConfig,
}

fn default_weight() -> NonNegative {
    NonNegative::ONE
}

fn default_ngrams() -> SubwordConfig {
    SubwordConfig { min_n: 1, max_n: 4, bucket: 4096 }
}

/// An auxiliary loss over stacked cross attention between the positions of two modalities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossAttentionConfig {
    /// The modality whose positions attend: words.
    #[serde(default = "default_query_modality")]
    pub query_modality: String,
    /// The modality whose positions are attended to: image patches, audio frames.
    #[serde(default = "default_key_modality")]
    pub key_modality: String,
    /// Weight of this loss; the mean of the contrastive losses has weight 1.
    #[serde(default = "default_weight")]
    pub weight: NonNegative,
    /// Inverse temperature of the softmax over the keys.
    #[serde(default = "default_inverse_temperature")]
    pub inverse_temperature: Positive,
    /// How the similarities of the queries are pooled into one score.
    #[serde(default)]
    pub pooling: ScorePooling,
    /// Whether the cosines of each key are first scaled to unit norm over the queries, as in the paper; attention is
    /// sharper without.
    #[serde(default)]
    pub normalize_over_queries: bool,
    /// Dropout rate on the positions.
    #[serde(default = "default_attention_dropout")]
    pub dropout: Rate,
}

fn default_query_modality() -> String {
    "text".into()
}

fn default_key_modality() -> String {
    "image".into()
}

fn default_inverse_temperature() -> Positive {
    Positive::from_ratio(9, 1)
}

fn default_attention_dropout() -> Rate {
    Rate::percent(30)
}

/// Configuration of a retrieval model and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// A tower for each modality.
    pub towers: BTreeMap<String, TowerConfig>,
    /// Dimension of the shared space.
    #[serde(default = "default_embed_dim")]
    pub embed_dim: PositiveInt,
    /// Rows of a batch that are embedded at once in training, where these are fewer: activations take the memory of so
    /// many rows, while the loss and its gradients are those of the whole batch (gradient caching). All at once when
    /// absent.
    #[serde(default)]
    pub mini_batch_size: Option<PositiveInt>,
    /// The contrastive loss of each pair of modalities.
    #[serde(default)]
    pub loss: ContrastiveConfig,
    /// Weight of a pair of modalities in the loss (`audio-text`, names in alphabetical order); 1 when absent.
    #[serde(default)]
    pub pair_weights: BTreeMap<String, f64>,
    /// Soft targets; only hard targets when absent.
    #[serde(default)]
    pub soft_targets: Option<SoftTargetsConfig>,
    /// Robust training with wrong pairs; none when absent.
    #[serde(default)]
    pub robust: Option<RobustConfig>,
    /// Transcript loss for a modality with speech; none when absent.
    #[serde(default)]
    pub transcript_ngram: Option<TranscriptNgramConfig>,
    /// Interpolation of embeddings with the training embeddings of another modality; none when absent.
    #[serde(default)]
    pub memory: Option<MemoryConfig>,
    /// Cross attention loss between the positions of two modalities; none when absent.
    #[serde(default)]
    pub cross_attention: Option<CrossAttentionConfig>,
}

fn default_embed_dim() -> PositiveInt {
    PositiveInt::new(256)
}

impl TaskConfig for RetrievalConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }

    fn validate(&self) -> Result<()> {
        if self.towers.len() < 2 {
            return Err(Error::invalid("towers", self.towers.len(), "at least two modalities"));
        }
        for key in self.pair_weights.keys() {
            if !self.pairs().any(|(a, b)| *key == format!("{a}-{b}")) {
                let pairs: Vec<String> = self.pairs().map(|(a, b)| format!("{a}-{b}")).collect();
                let known = pairs.iter().map(String::as_str);
                return Err(mm_core::Error::unknown("pair of modalities in pair_weights", key, known).into());
            }
        }
        self.validate_robust()?;
        if let Some(memory) = &self.memory {
            self.tower("memory.modality", &memory.modality)?;
            for modality in &memory.apply_to {
                self.tower("memory.apply_to", modality)?;
                if *modality == memory.modality {
                    return Err(Error::invalid("memory.apply_to", modality, "modalities other than memory.modality"));
                }
            }
            memory.validate()?;
        }
        if let Some(attention) = &self.cross_attention {
            self.tower("cross_attention.query_modality", &attention.query_modality)?;
            self.tower("cross_attention.key_modality", &attention.key_modality)?;
            if attention.query_modality == attention.key_modality {
                let found = format!("{} twice", attention.query_modality);
                return Err(Error::invalid("cross_attention", found, "two different modalities"));
            }
            if self.mini_batch_size.is_some() {
                let hint = "cross attention compares the positions of all rows of a batch; choose a smaller \
                            loader.batch_size instead";
                return Err(
                    Error::invalid("mini_batch_size", "cross_attention as well", "one of the two").with_hint(hint)
                );
            }
        }
        self.validate_ngrams()
    }
}

impl RetrievalConfig {
    /// All pairs of modalities, in alphabetical order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = || self.towers.keys().map(String::as_str);
        names().enumerate().flat_map(move |(n, a)| names().skip(n + 1).map(move |b| (a, b)))
    }

    fn tower(&self, field: &str, modality: &str) -> Result<&TowerConfig> {
        let known = || self.towers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.towers.get(modality).ok_or_else(|| Error::invalid(field, modality, format!("a tower: {}", known())))
    }

    fn validate_robust(&self) -> Result<()> {
        let Some(robust) = &self.robust else { return Ok(()) };
        if !(0.0..1.0).contains(&robust.noise_rate) {
            return Err(Error::invalid("robust.noise_rate", robust.noise_rate, "a number in [0, 1)"));
        }
        if self.loss.kind != ContrastiveKind::InfoNce {
            let found = format!("loss.kind = {:?}", self.loss.kind);
            return Err(Error::invalid("robust", found, "loss.kind = \"info_nce\""));
        }
        if self.soft_targets.is_some() {
            return Err(Error::invalid("robust", "soft_targets as well", "one of the two"));
        }
        Ok(())
    }

    fn validate_ngrams(&self) -> Result<()> {
        /// Each text is a dense vector of this many elements at most.
        const MAX_BUCKETS: u32 = 1 << 16;
        let Some(config) = &self.transcript_ngram else { return Ok(()) };
        self.tower("transcript_ngram.modality", &config.modality)?;
        let ngrams = &config.ngrams;
        if ngrams.min_n < 1 || ngrams.max_n < ngrams.min_n {
            let found = format!("min_n = {}, max_n = {}", ngrams.min_n, ngrams.max_n);
            return Err(Error::invalid("transcript_ngram.ngrams", found, "1 <= min_n <= max_n"));
        }
        if !(1..=MAX_BUCKETS).contains(&ngrams.bucket) {
            let expected = format!("1 to {MAX_BUCKETS}");
            return Err(Error::invalid("transcript_ngram.ngrams.bucket", ngrams.bucket, expected));
        }
        Ok(())
    }
}
