//! `--model`: whatever is read and computed with.

use anyhow::{Result, bail};
use mm_repr::ModelPaths;
use std::path::{Path, PathBuf};

/// The model that a command reads.
#[derive(clap::Args, Clone)]
pub(crate) struct ModelArgs {
    /// Checkpoint folder, run folder, name of a fetched model, hub name ORG/NAME, or URL of a folder (s3://, gs://, az://,
    /// hf://).
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
}

impl ModelArgs {
    /// The model as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.model
    }

    /// The folder of the model.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn dir(&self) -> Result<PathBuf> {
        locate(&self.model)
    }

    /// The folder of the checkpoint; for a run that fine-tuned one, the fine-tuned checkpoint inside the run.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn checkpoint_dir(&self) -> Result<PathBuf> {
        checkpoint_dir(&self.model)
    }
}

/// The folder of a model that is given by path, by name or by URL.
///
/// # Errors
/// When there is none.
pub(crate) fn locate(model: &Path) -> Result<PathBuf> {
    let dir = ModelPaths::locate(model, Path::new("."))?;
    if !dir.is_dir() {
        let found = if dir.exists() { "a file" } else { "no such folder and no model of that name" };
        bail!(
            "--model {}: found {found}, expected a checkpoint folder, a run folder, the name of a fetched model, a hub name \
             ORG/NAME or the URL of a folder; `mm models list` shows the names, `mm models pull NAME` fetches one",
            model.display()
        );
    }
    Ok(dir)
}

/// The checkpoint folder of a model, inside the run folder where the run fine-tuned one.
///
/// # Errors
/// When there is none.
pub(crate) fn checkpoint_dir(model: &Path) -> Result<PathBuf> {
    let dir = locate(model)?;
    Ok(mm_tasks::finetuning::model_dir(&dir).unwrap_or(dir))
}

/// Whether the model is at a URL: its folder on this machine is a copy, which nothing is written to.
pub(crate) fn is_copy(model: &Path) -> bool {
    mm_data::is_remote(model)
}

/// Whether a folder was written by training.
pub(crate) fn is_run(dir: &Path) -> bool {
    dir.join("config.toml").exists()
}
