//! `--store`: rows that are kept and searched.

use anyhow::Result;
use mm_index::Store;
use std::path::{Path, PathBuf};

/// The store that a command works on.
#[derive(clap::Args, Clone)]
pub(crate) struct StoreArgs {
    /// Folder of the store, or postgres://USER@HOST/DATABASE?schema=NAME, made by `mm index build`.
    #[arg(long, value_name = "FOLDER|URL")]
    pub(crate) store: PathBuf,
}

impl StoreArgs {
    /// The store.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub(crate) fn open(&self) -> Result<Box<dyn Store>> {
        Ok(mm_index::open(&self.store)?)
    }

    /// The location as messages and reports show it: without the password of a database.
    pub(crate) fn shown(&self) -> PathBuf {
        mm_index::without_password(&self.store).into()
    }
}

/// The model of a store's vectors, by which it is found again: an absolute path where it is a folder, else its name.
pub(crate) fn model_name(model: &Path) -> String {
    let path = if model.exists() { std::fs::canonicalize(model).ok() } else { None };
    path.unwrap_or_else(|| model.to_owned()).display().to_string()
}
