//! `cargo xtask run`: a pipeline with the mm of this workspace, which is built when a step needs it.

use crate::{cargo::cargo, paths::root, setup};
use anyhow::{Result, bail};
use mm_hub::pipeline::{self, Options, Runner};
use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The pipeline file.
    pipeline: PathBuf,
    #[command(flatten)]
    options: Options,
}

#[derive(clap::Args)]
pub struct DemoArguments {
    /// Train as long as the table of docs/retrieval.md was trained (short for --set epochs=420).
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    options: Options,
}

impl From<DemoArguments> for Arguments {
    fn from(mut demo: DemoArguments) -> Self {
        if demo.full {
            demo.options.overrides.push("epochs=420".to_owned());
        }
        Self { pipeline: root().join("docs/pipelines/demo.toml"), options: demo.options }
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
    let mm = || build().map_err(|error| mm_hub::Error::Other(format!("{error:#}")));
    let runner = Runner { mm: &mm, stop: &AtomicBool::new(false), keeps_stdout: false };
    runner.run(&pipeline, &arguments.options)?;
    Ok(())
}

/// Sets up, builds `mm` and returns the path of its binary.
fn build() -> Result<PathBuf> {
    setup::run(false, false)?;
    eprintln!("building mm (minutes the first time) …");
    let status = cargo().args(["build", "--release", "--package", "mm-cli"]).status()?;
    if !status.success() {
        bail!("mm could not be built; `cargo xtask doctor` checks for the usual causes");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(root().join(target).join("release/mm"))
}
