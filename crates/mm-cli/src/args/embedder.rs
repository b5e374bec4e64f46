//! The embedder of a command: a checkpoint folder or a run folder.

use super::model::is_run;
use crate::context::Context;
use anyhow::Result;
use mm_repr::{LoadOptions, Pretrained};
use mm_tasks::{embedding::Embedder, task::TaskModel};
use std::path::Path;

/// A loaded model that embeds.
pub(crate) enum LoadedEmbedder {
    Run(Box<dyn TaskModel>),
    Pretrained(Box<Pretrained>),
}

impl LoadedEmbedder {
    /// Loads the model in a folder; a pretrained one with these options.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub(crate) fn load(dir: &Path, options: LoadOptions, context: &Context) -> Result<Self> {
        if is_run(dir) {
            return Ok(Self::Run(context.tasks()?.load(dir)?));
        }
        Ok(Self::Pretrained(Box::new(Pretrained::load_with(dir, options)?)))
    }

    /// The model as what embeds.
    ///
    /// # Errors
    /// When it is a run of a task without embeddings.
    pub(crate) fn embedder(&self) -> Result<&dyn Embedder> {
        Ok(match self {
            Self::Run(run) => run.embedder()?,
            Self::Pretrained(model) => model.as_ref(),
        })
    }
}
