//! What is said on standard error while something is fetched or run.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Turns notes and progress bars off.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether notes and progress bars are turned off.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints a line on standard error, which nobody may read any more.
pub(crate) fn note(text: impl std::fmt::Display) {
    if !is_quiet() {
        #[cfg(test)]
        crate::testing::record(&text);
        line(text);
    }
}

/// Prints a line on standard error, even where notes are turned off.
pub(crate) fn line(text: impl std::fmt::Display) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}
