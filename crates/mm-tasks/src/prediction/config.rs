//! Settings of a prediction.

use super::target::Problem;
use crate::config::CommonConfig;
use mm_core::nn::LstmConfig;
use mm_fusion::FusionConfig;
use mm_reason::reasoning::ReasoningConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One modality's way in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// The encoder, by its `kind`; chosen from the training values when absent.
    #[serde(default)]
    pub encoder: Option<toml::Value>,
    /// Whether the features are brought to mean zero and variance one by the training rows.
    #[serde(default)]
    pub standardize: Option<bool>,
    /// Whether all positions of the encoder's features are used, not one vector a row.
    #[serde(default)]
    pub sequence: bool,
    /// Augmented views that are encoded beside the plain one, for frozen encoders.
    #[serde(default)]
    pub views: usize,
    /// Rate of dropout on the features while training.
    #[serde(default)]
    pub dropout: f64,
    /// Standard deviation of normal noise on standardised features while training.
    #[serde(default)]
    pub noise: f64,
}

/// A network over the rows of an item in their order (the utterances of a video), for each modality.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ContextConfig {
    /// Long short-term memory in both directions (bc-LSTM, Poria 2017).
    Lstm {
        /// Width of one direction.
        hidden: i64,
        /// Layers.
        #[serde(default = "one")]
        layers: i64,
        /// Rate of dropout before and after.
        #[serde(default)]
        dropout: f64,
    },
    /// A transformer.
    Transformer {
        /// Its width.
        width: i64,
        /// Blocks.
        #[serde(default = "one")]
        layers: i64,
        /// Heads of each.
        #[serde(default = "four")]
        heads: i64,
        /// Rate of dropout.
        #[serde(default)]
        dropout: f64,
    },
}

fn one() -> i64 {
    1
}

fn four() -> i64 {
    4
}

impl ContextConfig {
    pub(crate) fn lstm(input: i64, hidden: i64, layers: i64, dropout: f64) -> LstmConfig {
        LstmConfig { input_dim: input, hidden_dim: hidden, num_layers: layers, bidirectional: true, dropout }
    }
}

/// What keeps modalities in balance, and what is learned beside the fused answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Share of each label that goes to the other classes.
    pub smoothing: f64,
    /// Weight of the losses of heads on each modality alone; such heads are made when it is not 0.
    pub auxiliary: f64,
    /// Weight of what the operator itself wants (MISA's terms, a router's balance).
    pub operator: f64,
    /// Strength of on-the-fly gradient modulation (OGM, Peng 2022); 0 for none. Wants `auxiliary`.
    pub modulation: f64,
    /// Weight of the regularisation by functional entropy (RMFE, Gat 2020).
    pub entropy: f64,
    /// Weight of what the fused head learns from the heads of single modalities (UMT, Du 2023). Wants `auxiliary`.
    pub distillation: f64,
    /// Whether the heads' losses count by how well each generalises, found anew at each evaluation (gradient blending, Wang 2020). Wants
    /// `auxiliary`, validation rows and `train.evaluate_every_epochs`.
    pub blending: bool,
    /// Whether each modality's head learns labels of its own, moved once an epoch (Self-MM, Yu 2021), for two classes and for numbers.
    /// Wants `auxiliary`; the heads on single modalities are then no second opinions: `pool = "fused"`.
    pub unimodal_labels: bool,
    /// Rows are blended with others, features and labels alike, by weights from Beta(α, α) (manifold mixup, Verma 2019); 0 for none.
    pub mixup: f64,
    /// Pictures get a rectangle of another's, and its share of the label, by weights from Beta(α, α) (`CutMix`, Yun 2019); 0 for none. For
    /// pictures alone, whose encoder learns.
    pub cutmix: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            smoothing: 0.0,
            auxiliary: 0.3,
            operator: 1.0,
            modulation: 0.0,
            entropy: 0.0,
            distillation: 0.0,
            blending: false,
            unimodal_labels: false,
            mixup: 0.0,
            cutmix: 0.0,
        }
    }
}

/// How the answers of the fused head and of the heads on single modalities become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ensembling {
    /// With weights fitted on the validation rows.
    #[default]
    TableFit,
    /// All alike: for features that were themselves learned on the training labels, so that validation rows taken from training rows would
    /// trust them too much.
    Even,
    /// The fused head's alone.
    Fused,
    /// By a logistic regression over what they say, learned on the validation rows (stacking, Wolpert 1992). For classes.
    Logistic,
    /// By gradient-boosted trees over what they say, learned on the validation rows.
    Boosted,
}

impl Ensembling {
    /// Whether a model over the heads is learned on the validation rows.
    pub(crate) fn is_stacked(self) -> bool {
        matches!(self, Self::Logistic | Self::Boosted)
    }
}

/// Settings of a prediction and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// The column that is predicted.
    pub label: String,
    /// What kind of problem it is.
    #[serde(default)]
    pub problem: Problem,
    /// The classes (for an ordinal problem in their order); those of the training rows when empty.
    #[serde(default)]
    pub classes: Vec<String>,
    /// A way in for each modality.
    pub inputs: BTreeMap<String, InputConfig>,
    /// A network over the rows of an item; rows stand alone when absent.
    #[serde(default)]
    pub context: Option<ContextConfig>,
    /// Whether the operator gets whole items as sequences (MulT, MFN), not single rows. Wants `context` or an item column.
    #[serde(default)]
    pub fuse_items: bool,
    /// The fusion.
    #[serde(default)]
    pub fusion: FusionConfig,
    /// A network in place of the fusion in which one modality questions the others (visual question answering); all inputs are then read as
    /// sequences.
    #[serde(default)]
    pub reason: Option<ReasoningConfig>,
    /// Rate of dropout before the heads.
    #[serde(default)]
    pub dropout: f64,
    /// The losses.
    #[serde(default)]
    pub loss: LossConfig,
    /// How the heads' answers become one.
    #[serde(default)]
    pub pool: Ensembling,
}
