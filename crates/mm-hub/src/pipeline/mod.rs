//! Pipelines: steps with declared inputs and outputs, in a TOML file anywhere. A step runs when what it does, or what it
//! reads, has changed since it last ran; nothing is deleted that no pipeline made.
//!
//! `docs/pipelines/template.toml` explains every key of the file.

mod expand;
mod file;
mod graph;
mod key;
mod made;
mod outputs;
mod plan;
mod process;
mod run;
mod state;
mod step;

pub use file::parse;
pub use run::{Runner, StepReport};
pub use step::{Action, Step};

use crate::{
    error::{At, Error, Result},
    paths::absolute,
    registry::Registry,
};
use std::path::{Path, PathBuf};

/// A pipeline whose variables are put in and whose steps are checked.
#[derive(Debug)]
pub struct Pipeline {
    /// A description of one line.
    pub about: String,
    /// Its file.
    pub file: PathBuf,
    /// The folder that everything its steps write lies in.
    pub out: PathBuf,
    /// The steps, in the order of the file.
    pub steps: Vec<Step>,
    /// The steps that each step waits for, by index.
    waits: Vec<Vec<usize>>,
    /// The steps in an order in which they can run.
    order: Vec<usize>,
    /// What can be fetched.
    pub registry: Registry,
}

/// How a pipeline is run.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct Options {
    /// Set a value of the pipeline: `NAME=VALUE` (a variable), `out=FOLDER` or `STEP.KEY=VALUE`; repeatable.
    #[cfg_attr(feature = "clap", arg(long = "set", value_name = "KEY=VALUE"))]
    pub overrides: Vec<String>,
    /// Number of seeds to train (short for --set seeds=N).
    #[cfg_attr(feature = "clap", arg(long, value_name = "N"))]
    pub seeds: Option<u64>,
    /// Run this step and all that wait for it, even where nothing changed.
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEP"))]
    pub from: Option<String>,
    /// Number of steps that run at the same time, where they do not wait for each other.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", default_value_t = 1, value_parser = parse_jobs))]
    pub jobs: usize,
    /// Print which steps would run and why, and run none.
    #[cfg_attr(feature = "clap", arg(long))]
    pub dry_run: bool,
    /// Run every step, even where nothing changed.
    #[cfg_attr(feature = "clap", arg(long))]
    pub force: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { overrides: Vec::new(), seeds: None, from: None, jobs: 1, dry_run: false, force: false }
    }
}

#[cfg(feature = "clap")]
fn parse_jobs(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|n| (1..=256).contains(n)).ok_or_else(|| "expected a whole number from 1 to 256".into())
}

/// Reads a pipeline and the files that it includes.
///
/// # Errors
/// When one of them cannot be read or is wrong; the error names the file, the step and the key.
pub fn load(file: &Path, options: &Options) -> Result<Pipeline> {
    let seeds = options.seeds.map(|n| format!("vars.seeds={n}"));
    let overrides: Vec<&str> = options.overrides.iter().chain(&seeds).map(String::as_str).collect();
    parse(&with_real_folder(file)?, &overrides, Registry::built_in()?, &|file| {
        std::fs::read_to_string(file).at(file, "read")
    })
}

/// The path of a file with the links of its folder followed: a pipeline is the same one by whichever path it is named, and
/// `..` means what it means to the system.
fn with_real_folder(file: &Path) -> Result<PathBuf> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match file.file_name() {
        Some(name) => Ok(folder.canonicalize().at(file, "read")?.join(name)),
        None => absolute(file),
    }
}

/// The error of something wrong in a pipeline file.
fn wrong(file: &Path, reason: impl Into<String>) -> Error {
    Error::Pipeline { file: file.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
