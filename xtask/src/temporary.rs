//! Folders that are made for a while.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// A folder of this process, removed at the end.
pub struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Makes `NAME-PROCESS` among the system's temporary files; an error where it exists, since it is not this process's.
    pub fn new(name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(Self(folder))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes a folder and those that it lies in; the ones that were missing, the innermost first.
pub fn make_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> =
        folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists()).map(Path::to_owned).collect();
    let made = std::fs::create_dir_all(folder);
    if made.is_err() {
        remove_empty(&missing);
    }
    made.map(|()| missing).with_context(|| format!("--dir {}: a folder cannot be made there", folder.display()))
}

/// Removes folders that [`make_folders`] made, as far as they are empty.
pub fn remove_empty(folders: &[PathBuf]) {
    for folder in folders {
        let _ = std::fs::remove_dir(folder);
    }
}
