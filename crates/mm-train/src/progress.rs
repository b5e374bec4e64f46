//! Progress reporting.

use std::collections::BTreeMap;

/// Receives the progress of a training run, for a progress bar or a log.
pub trait Progress {
    /// Training starts; `done` of `steps` optimizer steps are already done in a resumed run.
    fn begin(&mut self, done: u64, steps: u64);
    /// An optimizer step is done.
    fn step(&mut self, step: u64, loss: f64, lr: f64);
    /// An evaluation is done.
    fn evaluated(&mut self, step: u64, metrics: &BTreeMap<String, f64>);
    /// Training ends.
    fn end(&mut self);
}

/// Discards progress.
pub struct NoopProgress;

impl Progress for NoopProgress {
    fn begin(&mut self, _: u64, _: u64) {}
    fn step(&mut self, _: u64, _: f64, _: f64) {}
    fn evaluated(&mut self, _: u64, _: &BTreeMap<String, f64>) {}
    fn end(&mut self) {}
}
