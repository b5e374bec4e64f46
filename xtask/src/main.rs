//! `cargo xtask`: setup, downloads, pipelines, tests and benchmarks. It does not link libtorch, so it runs before
//! setup.

mod cargo;
mod ci;
mod dist;
mod docs;
mod doctor;
mod fuzz;
mod nccl;
mod new;
mod outside;
mod parity;
mod paths;
mod pipeline;
mod postgres;
mod setup;
mod temporary;
mod torture;

use clap::{Parser, Subcommand};
use mm_hub::registry::{self, Kind, Registry};
use std::{path::PathBuf, process::ExitCode};

/// Builds mm, downloads its dependencies, and runs its pipelines
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
#[command(
    after_help = "Start with:\n  cargo xtask demo    set up, train on real images, captions and speech, write a report\n  cargo xtask test    set up, run all tests"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Download libtorch and ffmpeg where needed, and write the cargo settings that locate them: of this workspace, or
    /// of a project of your own that depends on one of its crates.
    #[command(after_help = "Examples:\n  cargo xtask setup\n  cargo xtask setup --project ../my-project")]
    Setup {
        /// Set up the Cargo project in this folder instead: its .cargo/config.toml gets the path of libtorch and the
        /// rpath, so that `cargo run` and `cargo test` need no environment variable. Its other settings are kept.
        #[arg(long, value_name = "DIR")]
        project: Option<PathBuf>,
        /// Use a libtorch with CUDA, from LIBTORCH or Python's torch; the downloaded one is CPU-only.
        #[arg(long)]
        cuda: bool,
        /// Download and write everything again.
        #[arg(long)]
        force: bool,
    },
    /// Check this machine, and print how to fix each problem.
    Doctor,
    /// Data sets: `fetch NAME`, `list`.
    Data {
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Pretrained weights: `pull NAME`, `list`.
    Models {
        #[command(subcommand)]
        command: ModelsCommand,
    },
    /// Run the steps of a pipeline, except those whose commands and inputs have not changed.
    #[command(
        after_help = "Examples:\n  cargo xtask run docs/pipelines/demo.toml --set seeds=3\n  cargo xtask run docs/pipelines/demo.toml --dry-run    what would run, and why\n\nEvery key of a pipeline file: docs/pipelines/template.toml"
    )]
    Run(pipeline::Arguments),
    /// Set up, then run the pipeline docs/pipelines/demo.toml.
    Demo(pipeline::DemoArguments),
    /// Set up, then run all tests.
    Test {
        /// Arguments for `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Run the benchmarks against other libraries: all of them, or one by name (`list` prints the names).
    Bench {
        /// The name of the benchmark.
        name: Option<String>,
        /// Arguments for the benchmark.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Compare mm with the reference libraries (creates a Python environment of some GB once).
    #[command(after_help = "Examples:\n  cargo xtask parity\n  cargo xtask parity clip whisper --seed 7")]
    Parity(parity::Arguments),
    /// Make a crate of your own that extends mm: a modality, a fusion operator, an alignment method, a reasoning
    /// network, a task or a data set reader, with its tests and a program with every command of mm. Or make a pipeline.
    #[command(
        after_help = "Examples:\n  cargo xtask new modality accelerometer --dir ~/projects\n  cargo xtask new task triage --dir ~/projects\n  cargo xtask new pipeline birds --dir ~/projects"
    )]
    New(new::Arguments),
    /// Fuzz the readers of files: all targets, or one by name. Exits with an error and the path of the input on a
    /// finding.
    #[command(
        after_help = "Examples:\n  cargo xtask fuzz                          all targets, ten minutes each\n  cargo xtask fuzz image --seconds 60"
    )]
    Fuzz(fuzz::Arguments),
    /// Build the documentation of all crates; warnings are errors.
    Docs {
        /// Check the commands, paths, links and configs of README.md and docs/ instead.
        #[arg(long)]
        check: bool,
    },
    /// Kill mm and xtask at random instants, fill their disk and run two at once: each must resume to the output of an
    /// undisturbed run.
    #[command(
        after_help = "Examples:\n  cargo xtask torture --kills 1000 --jobs 2\n  cargo xtask torture train words --seed 7"
    )]
    Torture(torture::Arguments),
    /// Build what is distributed: a .tar.gz that runs from any folder and a Debian package, with libtorch's libraries,
    /// manual pages, completions and the licences of everything inside.
    #[command(after_help = "Example:\n  cargo xtask dist --out target/dist")]
    Dist(dist::Arguments),
    /// Build the library with NCCL, through which several processes train on GPUs, against a libtorch with CUDA: the one of
    /// this workspace (`setup --cuda`), of LIBTORCH, or Python's torch. It needs the headers of CUDA: those of Python's wheels
    /// next to torch, or a toolkit's (CUDA_HOME).
    #[command(
        after_help = "Examples:\n  cargo xtask nccl\n  cargo xtask nccl --out /usr/local/lib/libmm_nccl.so    with MM_NCCL_LIBRARY=/usr/local/lib/libmm_nccl.so for mm"
    )]
    Nccl(nccl::Arguments),
    /// Build and run the README example of each library crate in a project outside the workspace.
    #[command(
        after_help = "Examples:\n  cargo xtask outside mm-align        one crate\n  cargo xtask outside --list          features and packages of each, without compiling"
    )]
    Outside(outside::Arguments),
    /// Check format, lints, docs and tests, as CI does.
    Ci {
        /// Also what is made outside of the workspace, into one target folder: a project for each library crate, a crate of every
        /// kind (`new --check`).
        #[arg(long)]
        outside: bool,
    },
}

