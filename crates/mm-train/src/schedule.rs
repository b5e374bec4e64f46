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
    pub warmup: f64,
    /// The shape after that.
    pub decay: Decay,
    /// Share of the rate that is left at the end.
    pub last: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { warmup: 0.05, decay: Decay::Cosine, last: 0.0 }
    }
}

impl ScheduleConfig {
    /// What the rate is multiplied by at `step` (from zero) of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let warm = (self.warmup * steps as f64).round();
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
        self.last + (1.0 - self.last) * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_and_decays() {
        let s = ScheduleConfig { warmup: 0.1, decay: Decay::Cosine, last: 0.1 };
        assert!((s.factor(0, 100) - 0.1).abs() < 1e-9 && (s.factor(9, 100) - 1.0).abs() < 1e-9);
        assert!((s.factor(55, 100) - 0.55).abs() < 1e-9 && s.factor(99, 100) < 0.11);
        let linear = ScheduleConfig { warmup: 0.0, decay: Decay::Linear, last: 0.0 };
        assert!((linear.factor(25, 100) - 0.75).abs() < 1e-9);
    }
}
