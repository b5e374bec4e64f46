//! Locks on files and folders that one process at a time may write.

use crate::{Error, Result};
use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

const LOCK_FILE: &str = "lock";

/// Opens a file to be read and written, which is created where there is none, and keeps other processes that lock it
/// out as long as it is open.
///
/// # Errors
/// When another process holds the lock, or the file cannot be written.
pub fn lock_file(path: &Path) -> Result<File> {
    open_locked(path)?.ok_or_else(|| Error::file(path, "is in use by another process"))
}

/// Like [`lock_file`], but returns `None` if another process holds the lock.
fn open_locked(path: &Path) -> Result<Option<File>> {
    let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let file = open.map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(Error::file(path, format!("cannot be locked: {e}"))),
    }
}

/// Keeps other processes out of a folder as long as it lives; the operating system releases it when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    /// Closing it releases the lock.
    file: File,
}

impl FolderLock {
    /// Creates the folder where there is none, and locks it (a file `lock` in it).
    ///
    /// # Errors
    /// When another process holds the lock, or the folder cannot be written.
    pub fn acquire(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, format!("cannot be created: {e}")))?;
        let in_use = || Error::file(folder, "is in use by another process; wait for it, or choose another folder");
        let file = open_locked(&folder.join(LOCK_FILE))?.ok_or_else(in_use)?;
        Ok(Self { folder: folder.to_owned(), file })
    }

    /// Deletes the folder: what is in it while the lock is held, then the lock.
    ///
    /// # Errors
    /// When a file cannot be deleted.
    pub fn remove_folder(self) -> Result<()> {
        let failed = |e| Error::file(&self.folder, format!("cannot be deleted: {e}"));
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if is_folder {
                std::fs::remove_dir_all(entry.path()).map_err(failed)?;
            } else if entry.file_name() != LOCK_FILE {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        drop(self.file);
        std::fs::remove_file(self.folder.join(LOCK_FILE)).map_err(failed)?;
        // Another process may have claimed the folder in this moment; then it stays.
        let _ = std::fs::remove_dir(&self.folder);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_until_the_lock_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run");
        let first = FolderLock::acquire(&path).unwrap();
        let message = FolderLock::acquire(&path).unwrap_err().to_string();
        assert!(message.contains("in use by another process"), "{message}");
        drop(first);
        let second = FolderLock::acquire(&path).unwrap();
        std::fs::create_dir(path.join("part")).unwrap();
        std::fs::write(path.join("part/file"), "1").unwrap();
        second.remove_folder().unwrap();
        assert!(!path.exists() && folder.path().join("new").exists());
    }
}
