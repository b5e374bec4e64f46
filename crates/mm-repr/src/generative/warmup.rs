//! Linear warm-up of a loss weight.

use mm_core::{Device, Init, Result, Scope, Tensor};

/// A weight that grows linearly from 0 to 1 over the first `steps` training steps. The step is counted in a buffer, so
/// that it is part of a checkpoint.
pub(crate) struct LinearWarmup {
    steps_done: Tensor,
    steps: u64,
}

impl LinearWarmup {
    pub(crate) fn new(scope: &Scope<'_>, steps: u64) -> Result<Self> {
        Ok(Self { steps_done: scope.buffer("steps_done", &[1], Init::Zeros)?, steps })
    }

    pub(crate) fn device(&self) -> Device {
        self.steps_done.device()
    }

    /// The current weight; counts a step in training. 1 in evaluation.
    pub(crate) fn step(&self, train: bool) -> Result<f64> {
        let done = self.steps_done.to_f64()?;
        if train {
            self.steps_done.copy_(&self.steps_done.add_scalar(1.0)?)?;
        }
        Ok(if self.steps == 0 || !train { 1.0 } else { (done / self.steps as f64).min(1.0) })
    }
}
