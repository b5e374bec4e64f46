//! Settings of a fusion.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What replaces a modality that a row lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingModality {
    /// Zeros, and the operator treats the modality as absent: gates close, attention is masked, products leave it out.
    #[default]
    Mask,
    /// A learned vector.
    Token,
    /// Zeros, seen as present.
    Zero,
    /// Mean of the training rows that have the modality: of all rows so far until a batch counts less than 5 %, then a
    /// moving average, which follows the layers before it as they learn.
    Mean,
    /// A network's prediction from the modalities that are present, trained on rows that have several.
    LearnedImputation,
}

/// Settings of a [`Fusion`](crate::Fusion).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FusionConfig {
    /// The operator, by its `kind`, with its own options.
    pub operator: OperatorConfig,
    /// Dimension of the fused features, and of each modality's projected features.
    pub dim: i64,
    /// Dropout probability on the projected features during training.
    pub dropout: f64,
    /// What replaces a modality that a row lacks.
    pub missing: MissingModality,
    /// Probability that a present modality is dropped during training (`ModDrop`); each row keeps at least one.
    pub modality_dropout: f64,
    /// Whether operators on vectors are applied to each position of aligned sequences (same length in all modalities)
    /// instead of to their means.
    pub aligned: bool,
    /// Whether each modality passes through a linear layer, a layer norm and GELU first.
    pub project: bool,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            operator: OperatorConfig::new("concat"),
            dim: 128,
            dropout: 0.0,
            missing: MissingModality::Mask,
            modality_dropout: 0.0,
            aligned: false,
            project: true,
        }
    }
}

/// Which operator, by its registered `kind`, and its own options, which the operator's builder parses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorConfig {
    /// Registered name of the operator.
    pub kind: String,
    /// Options of that operator.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl OperatorConfig {
    /// An operator of this kind with default options.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), options: Map::new() }
    }

    /// Sets an option.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.options.insert(key.into(), value.into());
        self
    }
}
