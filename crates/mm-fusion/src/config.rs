//! Settings of a fusion.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How the features of a modality that a row lacks are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingModality {
    /// Zeros, with the operator treating the modality as absent: its gate is zero, its positions are masked in
    /// attention, and products omit it.
    #[default]
    Mask,
    /// A learned vector, treated as present.
    Token,
    /// Zeros, treated as present.
    Zero,
    /// Mean over the training rows that have the modality. It is the mean of all rows so far until a batch is less than
    /// 5 % of them, then a moving average, which follows the layers before it as they are trained.
    Mean,
    /// Predicted by an MLP from the mean of the modalities that are present; trained on rows that have several
    /// modalities.
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
    /// How the features of a modality that a row lacks are replaced.
    pub missing: MissingModality,
    /// Probability that a present modality is dropped during training (`ModDrop`); each row keeps at least one.
    pub modality_dropout: f64,
    /// Whether operators on vectors are applied to each position of aligned sequences (of the same length in all
    /// modalities) instead of to their means over the positions.
    pub aligned: bool,
    /// Whether each modality is first projected to `dim` by a linear layer, a layer norm and GELU.
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

/// The operator's registered `kind` and its options, which the operator itself parses.
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
