//! The copy of a folder on this machine: files, named by what the store states of them, and snapshots of links to them.
//! A snapshot that is there is whole; one that a process uses is locked by it.

use crate::{
    error::{At, Context, Result},
    fetch::hex,
    paths::{create_dir, link_blob, lock, with_suffix, write_file},
    storage::copies::is_locked,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A file of a folder, as the store states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FolderFile {
    /// Its path below the folder.
    pub name: String,
    pub bytes: u64,
    pub e_tag: Option<String>,
    pub modified: i64,
}

/// The copy of a folder, which one process at a time changes.
pub(super) struct FolderCopy {
    folder: PathBuf,
    _lock: File,
}

impl FolderCopy {
    /// The copy in a folder; waits for another process that changes it.
    pub fn open(folder: PathBuf, url: &str) -> Result<Self> {
        create_dir(&folder)?;
        let lock = lock(&folder.join("lock"), &format!("another process copies {url}; waiting for it …"))?;
        // Another process may have deleted them until now.
        create_dir(&folder.join("blobs"))?;
        create_dir(&folder.join("snapshots"))?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where the content of a file is.
    pub fn blob(&self, file: &FolderFile) -> Result<PathBuf> {
        Ok(self.folder.join("blobs").join(digest(file)?))
    }

    /// Where the content of a file is written before it is whole.
    pub fn partial(&self, file: &FolderFile) -> Result<PathBuf> {
        Ok(with_suffix(&self.blob(file)?, &format!("{}.partial", std::process::id())))
    }

    pub fn has(&self, file: &FolderFile) -> Result<bool> {
        Ok(self.blob(file)?.metadata().is_ok_and(|found| found.len() == file.bytes))
    }

    /// The snapshot of exactly these files, where there is a whole one.
    pub fn find(&self, files: &[FolderFile]) -> Result<Option<PathBuf>> {
        let snapshot = self.path(files)?;
        let is_there = |file: &FolderFile| snapshot.join(&file.name).metadata().is_ok_and(|m| m.len() == file.bytes);
        Ok(files.iter().all(is_there).then_some(snapshot))
    }

    /// Makes the snapshot of these files, whose contents are there, and deletes those that nobody uses.
    pub fn make(&self, files: &[FolderFile]) -> Result<PathBuf> {
        let snapshot = self.path(files)?;
        let partial = with_suffix(&snapshot, &format!("{}.partial", std::process::id()));
        let _ = fs::remove_dir_all(&partial);
        for file in files {
            link_blob(&partial, Path::new(&file.name), &self.blob(file)?)?;
        }
        let listing = listing_of(&snapshot);
        // One that is there says the same, and may be locked.
        if !listing.exists() {
            write_file(&listing, &serde_json::to_vec(files).context("the files of a folder")?)?;
        }
        // One that is there is not whole.
        let _ = fs::remove_dir_all(&snapshot);
        fs::rename(&partial, &snapshot).at(&snapshot, "written")?;
        self.prune(files)?;
        Ok(snapshot)
    }

    /// The snapshot that was used last.
    pub fn last_used(&self) -> Option<PathBuf> {
        let name = fs::read_to_string(self.folder.join("used")).ok()?;
        let snapshot = self.folder.join("snapshots").join(name);
        let listing = fs::read(listing_of(&snapshot)).ok()?;
        self.find(&serde_json::from_slice::<Vec<FolderFile>>(&listing).ok()?).ok()?
    }

    /// Says that a snapshot is used, and keeps it as long as the result is open. `None` where the file system knows no
    /// locks.
    pub fn use_snapshot(&self, snapshot: &Path) -> Result<Option<File>> {
        let name = snapshot.file_name().unwrap_or_default().as_encoded_bytes();
        write_file(&self.folder.join("used"), name)?;
        Ok(File::open(listing_of(snapshot)).ok().filter(|listing| listing.lock_shared().is_ok()))
    }

    fn path(&self, files: &[FolderFile]) -> Result<PathBuf> {
        Ok(self.folder.join("snapshots").join(digest(files)?))
    }

    /// Deletes snapshots of other files than these that no process uses, and contents that are neither in one nor of these
    /// files, also those that are not whole. What cannot be deleted stays.
    pub fn prune(&self, files: &[FolderFile]) -> Result<()> {
        let keep = self.path(files)?;
        let mut used: BTreeSet<PathBuf> = files.iter().map(|file| self.blob(file)).collect::<Result<_>>()?;
        for snapshot in entries(&self.folder.join("snapshots")).into_iter().filter(|path| path.is_dir()) {
            let listing = listing_of(&snapshot);
            if snapshot != keep && !is_locked(&listing) {
                let _ = fs::remove_dir_all(&snapshot);
                let _ = fs::remove_file(&listing);
                continue;
            }
            let files = fs::read(&listing).ok().and_then(|text| serde_json::from_slice::<Vec<FolderFile>>(&text).ok());
            used.extend(files.unwrap_or_default().iter().filter_map(|file| self.blob(file).ok()));
        }
        for blob in entries(&self.folder.join("blobs")).into_iter().filter(|blob| !used.contains(blob)) {
            let _ = fs::remove_file(blob);
        }
        Ok(())
    }
}

/// The list of the files of a snapshot, which who uses the snapshot locks: network file systems lock no folders.
fn listing_of(snapshot: &Path) -> PathBuf {
    with_suffix(snapshot, "json")
}

/// A name for what the store states.
fn digest<T: Serialize + ?Sized>(stated: &T) -> Result<String> {
    let text = serde_json::to_vec(stated).context("the files of a folder")?;
    Ok(hex(&Sha256::digest(text)[..16]))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// When the copy of a folder was used last, and its bytes; `None` for anything else.
pub(in crate::storage) fn usage(folder: &Path) -> Option<(SystemTime, u64)> {
    if !folder.join("snapshots").is_dir() {
        return None;
    }
    let used = folder.join("used").metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let blobs = entries(&folder.join("blobs"));
    Some((used, blobs.iter().filter_map(|blob| blob.metadata().ok()).map(|m| m.len()).sum()))
}

/// Deletes the copy of a folder unless a process changes it or uses one of its snapshots; whether it was deleted. The
/// file of its lock stays, which another process may wait for.
pub(in crate::storage) fn remove_unused(folder: &Path) -> Result<bool> {
    let lock_file = folder.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_file).at(&lock_file, "written")?;
    if lock.try_lock().is_err() || entries(&folder.join("snapshots")).iter().any(|entry| is_locked(entry)) {
        return Ok(false);
    }
    let _ = fs::remove_file(folder.join("used"));
    // The snapshots last: without them the rest is not counted.
    for part in ["blobs", "snapshots"].map(|name| folder.join(name)).into_iter().filter(|part| part.exists()) {
        fs::remove_dir_all(&part).at(&part, "deleted")?;
    }
    Ok(true)
}
