//! `cargo xtask new`: a crate of one's own that adds a modality, an operator, a method, a network, a task or a data set to
//! mm, from outside this workspace; and a pipeline to start from.

mod check;
mod generate;
mod kind;
mod name;
mod pipeline;
#[cfg(test)]
mod tests;

use anyhow::Result;
use clap::Subcommand;
use generate::generate;
use kind::Kind;
use std::path::PathBuf;

/// Make a crate of your own that extends mm, or a pipeline.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Arguments {
    /// Make a crate of every kind in a temporary folder, compile each, and run the tests of the modality's.
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<NewCommand>,
}

#[derive(Subcommand)]
enum NewCommand {
    /// A modality: processor, encoder, registration, and how `mm fit` recognizes its columns.
    #[command(after_help = "Example:\n  cargo xtask new modality accelerometer --dir ~/projects")]
    Modality(CrateArguments),
    /// A fusion operator: several modalities → one.
    FusionOperator(CrateArguments),
    /// An alignment method: two modalities' features → one space (`mm align`).
    AlignmentMethod(CrateArguments),
    /// A reasoning network: one modality queries the others.
    ReasoningNetwork(CrateArguments),
    /// A task: what a config can train, evaluate and report.
    Task(CrateArguments),
    /// A data set reader: an unpacked folder → a manifest (`mm prepare`).
    Reader(CrateArguments),
    /// A pipeline, NAME.toml: a complete one whose comments explain every key, to be changed (`cargo xtask run`, `mm run`).
    #[command(after_help = "Example:\n  cargo xtask new pipeline birds --dir ~/projects")]
    Pipeline(PipelineArguments),
}

/// The pipeline to make.
#[derive(clap::Args)]
struct PipelineArguments {
    /// Name of the file, without its ending.
    name: String,
    /// Folder in which the file is made.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// The crate to make.
#[derive(clap::Args)]
struct CrateArguments {
    /// Name of the crate and of what it adds: lower-case letters, digits and hyphens.
    name: String,
    /// Folder in which the crate's folder is made.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Makes a crate, or checks the templates of all.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Some(command) = &arguments.command else { return check(None) };
    let (kind, CrateArguments { name, dir }) = match command {
        NewCommand::Modality(crate_arguments) => (&kind::MODALITY, crate_arguments),
        NewCommand::FusionOperator(crate_arguments) => (&kind::FUSION_OPERATOR, crate_arguments),
        NewCommand::AlignmentMethod(crate_arguments) => (&kind::ALIGNMENT_METHOD, crate_arguments),
        NewCommand::ReasoningNetwork(crate_arguments) => (&kind::REASONING_NETWORK, crate_arguments),
        NewCommand::Task(crate_arguments) => (&kind::TASK, crate_arguments),
        NewCommand::Reader(crate_arguments) => (&kind::READER, crate_arguments),
        NewCommand::Pipeline(PipelineArguments { name, dir }) => {
            let file = pipeline::make(name, dir)?;
            println!("{}", file.display());
            eprintln!("next: cargo xtask run {:?} --dry-run", file.display().to_string());
            return Ok(());
        }
    };
    let folder = make(kind, name, dir)?;
    println!("{}", folder.display());
    eprintln!("next: cd {} && cargo test", folder.display());
    Ok(())
}

/// Makes a crate of every kind in a temporary folder and compiles each.
pub fn check(shared_target: Option<&std::path::Path>) -> Result<()> {
    check::run(shared_target)
}

/// Makes a crate that builds at once; its settings of libtorch are those of this clone, which is set up first where it is
/// not yet.
fn make(kind: &Kind, name: &str, dir: &std::path::Path) -> Result<PathBuf> {
    name::check(kind, name)?;
    generate::check_target(name, dir)?;
    let settings = crate::setup::cargo_settings();
    if !settings.exists() {
        crate::setup::run(false, false)?;
    }
    generate(kind, name, dir)
}
