#![doc = include_str!("../README.md")]

mod args;
mod commands;
mod context;
mod exit;
mod fetch;
mod logging;
mod output;
mod program;
mod progress;

pub use program::Program;

use clap::{CommandFactory, Parser};
use commands::Command;
use std::process::ExitCode;

/// Multimodal learning: text, images, audio and video, from raw files to embeddings, training, evaluation and search.
#[derive(Parser)]
#[command(
    name = "mm",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "Examples:\n  mm inspect data.jsonl                 what a data set holds and what cannot be read\n  mm train config.toml --out runs/a     train as a config file says\n  mm report --model runs/a              one HTML page with metrics, plots and samples\n\nGrammar, JSON output and exit codes: docs/cli.md"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

/// Options of every command.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct GlobalArgs {
    /// Print results as JSON lines on standard output; everything else goes to standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Device to compute on: cpu, cuda, cuda:N, or auto (the first GPU, else the CPU).
    #[arg(long, global = true, env = "MM_DEVICE", default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Number of CPU threads [default: OMP_NUM_THREADS, else the cores and processor time that the system allows].
    #[arg(long, global = true, env = "MM_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print no progress and no notes; warnings and errors remain.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Print more log messages; repeat for debug output. MM_LOG sets a tracing filter instead.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// The grammar of the command line as a [`clap::Command`], for help pages, completions and tests.
pub fn command() -> clap::Command {
    let command = accept_negative_numbers(Cli::command());
    let template = commands::help_template(&command);
    command.help_template(template)
}

/// Lets every option that takes a value take a negative number, so that the error of one that is out of range says what
/// is expected rather than that `-3` is no option.
fn accept_negative_numbers(command: clap::Command) -> clap::Command {
    let accept = |argument: clap::Arg| {
        let takes_value = argument.get_action().takes_values() && !argument.is_positional();
        if takes_value { argument.allow_negative_numbers(true) } else { argument }
    };
    command.mut_args(accept).mut_subcommands(accept_negative_numbers)
}

/// The error of a value that cannot be parsed, where Rust's text says what is wrong with it and not what is expected.
fn describe_number(error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    use std::error::Error as _;
    let expected = match error.source() {
        Some(source) if source.is::<std::num::ParseIntError>() => "a whole number of at least 0",
        Some(source) if source.is::<std::num::ParseFloatError>() => "a number",
        _ => return error,
    };
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let (argument, value) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    let message =
        format!("{argument}: found {value:?}, expected {expected}\n\nSee `{} COMMAND --help`.\n", exit::program_name());
    clap::Error::raw(ErrorKind::ValueValidation, message)
}

/// Runs the program with the encoders that `register` adds, and with them modalities, to those that mm has; a
/// [`Program`] takes tasks, methods and data sets as well. The result is the exit code (0 success, 1 failure, 2 usage
/// error, 130 interrupted).
pub fn run(register: impl FnOnce(&mut mm_core::Registry)) -> ExitCode {
    Program::new().encoders(register).run()
}

/// The Rust examples of the documentation compile.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../../../README.md")]
    struct Readme;

    #[doc = include_str!("../../../docs/extend.md")]
    struct Extend;
}
