//! Progress on standard error, where that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mm_train::Progress;
use std::{collections::BTreeMap, io::IsTerminal, time::Instant};

fn bar(template: &str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// Tells of long work before training: what, how much, of how much.
pub(crate) struct Steps {
    bar: ProgressBar,
    what: String,
    last: Instant,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { bar: bar("{msg:24} {wide_bar} {pos}/{len} {eta}"), what: String::new(), last: Instant::now() }
    }

    pub(crate) fn tell(&mut self, what: &str, done: usize, of: usize) {
        if of == 0 {
            return;
        }
        let plain = !std::io::stderr().is_terminal();
        if self.what != what || (plain && self.last.elapsed().as_secs() >= 10) {
            what.clone_into(&mut self.what);
            self.last = Instant::now();
            if plain {
                eprintln!("{what}: {done} of {of}");
            }
        }
        self.bar.set_message(what.to_owned());
        self.bar.set_length(of as u64);
        self.bar.set_position(done as u64);
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar over the steps with loss and rate; a line now and then where there is no terminal.
pub(crate) struct Training {
    bar: ProgressBar,
    last: Instant,
    steps: u64,
}

impl Training {
    pub(crate) fn new() -> Self {
        Self { bar: bar("training {wide_bar} {pos}/{len} {msg} {per_sec} {eta} left"), last: Instant::now(), steps: 0 }
    }
}

impl Progress for Training {
    fn begin(&mut self, done: u64, steps: u64) {
        self.steps = steps;
        self.bar.set_length(steps);
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    fn step(&mut self, step: u64, loss: f64, rate: f64) {
        self.bar.set_position(step);
        self.bar.set_message(format!("loss {loss:.3} rate {rate:.1e}"));
        if self.bar.is_hidden() && self.last.elapsed().as_secs() >= 15 {
            self.last = Instant::now();
            eprintln!("step {step} of {}: loss {loss:.3}, rate {rate:.1e}", self.steps);
        }
    }

    fn evaluated(&mut self, step: u64, values: &BTreeMap<String, f64>) {
        let text = values.iter().map(|(n, v)| format!("{n} {v:.3}")).collect::<Vec<_>>().join(", ");
        if self.bar.is_hidden() {
            eprintln!("step {step}: {text}")
        } else {
            self.bar.println(format!("step {step}: {text}"))
        }
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
