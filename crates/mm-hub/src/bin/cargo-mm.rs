//! `cargo mm setup`: sets up a project that depends on one of mm's crates, without mm itself. It links no libtorch, so
//! `cargo install` builds it anywhere.

use clap::Parser;
use mm_hub::{describe, libtorch::Request, project};
use std::{path::PathBuf, process::ExitCode};

/// What cargo runs for `cargo mm`.
#[derive(Parser)]
#[command(name = "cargo", bin_name = "cargo", disable_help_subcommand = true)]
enum Cargo {
    /// Sets up Cargo projects that depend on one of mm's crates
    #[command(version, arg_required_else_help = true)]
    Mm {
        #[command(subcommand)]
        command: Command,
    },
}

#[derive(clap::Subcommand)]
enum Command {
    /// Find or fetch libtorch, and write it and the rpath into the project's .cargo/config.toml, so that `cargo run` and
    /// `cargo test` need no environment variable. What the file already says stays
    #[command(after_help = "Examples:\n  cargo mm setup\n  cargo mm setup ../my-project")]
    Setup {
        /// The folder of the project.
        #[arg(default_value = ".")]
        project: PathBuf,
        /// Use a libtorch with CUDA, from LIBTORCH or Python's torch; the fetched one is CPU-only.
        #[arg(long)]
        cuda: bool,
        /// Download it again.
        #[arg(long)]
        force: bool,
    },
}

fn main() -> ExitCode {
    let Cargo::Mm { command: Command::Setup { project, cuda, force } } = Cargo::parse();
    match project::set_up(&project, &Request { cuda, force, settings: None }) {
        Ok(done) => {
            done.warnings.iter().for_each(|text| eprintln!("warning: {text}"));
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}
