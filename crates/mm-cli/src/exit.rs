//! Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted.

use crate::output::stderr;
use mm_core::describe_error;
use std::{fmt, path::Path, process::ExitCode, sync::OnceLock};

/// Work that was stopped by Ctrl-C or SIGTERM after it saved what it had; the message says what was saved and how to
/// resume.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) String);

impl Interrupted {
    /// 128 + SIGINT, as shells report it.
    pub(crate) const EXIT_CODE: u8 = 130;
}

/// A combination of arguments that clap cannot check.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}
impl std::error::Error for Usage {}

/// Returns early with a usage error (exit code 2).
macro_rules! usage {
    ($($text:tt)*) => {
        return Err($crate::exit::Usage(format!($($text)*)).into())
    };
}

/// Returns early as interrupted (exit code 130).
macro_rules! interrupted {
    ($($text:tt)*) => {
        return Err($crate::exit::Interrupted(format!($($text)*)).into())
    };
}

pub(crate) use {interrupted, usage};

/// Prints an error on standard error and returns the exit code that belongs to it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let stopped = error.downcast_ref::<Interrupted>().map(ToString::to_string);
    let stopped_work = error.downcast_ref().filter(|e| matches!(e, mm_tasks::Error::Stopped { .. }));
    if let Some(stopped) = stopped.or_else(|| stopped_work.map(ToString::to_string)) {
        stderr(format!("interrupted: {stopped}\n"));
        return ExitCode::from(Interrupted::EXIT_CODE);
    }
    stderr(format!("error: {}\n", describe_error(error.as_ref())));
    if error.is::<Usage>() {
        stderr(format!("\nSee `{} COMMAND --help`.\n", program_name()));
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}

/// The name by which this program was started: `mm`, or that of a program of another crate.
pub(crate) fn program_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let path = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&path).file_stem().and_then(|stem| stem.to_str()).filter(|stem| !stem.is_empty());
        name.unwrap_or("mm").to_owned()
    })
}
