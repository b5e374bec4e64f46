//! Configuration of prediction.

mod loss;

pub use loss::LossConfig;

use super::target::Problem;
use crate::{
    Error, Result,
    config::{CommonConfig, TaskConfig},
    ranges::{NonNegative, PositiveInt, Rate},
};
use mm_fusion::FusionConfig;
use mm_reason::reasoning::ReasoningConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name that configs give as `task`.
pub const TASK: &str = "prediction";

/// The input branch of one modality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// The encoder, by its `kind`; proposed from the training values when absent.
    #[serde(default)]
    pub encoder: Option<toml::Value>,
    /// Whether features are standardized with mean and standard deviation of the training rows; as the encoder suggests
    /// when absent.
    #[serde(default)]
    pub standardize: Option<bool>,
    /// Whether all positions of the encoder's features are used instead of one vector per row.
    #[serde(default)]
    pub sequence: bool,
    /// Augmented views of each value that are cached next to the plain one, for frozen encoders; training samples one
    /// of them.
    #[serde(default)]
    pub num_views: usize,
    /// Dropout rate on the features.
    #[serde(default)]
    pub dropout: Rate,
    /// Standard deviation of Gaussian noise on the (standardized) features during training, at most 10.
    #[serde(default)]
    pub noise_std: NonNegative,
}

/// A network over the rows of an item in their order (the utterances of a video), one for each modality.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ContextConfig {
    /// A bidirectional LSTM.
    ///
    /// From *Context-Dependent Sentiment Analysis in User-Generated Videos* (Poria et al., 2017,
    /// <https://aclanthology.org/P17-1081/>).
    Lstm {
        /// Hidden dimension of each direction.
        hidden_dim: PositiveInt,
        /// Number of layers.
        #[serde(default = "default_num_layers")]
        num_layers: PositiveInt,
        /// Dropout rate before, between and after the layers.
        #[serde(default)]
        dropout: Rate,
    },
    /// A transformer encoder with sinusoidal positions.
    Transformer {
        /// Model dimension.
        dim: PositiveInt,
        /// Number of blocks.
        #[serde(default = "default_num_layers")]
        num_layers: PositiveInt,
        /// Attention heads of each block.
        #[serde(default = "default_num_heads")]
        num_heads: PositiveInt,
        /// Dropout rate.
        #[serde(default)]
        dropout: Rate,
    },
}

fn default_num_layers() -> PositiveInt {
    PositiveInt::new(1)
}

fn default_num_heads() -> PositiveInt {
    PositiveInt::new(4)
}

/// How the predictions of the fused head and of the unimodal heads are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ensembling {
    /// A weighted ensemble: temperatures and weights are fitted on the validation rows.
    #[default]
    Weighted,
    /// All heads with the same weight. For features that were themselves trained on the training labels, where
    /// validation rows taken from the training rows would overrate them.
    Uniform,
    /// The fused head alone.
    None,
    /// Stacking with a logistic regression over the heads' predictions, fitted on the validation rows. For classes.
    LogisticRegression,
    /// Stacking with gradient-boosted trees over the heads' predictions, fitted on the validation rows.
    GradientBoosting,
}

impl Ensembling {
    /// Whether a model over the heads is fitted on the validation rows.
    pub(super) fn is_stacked(self) -> bool {
        matches!(self, Self::LogisticRegression | Self::GradientBoosting)
    }

    /// The name in a config.
    fn name(self) -> &'static str {
        match self {
            Self::Weighted => "weighted",
            Self::Uniform => "uniform",
            Self::None => "none",
            Self::LogisticRegression => "logistic_regression",
            Self::GradientBoosting => "gradient_boosting",
        }
    }
}

