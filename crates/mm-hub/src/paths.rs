//! The cache folder, installed programs, locks and files that are replaced as a whole.

use crate::{
    error::{At, Result},
    report::note,
};
use std::{
    fs::File,
    io::Write,
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// `$XDG_CACHE_HOME/mm`, otherwise `~/.cache/mm`: the rule of `mm_core::cache_dir`, which this crate does not link.
pub fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|h| h.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("mm")
}

/// The path of the first of these programs that is on the `PATH`.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    names.iter().find_map(|name| std::env::split_paths(&path).map(|p| p.join(name)).find(|p| p.is_file()))
}

/// Locks a file, which is created, as long as the result is open; where another process holds the lock, prints `waiting`
/// and waits.
pub(crate) fn lock(path: &Path, waiting: &str) -> Result<File> {
    let lock = File::options().create(true).truncate(false).write(true).open(path).at(path, "written")?;
    if lock.try_lock().is_err() {
        note(waiting);
        lock.lock().at(path, "locked")?;
    }
    Ok(lock)
}

/// Creates a folder and those that it lies in.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).at(path, "created")
}

/// Replaces a file as a whole: it is written next to it, synced and renamed. A link stays one, what it leads to is
/// replaced; permissions stay.
///
/// # Errors
/// When the folder or the file cannot be written; the file is as it was then.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    // Two threads may write the same file.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let path = &if path.is_symlink() { path.canonicalize().at(path, "written")? } else { path.to_owned() };
    if let Some(folder) = path.parent() {
        create_dir(folder)?;
    }
    let permissions = std::fs::metadata(path).ok().map(|m| m.permissions());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let partial = path.with_file_name(format!(".{name}.{process}-{count}.partial"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&partial)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    let result = write();
    if result.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    result.at(path, "written")
}

/// Links a file of a snapshot to a file of the folder `blobs`, which lies next to the folder of the snapshots: the layout
/// of `huggingface_hub`. A copy, where links are not usual. A link that is there stays.
pub(crate) fn link_blob(snapshot: &Path, relative: &Path, blob: &Path) -> Result<()> {
    let pointer = snapshot.join(relative);
    if let Some(parent) = pointer.parent() {
        create_dir(parent)?;
    }
    if pointer.exists() {
        return Ok(());
    }
    #[cfg(unix)]
    let linked = {
        let parents = "../".repeat(relative.components().count() + 1);
        let name = blob.file_name().unwrap_or_default().to_string_lossy();
        std::os::unix::fs::symlink(format!("{parents}blobs/{name}"), &pointer)
    };
    #[cfg(not(unix))]
    let linked = std::fs::copy(blob, &pointer).map(drop);
    if pointer.exists() { Ok(()) } else { linked.at(&pointer, "created") }
}

/// The path with a suffix after a dot: `data/birds` → `data/birds.lock`.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A path whose links are followed as far as it exists.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|folder| Some((folder, folder.canonicalize().ok()?)));
    let Some((folder, real)) = existing else { return path.to_owned() };
    let rest = path.strip_prefix(folder).unwrap_or(Path::new(""));
    if rest.as_os_str().is_empty() { real } else { real.join(rest) }
}

/// Whether there is anything at a path, a broken link included.
pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// Whether a relative path names something below the folder that it is relative to.
pub(crate) fn is_below(path: &Path) -> bool {
    !path.as_os_str().is_empty() && path.components().all(|c| matches!(c, Component::Normal(_)))
}

/// A path without `.` and `..`.
pub(crate) fn normalized(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// A path that does not depend on the current folder.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(normalized(&std::path::absolute(path).at(path, "resolved")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b.txt");
        write_file(&file, b"one").unwrap();
        write_file(&file, b"two").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        // A folder cannot be replaced by a file; nothing is left over.
        assert!(write_file(&folder.path().join("a"), b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        write_file(&real, b"one").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink("real", &link).unwrap();
        write_file(&link, b"two").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        symlink(folder.path().join("none"), folder.path().join("broken")).unwrap();
        assert!(write_file(&folder.path().join("broken"), b"x").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_as_far_as_a_path_exists() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("a b")).unwrap();
        std::os::unix::fs::symlink(real.join("a b"), real.join("link")).unwrap();
        assert_eq!(resolved(&real.join("link/é/f")), real.join("a b/é/f"));
        assert_eq!(resolved(&real.join("link")), real.join("a b"));
        assert_eq!(with_suffix(Path::new("/a/b.c"), "lock"), Path::new("/a/b.c.lock"));
    }

    #[test]
    fn paths_are_normalized_and_checked() {
        assert_eq!(normalized(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert!(is_below(Path::new("a/b")));
        for outside in ["", "../a", "a/../../b", "/a", "."] {
            assert!(!is_below(Path::new(outside)), "{outside}");
        }
    }
}
