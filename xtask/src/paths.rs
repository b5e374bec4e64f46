//! Paths of the workspace, of the cache that all clones share, and of installed programs.

use anyhow::{Context, Result};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// The root folder of the workspace.
pub fn root() -> PathBuf {
    // Cargo sets the variable when it runs xtask; otherwise the folder in which xtask was built.
    let xtask =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// `$XDG_CACHE_HOME/mm`, otherwise `~/.cache/mm`: the rule of `mm_core::cache_dir`, which xtask cannot link.
pub fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|h| h.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("mm")
}

/// Locks a file, which is created, as long as the result is open; where another process holds the lock, prints `waiting`
/// and waits.
pub fn lock(path: &Path, waiting: &str) -> Result<File> {
    let open = File::options().create(true).truncate(false).write(true).open(path);
    let lock = open.with_context(|| format!("{} cannot be written", path.display()))?;
    if lock.try_lock().is_err() {
        eprintln!("{waiting}");
        lock.lock()?;
    }
    Ok(lock)
}

/// The path of the first of these programs that is on the `PATH`.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    names.iter().find_map(|name| std::env::split_paths(&path).map(|p| p.join(name)).find(|p| p.is_file()))
}