/// Configuration of a prediction model and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictionConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// The column to predict.
    pub label: String,
    /// The type of problem; inferred from the training labels when absent.
    #[serde(default)]
    pub problem: Problem,
    /// The classes (of an ordinal problem in their order); those of the training rows when empty.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The input branch of each modality.
    pub inputs: BTreeMap<String, InputConfig>,
    /// A network over the rows of each item; rows are independent when absent.
    #[serde(default)]
    pub context: Option<ContextConfig>,
    /// Whether the fusion operator takes whole items as sequences instead of single rows (`mult`, `mfn`). Needs an item
    /// column.
    #[serde(default)]
    pub fuse_items: bool,
    /// The fusion.
    #[serde(default)]
    pub fusion: FusionConfig,
    /// A reasoning network instead of the fusion operator, in which one modality queries the others (visual question
    /// answering); all inputs are then used as sequences.
    #[serde(default)]
    pub reasoning: Option<ReasoningConfig>,
    /// Dropout rate before the heads.
    #[serde(default)]
    pub dropout: Rate,
    /// The losses.
    #[serde(default)]
    pub loss: LossConfig,
    /// How the predictions of the heads are combined.
    #[serde(default)]
    pub ensembling: Ensembling,
    /// Whether evaluations report [`sentiment_metrics`](crate::metrics::sentiment_metrics) as well: of a regression of
    /// sentiment scores.
    #[serde(default)]
    pub sentiment_metrics: bool,
}

impl TaskConfig for PredictionConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }

    fn validate(&self) -> Result<()> {
        if self.inputs.is_empty() {
            return Err(Error::invalid("inputs", "none", "at least one modality"));
        }
        for (name, input) in &self.inputs {
            if input.noise_std.get() > 10.0 {
                return Err(Error::invalid(
                    format!("inputs.{name}.noise_std"),
                    input.noise_std.get(),
                    "a number from 0 to 10",
                ));
            }
        }
        if self.sentiment_metrics && !matches!(self.problem, Problem::Auto | Problem::Regression) {
            let found = format!("true for a {} problem", self.problem.name());
            return Err(Error::invalid("sentiment_metrics", found, "true for a regression only"));
        }
        self.validate_context()?;
        self.validate_ensembling()?;
        self.validate_loss()
    }
}

impl PredictionConfig {
    /// Whether the network sees the rows of an item together, in their order.
    pub(super) fn groups_items(&self) -> bool {
        self.context.is_some() || self.fuse_items
    }

    /// Whether there are heads on single modalities.
    pub(super) fn has_unimodal_heads(&self) -> bool {
        self.loss.unimodal_weight.get() > 0.0
    }

    fn validate_context(&self) -> Result<()> {
        if self.reasoning.is_some() && self.groups_items() {
            return Err(Error::invalid("reasoning", "context or fuse_items as well", "independent rows"));
        }
        if self.context.is_some() && self.inputs.values().any(|i| i.sequence) {
            return Err(Error::invalid("context", "an input with sequence = true", "inputs of one vector per row"));
        }
        Ok(())
    }

    fn validate_ensembling(&self) -> Result<()> {
        let unsupported = match self.ensembling {
            Ensembling::LogisticRegression => matches!(self.problem, Problem::Multilabel | Problem::Regression),
            Ensembling::GradientBoosting => self.problem == Problem::Multilabel,
            _ => false,
        };
        if unsupported {
            let found = format!("{} for a {} problem", self.ensembling.name(), self.problem.name());
            return Err(Error::invalid("ensembling", found, "classes (gradient_boosting: classes or regression)"));
        }
        Ok(())
    }

    fn validate_loss(&self) -> Result<()> {
        let loss = &self.loss;
        let needs_heads = loss.gradient_modulation.get() > 0.0
            || loss.distillation_weight.get() > 0.0
            || loss.gradient_blending
            || loss.unimodal_labels;
        if !self.has_unimodal_heads() && needs_heads {
            return Err(Error::invalid("loss.unimodal_weight", 0, "a positive number").with_hint(
                "gradient_modulation, distillation_weight, gradient_blending and unimodal_labels need unimodal heads",
            ));
        }
        if loss.gradient_blending && self.common.train.evaluate_every_epochs == 0 {
            return Err(Error::invalid(
                "loss.gradient_blending",
                "train.evaluate_every_epochs = 0",
                "evaluations during training, at which the weights are estimated",
            ));
        }
        if loss.unimodal_labels && (loss.mixup_alpha.get() > 0.0 || loss.cutmix_alpha.get() > 0.0) {
            return Err(Error::invalid("loss.unimodal_labels", "mixup_alpha or cutmix_alpha as well", "one of them"));
        }
        let has_polarity = matches!(self.problem, Problem::Auto | Problem::Binary | Problem::Regression);
        if loss.unimodal_labels && !has_polarity {
            let found = format!("a {} problem", self.problem.name());
            return Err(Error::invalid("loss.unimodal_labels", found, "a binary problem or regression"));
        }
        Ok(())
    }
}
