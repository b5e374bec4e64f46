//! Sets this workspace up: libtorch, ffmpeg and nasm, and the cargo settings so that no environment variable has to be
//! set.

use crate::paths::root;
use anyhow::{Context, Result};
use mm_hub::{
    libtorch::{self, Request},
    paths::write_file,
    project, tools,
};
use std::path::{Path, PathBuf};

/// The cargo settings that setup writes, which `.cargo/config.toml` includes.
pub fn cargo_settings() -> PathBuf {
    root().join(".cargo/libtorch.toml")
}

/// The libtorch of the environment, which the user set.
pub fn from_environment() -> Result<Option<libtorch::Libtorch>> {
    Ok(libtorch::from_environment(Some(&cargo_settings()))?)
}

/// Finds or downloads everything.
pub fn run(cuda: bool, force: bool) -> Result<()> {
    let found = libtorch::find_or_fetch(&request(cuda, force))?;
    let (file, text) = (cargo_settings(), libtorch::settings(&found.folder));
    if std::fs::read_to_string(&file).ok().as_ref() != Some(&text) {
        write_file(&file, text.as_bytes())
            .with_context(|| format!("{} cannot be written; check that the clone is not read-only", file.display()))?;
    }
    // The build and everything but video work without it.
    if let Err(error) = tools::ffmpeg(force) {
        eprintln!("xtask: no ffmpeg: {}", mm_hub::describe(&error));
    }
    tools::nasm(force);
    Ok(())
}

/// What is asked for, apart from what an earlier set-up of this workspace wrote.
pub fn request(cuda: bool, force: bool) -> Request {
    Request { cuda, force, settings: Some(cargo_settings()) }
}

/// Sets up a project outside of this workspace that depends on one of its crates.
pub fn run_for(project: &Path, cuda: bool, force: bool) -> Result<()> {
    let done = project::set_up(project, &request(cuda, force))?;
    done.warnings.iter().for_each(|text| eprintln!("xtask: {text}"));
    println!("{done}");
    Ok(())
}
