//! Set-up, downloads, pipelines, tests and benches: `cargo xtask`. Links no libtorch, so it runs on a bare machine.

mod cargo;
mod docs;
mod doctor;
mod fetch;
mod hub;
mod parity;
mod pipeline;
mod places;
mod registry;
mod setup;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Builds mm, brings what it needs, and runs its pipelines.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
#[command(
    after_help = "Start with:\n  cargo xtask demo    set up, train on real pictures, captions and voices, write a report\n  cargo xtask test    set up, run every test"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring libtorch and ffmpeg, and write what cargo needs to find them. A second run takes a moment.
    Setup {
        /// libtorch with CUDA (from an own LIBTORCH or a Python's torch; the fetched one computes on the processor).
        #[arg(long)]
        cuda: bool,
        /// Fetch and write everything anew.
        #[arg(long)]
        force: bool,
    },
    /// Say what was found on this machine, with a remedy under each thing that is wrong.
    Doctor,
    /// Data sets: `fetch NAME`, `list`.
    Data {
        #[command(subcommand)]
        what: DataCommand,
    },
    /// Pretrained weights: `pull NAME`, `list`.
    Models {
        #[command(subcommand)]
        what: ModelsCommand,
    },
    /// Run a pipeline: its steps in order, those skipped whose inputs, parameters and program have not changed.
    #[command(after_help = "Example:\n  cargo xtask run docs/pipelines/demo.toml --set seeds=3")]
    Run(pipeline::Arguments),
    /// The pipeline docs/pipelines/demo.toml, after all the set-up it needs.
    Demo(pipeline::Options),
    /// Every test, after all the set-up they need.
    Test {
        /// Passed on to `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Benches against the peers; all, or one by name (`list` names them).
    Bench {
        /// The bench.
        name: Option<String>,
        /// Passed on to it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Hold the pretrained families against the programs that they come from (makes a Python environment, some GB, once).
    #[command(after_help = "Examples:\n  cargo xtask parity\n  cargo xtask parity clip whisper --seed 7")]
    Parity(parity::Arguments),
    /// The documentation of every crate, warnings refused.
    Docs {
        /// Check commands, paths, links and configs in README.md and docs/ instead.
        #[arg(long)]
        check: bool,
    },
    /// Format, lints, docs and tests: what must pass before a change lands.
    Ci,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Fetch a data set into the cache.
    Fetch {
        /// Its name.
        name: String,
    },
    /// Name the data sets that are known.
    List,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// Fetch weights: by a name of the registry into mm's cache, by `ORG/NAME[@REVISION]` from the model hub into the cache that
    /// Python's huggingface_hub uses (HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are heeded).
    #[command(
        after_help = "Examples:\n  cargo xtask models pull all-MiniLM-L6-v2\n  cargo xtask models pull openai/clip-vit-base-patch32\n  cargo xtask models pull google/vit-base-patch16-224@main"
    )]
    Pull {
        /// Their name.
        name: String,
    },
    /// Name the weights that are known.
    List,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup { cuda, force } => setup::run(cuda, force),
        Command::Doctor => doctor::run(),
        Command::Data { what: DataCommand::Fetch { name } } => {
            registry::fetch(registry::Kind::Data, &name).map(|p| println!("{}", p.display()))
        }
        Command::Data { what: DataCommand::List } => registry::list(registry::Kind::Data),
        Command::Models { what: ModelsCommand::Pull { name } } => {
            let folder = if name.contains(['/', '@']) {
                hub::Hub::from_environment()?.pull(&name)?
            } else {
                registry::fetch(registry::Kind::Models, &name)?
            };
            println!("{}", folder.display());
            Ok(())
        }
        Command::Models { what: ModelsCommand::List } => registry::list(registry::Kind::Models),
        Command::Run(arguments) => {
            setup::run(false, false)?;
            pipeline::run(&arguments)
        }
        Command::Demo(options) => {
            setup::run(false, false)?;
            pipeline::run(&pipeline::Arguments { pipeline: PathBuf::from("docs/pipelines/demo.toml"), options })
        }
        Command::Test { rest } => cargo::test(&rest),
        Command::Bench { name, rest } => cargo::bench(name.as_deref(), &rest),
        Command::Parity(arguments) => parity::run(&arguments),
        Command::Docs { check: true } => docs::check(),
        Command::Docs { check: false } => cargo::docs(),
        Command::Ci => cargo::ci(),
    }
}
