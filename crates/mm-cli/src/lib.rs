//! The command line of mm, as a library: a program of your own has every command of `mm` plus the encoders, and so the modalities, that it
//! registers.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     mm_cli::run(|registry| {
//!         // my_modality::register(registry);
//!         let _ = registry;
//!     })
//! }
//! ```
//!
//! The grammar that all commands share is described in `docs/cli.md`.

mod args;
mod commands;
mod context;
mod exit;
mod output;
mod progress;

use clap::{CommandFactory, FromArgMatches, Parser};
use commands::Command;
use context::Context;
use std::{io::IsTerminal, process::ExitCode};

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
    let message = format!("{argument}: found {value:?}, expected {expected}\n\nSee `mm COMMAND --help`.\n");
    clap::Error::raw(ErrorKind::ValueValidation, message)
}

/// Runs the program: parses the arguments, runs the command, prints its error. `register` adds encoders (and with them modalities) to
/// those that mm has; the result is the exit code (0 success, 1 failure, 2 usage error, 130 interrupted).
pub fn run(register: impl FnOnce(&mut mm_core::Registry)) -> ExitCode {
    mm_core::retain_freed_memory();
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let error = describe_number(error);
            // Help and version are results.
            let printed = error.print();
            if !error.use_stderr() {
                output::written(printed.and_then(|()| std::io::Write::flush(&mut std::io::stdout())));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    // Not earlier: help and usage errors need no second start.
    mm_core::limit_spinning();
    start_logging(cli.global.verbose);
    output::set_quiet(cli.global.quiet);
    let threads = cli.global.threads.map_or_else(mm_core::available_threads, usize::from);
    mm_core::set_num_threads(threads);
    let mut registry = mm_tasks::registry();
    mm_tabular::register(&mut registry);
    register(&mut registry);
    let context = Context::new(cli.global.json, cli.global.device, threads, registry);
    match cli.command.run(&context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("MM_LOG").unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}

/// The Rust examples of the documentation compile.
#[cfg(doctest)]
mod documentation {
    #[doc = include_str!("../../../README.md")]
    struct Readme;

    #[doc = include_str!("../../../docs/extend.md")]
    struct Extend;
}
