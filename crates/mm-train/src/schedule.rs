//! The learning rate over the steps: a linear warm-up, then constant, linear or cosine (Loshchilov 2017) decay.

use serde::{Deserialize, Serialize};

/// The shape after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Decay {
    Constant,
    Linear,
    #[default]
    Cosine,
}

/// The learning rate's course.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Share of all steps over which the rate grows from zero.
    pub warmup_ratio: f64,
    /// The shape after that.
    pub decay: Decay,
    /// Share of the rate that is left at the end.
    pub min_lr_ratio: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { warmup_ratio: 0.05, decay: Decay::Cosine, min_lr_ratio: 0.0 }
    }
}

impl ScheduleConfig {
    /// What the rate is multiplied by at `step` (from zero) of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let warm = (self.warmup_ratio * steps as f64).round();
        let at = step as f64;
        if at < warm {
            return (at + 1.0) / warm;
        }
        let gone = ((at - warm) / (steps as f64 - warm).max(1.0)).min(1.0);
        let left = match self.decay {
            Decay::Constant => return 1.0,
            Decay::Linear => 1.0 - gone,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * gone).cos()),
        };
        self.min_lr_ratio + (1.0 - self.min_lr_ratio) * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_and_decays() {
        let s = ScheduleConfig { warmup_ratio: 0.1, decay: Decay::Cosine, min_lr_ratio: 0.1 };
        assert!((s.factor(0, 100) - 0.1).abs() < 1e-9 && (s.factor(9, 100) - 1.0).abs() < 1e-9);
        assert!((s.factor(55, 100) - 0.55).abs() < 1e-9 && s.factor(99, 100) < 0.11);
        let linear = ScheduleConfig { warmup_ratio: 0.0, decay: Decay::Linear, min_lr_ratio: 0.0 };
        assert!((linear.factor(25, 100) - 0.75).abs() < 1e-9);
    }
}
