//! `--model`: whatever is read and computed with.

use std::path::{Path, PathBuf};

/// The model that a command reads.
#[derive(clap::Args, Clone)]
pub(crate) struct ModelArgs {
    /// Checkpoint folder, run folder, name of a fetched model, or hub name ORG/NAME.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
}

impl ModelArgs {
    /// The folder of the model.
    pub(crate) fn dir(&self) -> PathBuf {
        locate(&self.model)
    }

    /// The folder of the checkpoint; for a run that fine-tuned one, the fine-tuned checkpoint inside the run.
    pub(crate) fn checkpoint_dir(&self) -> PathBuf {
        checkpoint_dir(&self.model)
    }
}

/// The folder of a model that is given by path or by name.
pub(crate) fn locate(model: &Path) -> PathBuf {
    mm_repr::locate(model, Path::new("."))
}

/// The checkpoint folder of a model, inside the run folder where the run fine-tuned one.
pub(crate) fn checkpoint_dir(model: &Path) -> PathBuf {
    let dir = locate(model);
    mm_tasks::finetuning::model_dir(&dir).unwrap_or(dir)
}

/// Whether a folder was written by training.
pub(crate) fn is_run(dir: &Path) -> bool {
    dir.join("config.toml").exists()
}
