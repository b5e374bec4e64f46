//! The learning-rate schedule: linear warm-up, then constant, linear or cosine decay.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The shape of the schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Constant learning rate.
    Constant,
    /// Linear decay to `min_lr_ratio`.
    Linear,
    /// Cosine decay to `min_lr_ratio`: [*SGDR*](https://arxiv.org/abs/1608.03983) (Loshchilov and Hutter, 2017),
    /// without restarts.
    #[default]
    Cosine,
}

/// Settings of the learning-rate schedule (`[train.schedule]`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Fraction of all steps over which the learning rate rises linearly from 0, in [0, 1).
    pub warmup_ratio: f64,
    /// The shape of the schedule after the warm-up.
    pub decay: Decay,
    /// The learning rate at the end of training, as a fraction of the configured one.
    pub min_lr_ratio: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { warmup_ratio: 0.05, decay: Decay::Cosine, min_lr_ratio: 0.0 }
    }
}

impl ScheduleConfig {
    pub(crate) fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.warmup_ratio) {
            return Err(Error::config("train.schedule.warmup_ratio", self.warmup_ratio, "a fraction in [0, 1)"));
        }
        Ok(())
    }

    /// The factor by which the learning rate is multiplied at `step` (from 0) of `steps`.
    ///
    /// ```
    /// use mm_train::{Decay, ScheduleConfig};
    /// let schedule = ScheduleConfig { warmup_ratio: 0.0, decay: Decay::Linear, min_lr_ratio: 0.0 };
    /// assert_eq!(schedule.factor(25, 100), 0.75);
    /// ```
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let warmup_steps = (self.warmup_ratio * steps as f64).round();
        let step = step as f64;
        if step < warmup_steps {
            return (step + 1.0) / warmup_steps;
        }
        let progress = ((step - warmup_steps) / (steps as f64 - warmup_steps).max(1.0)).min(1.0);
        let remaining = match self.decay {
            Decay::Constant => return 1.0,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.min_lr_ratio + (1.0 - self.min_lr_ratio) * remaining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rate_warms_up_and_decays() {
        let cosine = ScheduleConfig { warmup_ratio: 0.1, decay: Decay::Cosine, min_lr_ratio: 0.1 };
        assert!((cosine.factor(0, 100) - 0.1).abs() < 1e-9 && (cosine.factor(9, 100) - 1.0).abs() < 1e-9);
        assert!((cosine.factor(55, 100) - 0.55).abs() < 1e-9 && cosine.factor(99, 100) < 0.11);
        let linear = ScheduleConfig { warmup_ratio: 0.0, decay: Decay::Linear, min_lr_ratio: 0.0 };
        assert!((linear.factor(25, 100) - 0.75).abs() < 1e-9);
    }
}
