//! `cargo xtask run`: a pipeline with the mm of this workspace, which is built when a step needs it.

use crate::{
    cargo::{NOT_INCREMENTAL, cargo},
    paths::root,
    setup,
};
use anyhow::{Context, Result, bail};
use mm_hub::pipeline::{self, Options, Runner};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    /// The program mm [default: a release build of this workspace, made when a step needs it].
    #[arg(long, value_name = "FILE")]
    mm: Option<PathBuf>,
    #[arg(skip)]
    profile: Profile,
    #[command(flatten)]
    options: Options,
}

/// How mm is built for a pipeline.
#[derive(Clone, Copy, Default)]
enum Profile {
    #[default]
    Release,
    /// In half the time, for a first look: libtorch, which trains, is the same.
    Dev,
}

#[derive(clap::Args)]
pub struct DemoArguments {
    /// Train as long as the table of docs/retrieval.md was trained (short for --set epochs=420 --set views=3).
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    options: Options,
}

impl From<DemoArguments> for Arguments {
    fn from(mut demo: DemoArguments) -> Self {
        if demo.full {
            demo.options.overrides.extend(["epochs=420".to_owned(), "views=3".to_owned()]);
        }
        let pipeline = root().join("docs/pipelines/demo.toml");
        Self { pipeline, mm: None, profile: Profile::Dev, options: demo.options }
    }
}

impl Arguments {
    fn load(&self) -> Result<pipeline::Pipeline> {
        // From anywhere in the clone, the path may be that from its root.
        let in_workspace = root().join(&self.pipeline);
        let file = if !self.pipeline.exists() && in_workspace.exists() { &in_workspace } else { &self.pipeline };
        Ok(pipeline::load(file, &self.options)?)
    }
}

/// The files and folders that a pipeline writes, relative to the workspace where they lie in it.
pub fn outputs(arguments: &Arguments) -> Result<Vec<String>> {
    let outputs = arguments.load()?.steps.into_iter().flat_map(|step| step.outputs);
    let relative = |path: &Path| path.strip_prefix(root()).unwrap_or(path).display().to_string();
    Ok(outputs.map(|path| relative(&path)).collect())
}

/// Runs a pipeline.
pub fn run(arguments: &Arguments) -> Result<()> {
    let pipeline = arguments.load()?;
    let given = arguments.mm.as_deref().map(given_program).transpose()?;
    let mm = || match &given {
        Some(program) => Ok(program.clone()),
        None => build(arguments.profile).map_err(|error| mm_hub::Error::Other(format!("{error:#}"))),
    };
    let stop = stop_on_interrupt()?;
    let runner = Runner { mm: &mm, stop: &stop, keeps_stdout: false };
    runner.run(&pipeline, &arguments.options)?;
    Ok(())
}

/// The path of a program, which steps run from other folders.
fn given_program(file: &Path) -> Result<PathBuf> {
    if !file.is_file() {
        bail!("--mm {}: no such file, expected the program mm", file.display());
    }
    std::path::absolute(file).with_context(|| format!("--mm {}", file.display()))
}

/// The flag that the first Ctrl-C sets: the programs of the steps get it too, and are waited for. The second one ends.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("xtask: waiting for the steps that run; press Ctrl-C again to stop at once");
    };
    ctrlc::set_handler(handler).context("cannot install a Ctrl-C handler")?;
    Ok(stop)
}

/// Sets up, builds `mm` and returns the path of its binary.
fn build(profile: Profile) -> Result<PathBuf> {
    setup::run(false, false)?;
    eprintln!("building mm (minutes the first time) …");
    let (options, folder): (&[&str], _) = match profile {
        Profile::Release => (&["--release"], "release"),
        Profile::Dev => (&[], "debug"),
    };
    let mut build = cargo();
    build.args(["build", "--package", "mm-cli"]).args(options).envs([NOT_INCREMENTAL]);
    if !build.status()?.success() {
        bail!("mm could not be built; `cargo xtask doctor` checks for the usual causes");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(root().join(target).join(folder).join("mm"))
}
