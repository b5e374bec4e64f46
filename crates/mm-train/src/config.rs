//! Settings of a training run.

use crate::{Error, OptimizerConfig, Result, ScheduleConfig};
use mm_core::{DType, Device};
use serde::{Deserialize, Serialize};

/// The number format of the forward pass. Parameters and optimizer state are float32 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bfloat16 on a GPU, float32 elsewhere.
    #[default]
    Auto,
    /// bfloat16 wherever the hardware supports it: a GPU, or a processor with AVX-512 BF16 or AMX; float32 elsewhere.
    Fast,
    /// float32 throughout.
    F32,
    /// Matrix products and convolutions in bfloat16.
    Bf16,
}

impl Precision {
    /// Whether the forward pass on `device` runs under autocast to bfloat16.
    pub(crate) fn uses_autocast(self, device: Device) -> bool {
        match self {
            Self::Auto => matches!(device, Device::Cuda(_)),
            Self::Fast => device.preferred_dtype() == DType::BF16,
            Self::F32 => false,
            Self::Bf16 => true,
        }
    }
}

/// Whether larger or smaller values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricDirection {
    /// Larger values are better (accuracy, recall).
    #[default]
    Max,
    /// Smaller values are better (loss, error).
    Min,
}

impl MetricDirection {
    /// Whether `value` is better than `best`.
    pub fn is_better(self, value: f64, best: f64) -> bool {
        match self {
            Self::Max => value > best,
            Self::Min => value < best,
        }
    }
}

/// Stops training when a validation metric no longer improves.
///
/// ```toml
/// [train]
/// early_stopping = { metric = "accuracy", direction = "max", patience = 5 }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// The validation metric, which also selects the best checkpoint; by default the task's main metric.
    #[serde(default)]
    pub metric: Option<String>,
    /// Whether larger or smaller values of the metric are better.
    #[serde(default)]
    pub direction: MetricDirection,
    /// Number of consecutive evaluations without improvement after which training stops, at least 1.
    pub patience: usize,
}

/// Settings of a training run (`[train]` in a config file).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Number of passes over the training data.
    pub epochs: u64,
    /// Random seed of the sample order, augmentation, initialization and dropout.
    pub seed: u64,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The learning-rate schedule.
    pub schedule: ScheduleConfig,
    /// Gradients are scaled down to this global L2 norm when they exceed it; no clipping when absent.
    pub max_grad_norm: Option<f64>,
    /// Number of batches whose gradients are accumulated into one optimizer step.
    pub gradient_accumulation_steps: usize,
    /// Decay of an exponential moving average of the weights, in [0, 1); the average is then evaluated and saved as the
    /// best checkpoint. No average when absent.
    pub ema_decay: Option<f64>,
    /// The number format of the forward pass.
    pub precision: Precision,
    /// Number of epochs between evaluations; 0 evaluates at the end only.
    pub evaluate_every_epochs: u64,
    /// Early stopping, and the metric that selects the best checkpoint; no early stopping when absent.
    pub early_stopping: Option<EarlyStopping>,
    /// Number of steps between checkpoints within an epoch; 0 saves at ends of epochs only.
    pub save_every_steps: u64,
    /// Minimum number of seconds between two checkpoints at ends of epochs, so that saving does not dominate when
    /// epochs are short. The ends of the first and of the last epoch are always saved.
    pub min_seconds_between_saves: f64,
    /// Number of the newest numbered checkpoints (`step-…`) to keep in addition to `last` and `best`.
    pub keep_last: usize,
    /// Number of steps between logged metrics.
    pub log_every_steps: u64,
    /// Number of steps, after the first five, whose operations PyTorch's profiler records; 0 records none. The traces,
    /// one for each process, are `profile/rank-N.pt.trace.json` in the run folder; <https://ui.perfetto.dev> and
    /// TensorBoard's PyTorch profiler show them.
    pub profile_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            seed: 0,
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
            max_grad_norm: Some(1.0),
            gradient_accumulation_steps: 1,
            ema_decay: None,
            precision: Precision::Auto,
            evaluate_every_epochs: 0,
            early_stopping: None,
            save_every_steps: 0,
            min_seconds_between_saves: 20.0,
            keep_last: 0,
            log_every_steps: 10,
            profile_steps: 0,
        }
    }
}

impl TrainConfig {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`] names the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        self.optimizer.check()?;
        self.schedule.check()?;
        for (field, value) in [
            ("train.epochs", self.epochs),
            ("train.gradient_accumulation_steps", self.gradient_accumulation_steps as u64),
            ("train.log_every_steps", self.log_every_steps),
        ] {
            if value == 0 {
                return Err(Error::config(field, 0, "at least 1"));
            }
        }
        if let Some(EarlyStopping { metric, direction, patience }) = &self.early_stopping {
            if *patience == 0 {
                return Err(Error::config("train.early_stopping.patience", 0, "at least 1"));
            }
            if metric.is_none() && *direction == MetricDirection::Min {
                let expected =
                    "train.early_stopping.metric with it: of the tasks' own metrics, larger values are better";
                return Err(Error::config("train.early_stopping.direction", "min", expected));
            }
        }
        if let Some(decay) = self.ema_decay.filter(|d| !(0.0..1.0).contains(d)) {
            return Err(Error::config("train.ema_decay", decay, "a decay in [0, 1)"));
        }
        if !(self.min_seconds_between_saves >= 0.0 && self.min_seconds_between_saves.is_finite()) {
            let found = self.min_seconds_between_saves;
            return Err(Error::config("train.min_seconds_between_saves", found, "a number of at least 0"));
        }
        if let Some(norm) = self.max_grad_norm.filter(|n| n.is_nan() || *n <= 0.0) {
            return Err(Error::config("train.max_grad_norm", norm, "a positive number"));
        }
        Ok(())
    }
}