#[derive(Subcommand)]
enum DataCommand {
    /// Download a data set into the cache.
    Fetch {
        /// The name of the data set.
        name: String,
    },
    /// List the data sets.
    List,
}

#[derive(Subcommand)]
enum ModelsCommand {
    /// Download weights: a name of the registry into mm's cache, `ORG/NAME[@REVISION]` from the Hugging Face Hub into
    /// the cache of Python's huggingface_hub. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are
    /// respected.
    #[command(
        after_help = "Examples:\n  cargo xtask models pull all-MiniLM-L6-v2\n  cargo xtask models pull openai/clip-vit-base-patch32\n  cargo xtask models pull google/vit-base-patch16-224@main"
    )]
    Pull {
        /// The name of the model.
        name: String,
    },
    /// List the models of the registry.
    List,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            match error.downcast_ref() {
                // As a shell reports a program that Ctrl-C ended.
                Some(mm_hub::Error::Interrupted { .. }) => ExitCode::from(130),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup { project: Some(project), cuda, force } => setup::run_for(&project, cuda, force),
        Command::Setup { project: None, cuda, force } => setup::run(cuda, force),
        Command::Doctor => doctor::run(),
        Command::Data { command: DataCommand::Fetch { name } } => print_path(&registry::fetch(Kind::Data, &name)?),
        Command::Data { command: DataCommand::List } => list(Kind::Data),
        Command::Models { command: ModelsCommand::Pull { name } } => print_path(&registry::pull(&name)?),
        Command::Models { command: ModelsCommand::List } => list(Kind::Models),
        Command::Run(arguments) => pipeline::run(&arguments),
        Command::Demo(arguments) => pipeline::run(&arguments.into()),
        Command::Test { rest } => cargo::test(&rest),
        Command::Bench { name, rest } => cargo::bench(name.as_deref(), &rest),
        Command::Parity(arguments) => parity::run(&arguments),
        Command::New(arguments) => new::run(&arguments),
        Command::Torture(arguments) => torture::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Docs { check: true } => docs::check(),
        Command::Docs { check: false } => cargo::docs(),
        Command::Dist(arguments) => dist::run(&arguments),
        Command::Nccl(arguments) => nccl::run(&arguments),
        Command::Outside(arguments) => outside::run(&arguments),
        Command::Ci { outside } => ci::ci(outside),
    }
}

fn print_path(path: &std::path::Path) -> anyhow::Result<()> {
    println!("{}", path.display());
    Ok(())
}

/// Prints the items of the registry, and whether they are in the cache.
fn list(kind: Kind) -> anyhow::Result<()> {
    for item in Registry::built_in()?.entries(kind) {
        let state = if item.cached { "cached" } else { "not cached" };
        println!("{:20} {state:12} {}", item.name, item.about);
        println!("{:33} {}; {}; from {}", "", item.license, item.size, item.from);
    }
    Ok(())
}
