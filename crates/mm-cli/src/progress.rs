//! Progress on standard error: a bar on a terminal, a line now and then elsewhere, nothing with `--quiet`.

use crate::output::{is_quiet, stderr};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mm_train::Progress;
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

fn bar(template: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() && !is_quiet() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// Progress of work that is not training: a label and how many of how many items are done.
pub(crate) struct ItemProgress {
    bar: ProgressBar,
    label: String,
    last_line: Instant,
}

impl ItemProgress {
    /// How often a line is printed where there is no terminal.
    const INTERVAL: Duration = Duration::from_secs(10);

    pub(crate) fn new() -> Self {
        Self { bar: bar("{msg:24} {wide_bar} {pos}/{len} {eta}"), label: String::new(), last_line: Instant::now() }
    }

    pub(crate) fn update(&mut self, label: &str, done: usize, total: usize) {
        if total == 0 || is_quiet() {
            return;
        }
        let plain = !std::io::stderr().is_terminal();
        if self.label != label || (plain && self.last_line.elapsed() >= Self::INTERVAL) {
            label.clone_into(&mut self.label);
            self.last_line = Instant::now();
            if plain {
                stderr(format!("{label}: {done} of {total}\n"));
            }
        }
        self.bar.set_message(label.to_owned());
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Progress of training: steps, loss and learning rate.
pub(crate) struct TrainingProgress {
    bar: ProgressBar,
    last_line: Instant,
    total_steps: u64,
}

impl TrainingProgress {
    /// How often a line is printed where there is no terminal.
    const INTERVAL: Duration = Duration::from_secs(15);

    pub(crate) fn new() -> Self {
        Self {
            bar: bar("training {wide_bar} {pos}/{len} {msg} {per_sec} {eta} left"),
            last_line: Instant::now(),
            total_steps: 0,
        }
    }
}

impl Progress for TrainingProgress {
    fn begin(&mut self, done: u64, total_steps: u64) {
        self.total_steps = total_steps;
        self.bar.set_length(total_steps);
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    fn step(&mut self, step: u64, loss: f64, lr: f64) {
        self.bar.set_position(step);
        self.bar.set_message(format!("loss {loss:.3} lr {lr:.1e}"));
        if self.bar.is_hidden() && !is_quiet() && self.last_line.elapsed() >= Self::INTERVAL {
            self.last_line = Instant::now();
            stderr(format!("step {step} of {}: loss {loss:.3}, lr {lr:.1e}\n", self.total_steps));
        }
    }

    fn evaluated(&mut self, step: u64, metrics: &BTreeMap<String, f64>) {
        let text = metrics.iter().map(|(n, v)| format!("{n} {v:.3}")).collect::<Vec<_>>().join(", ");
        if !self.bar.is_hidden() {
            self.bar.println(format!("step {step}: {text}"))
        } else if !is_quiet() {
            stderr(format!("step {step}: {text}\n"))
        }
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
