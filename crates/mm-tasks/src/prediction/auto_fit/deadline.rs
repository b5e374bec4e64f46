//! A time limit as a stop flag.

use mm_train::Progress;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// A limit in seconds; `None` for one that is further away than the clock can count.
pub(super) fn time_limit(seconds: f64) -> Option<Duration> {
    let limit = Duration::try_from_secs_f64(seconds).ok()?;
    Instant::now().checked_add(limit).map(|_| limit)
}

/// A flag that is set when another one is, or after a deadline; checked between training steps and between batches of
/// encoding.
pub(super) struct Deadline<'a> {
    stop: &'a AtomicBool,
    until: Option<Instant>,
    flag: AtomicBool,
}

impl<'a> Deadline<'a> {
    pub(super) fn new(stop: &'a AtomicBool, until: Option<Instant>) -> Self {
        let deadline = Self { stop, until, flag: AtomicBool::new(false) };
        deadline.check();
        deadline
    }

    /// The flag, as of the last check.
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Sets the flag if it is time.
    pub(super) fn check(&self) {
        if self.stop.load(Ordering::Relaxed) || self.until.is_some_and(|until| Instant::now() >= until) {
            self.flag.store(true, Ordering::Relaxed);
        }
    }
}

/// Training progress that checks a deadline after each step.
pub(super) struct CheckedProgress<'a> {
    pub(super) progress: &'a mut dyn Progress,
    pub(super) deadline: &'a Deadline<'a>,
}

impl Progress for CheckedProgress<'_> {
    fn begin(&mut self, done: u64, steps: u64) {
        self.progress.begin(done, steps);
    }

    fn step(&mut self, step: u64, loss: f64, lr: f64) {
        self.progress.step(step, loss, lr);
        self.deadline.check();
    }

    fn evaluated(&mut self, step: u64, metrics: &BTreeMap<String, f64>) {
        self.progress.evaluated(step, metrics);
    }

    fn end(&mut self) {
        self.progress.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_train::NoopProgress;

    #[test]
    fn the_flag_is_set_by_the_other_flag_and_by_the_deadline() {
        let stop = AtomicBool::new(false);
        let deadline = Deadline::new(&stop, None);
        let mut progress = CheckedProgress { progress: &mut NoopProgress, deadline: &deadline };
        progress.step(1, 0.0, 0.0);
        assert!(!deadline.flag().load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        progress.step(2, 0.0, 0.0);
        assert!(deadline.flag().load(Ordering::Relaxed));
        let running = AtomicBool::new(false);
        assert!(Deadline::new(&running, Some(Instant::now())).flag().load(Ordering::Relaxed));
        let later = Some(Instant::now() + Duration::from_secs(3600));
        assert!(!Deadline::new(&running, later).flag().load(Ordering::Relaxed));
    }

    #[test]
    fn a_limit_beyond_the_clock_is_none() {
        assert_eq!(time_limit(1.5), Some(Duration::from_millis(1500)));
        assert_eq!([1e19, 1e20, 1e300, f64::MAX].map(time_limit), [None; 4]);
    }
}
