//! The copies of files on this machine: a folder of bounded size, which several processes share.

use super::folders::snapshot;
use crate::{
    error::{At, Context, Result, bail},
    paths::create_dir,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// The most bytes of copies, unless `MM_STORAGE_CACHE_BYTES` says otherwise.
const CACHE_BYTES: u64 = 100 << 30;

/// For how long a copy that was given is not removed for others. What is open stays readable.
const IN_USE: Duration = Duration::from_secs(60);

/// Of how many copies that is so at the same time: of those that were given last.
const MAX_IN_USE: usize = 64;

/// What the server stated about a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CopyInfo {
    pub url: String,
    pub bytes: u64,
    pub e_tag: Option<String>,
    pub modified: i64,
}

/// A copy that this process was given.
struct Given {
    at: Instant,
    /// The copy's folder, with a shared lock that tells other processes; `None` where its file system knows no locks.
    /// (The copy itself may be replaced by a newer one.)
    _pin: Option<File>,
}

/// The folder of copies.
pub(super) struct Copies {
    folder: PathBuf,
    /// The copies that are not removed before they are opened.
    in_use: Mutex<BTreeMap<PathBuf, Given>>,
    /// The most bytes of copies.
    pub limit: fn() -> Result<u64>,
}

impl Copies {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, in_use: Mutex::default(), limit: cache_limit }
    }

    /// Where the copy of a URL is; its name keeps the extension.
    pub fn path(&self, url: &str) -> PathBuf {
        let hash = Sha256::digest(url.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
        let name = url.split(['?', '#']).next().unwrap_or(url).rsplit('/').next().unwrap_or_default();
        let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name: String = name.chars().map(plain).rev().take(100).collect::<Vec<_>>().into_iter().rev().collect();
        self.folder.join(hash).join(format!("of-{name}"))
    }

    /// The folder for the copy of a whole folder of a store.
    pub fn folder_of(&self, url: &str) -> Result<PathBuf> {
        let file = self.path(&format!("{url}/"));
        Ok(file.parent().context("the copy has no folder")?.to_owned())
    }

    /// What is known of the copy of a URL; `None` where there is no whole one.
    pub fn info(&self, url: &str) -> Option<CopyInfo> {
        let copy = self.path(url);
        let text = fs::read(copy.with_file_name("info.json")).ok()?;
        let info = serde_json::from_slice::<CopyInfo>(&text).ok()?;
        (info.url == url && copy.metadata().is_ok_and(|m| m.len() == info.bytes)).then_some(info)
    }

    /// The copy of a URL, given to whoever opens it next; `None` where another process has removed it by now, or where it
    /// is not the one that is expected.
    pub fn give(&self, url: &str, expected: &CopyInfo) -> Option<PathBuf> {
        let _lock = self.lock();
        (self.info(url)? == *expected).then(|| self.mark(self.path(url)))
    }

    /// An empty file next to the copy of a URL, to download to.
    pub fn partial(&self, url: &str) -> Result<PathBuf> {
        let copy = self.path(url);
        let folder = copy.parent().context("the copy has no folder")?;
        let partial = folder.join(format!("{}-{:?}.partial", std::process::id(), std::thread::current().id()));
        create_dir(&self.folder)?;
        let _lock = self.lock();
        create_dir(folder)?;
        // The folder stays with it.
        File::create(&partial).at(&partial, "written")?;
        Ok(partial)
    }

    /// Makes a downloaded file the copy of its URL, and gives it.
    pub fn put(&self, partial: &Path, info: &CopyInfo) -> Result<PathBuf> {
        let copy = self.path(&info.url);
        let info_file = copy.with_file_name("info.json");
        let text = serde_json::to_vec(info).context("the state of a copy")?;
        let _lock = self.lock();
        fs::rename(partial, &copy).at(&copy, "written")?;
        fs::write(&info_file, text).at(&info_file, "written")?;
        Ok(self.mark(copy))
    }

    /// The copy may be removed where others need its space.
    pub fn unpin(&self, url: &str) {
        self.in_use().remove(&self.path(url));
    }

    /// Deletes the copy of a URL, which this process does not need any more. One that another process was given stays:
    /// that process deletes it.
    pub fn release(&self, url: &str) {
        let copy = self.path(url);
        let _lock = self.lock();
        self.in_use().remove(&copy);
        if !is_pinned(&copy) {
            let _ = remove(&copy);
            let _ = copy.parent().map(fs::remove_dir);
        }
    }

    /// Whether copies have to be deleted before there is room for some bytes.
    pub fn lacks_room(&self, bytes: u64) -> Result<bool> {
        let total: u64 = self.all().iter().map(|(_, size, _)| size).sum();
        Ok(total.saturating_add(bytes) > (self.limit)()?)
    }

    /// When each copy was used last, its bytes and its path.
    fn all(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let mut copies: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for folder in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            // The copy of a folder goes as a whole.
            if let Some((used, bytes)) = snapshot::usage(&folder.path()) {
                copies.push((used, bytes, folder.path()));
                continue;
            }
            for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let Ok(metadata) = file.metadata() else { continue };
                if file.file_name().to_string_lossy().starts_with("of-") {
                    copies.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), file.path()));
                }
            }
        }
        copies
    }

    /// Deletes the copies that were not used for the longest time, until there is room for some bytes.
    pub fn make_room(&self, bytes: u64) -> Result<()> {
        let limit = (self.limit)()?;
        let _lock = self.lock();
        let mut copies = self.all();
        copies.sort();
        let mut total: u64 = copies.iter().map(|(_, size, _)| size).sum();
        let mut in_use = self.in_use();
        in_use.retain(|_, given| given.at.elapsed() < IN_USE);
        for (_, size, copy) in copies {
            if total + bytes <= limit {
                break;
            }
            if copy.is_dir() {
                total -= if snapshot::remove_unused(&copy)? { size } else { 0 };
            } else if !in_use.contains_key(&copy) && !is_pinned(&copy) {
                remove(&copy).at(&copy, "deleted")?;
                total -= size;
            }
        }
        if total + bytes > limit {
            bail!(
                "the files that are read at the moment need {} bytes in {}, where at most {} may be (MM_STORAGE_CACHE_BYTES)",
                total + bytes,
                self.folder.display(),
                limit
            );
        }
        Ok(())
    }

    /// Keeps other processes and threads from giving and removing copies as long as the result lives; `None` where the
    /// folder cannot be written or its file system knows no locks.
    fn lock(&self) -> Option<File> {
        let file =
            File::options().create(true).truncate(false).write(true).open(self.folder.with_extension("lock")).ok()?;
        file.lock().ok().map(|()| file)
    }

    /// Says that a copy is given: by a lock on it, and in its time of use, which decides which copies go first.
    fn mark(&self, copy: PathBuf) -> PathBuf {
        let _ = File::options().append(true).open(&copy).and_then(|file| file.set_modified(SystemTime::now()));
        let folder = copy.parent().and_then(|folder| File::open(folder).ok());
        let pin = folder.filter(|folder| folder.lock_shared().is_ok());
        let mut in_use = self.in_use();
        in_use.insert(copy.clone(), Given { at: Instant::now(), _pin: pin });
        if in_use.len() > MAX_IN_USE {
            let first = in_use.iter().min_by_key(|(_, given)| given.at).map(|(copy, _)| copy.clone());
            first.and_then(|first| in_use.remove(&first));
        }
        copy
    }

    fn in_use(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Given>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a process was given a copy and has not opened it yet, as far as is known.
fn is_pinned(copy: &Path) -> bool {
    copy.parent().is_some_and(is_locked)
}

/// Whether somebody holds a lock on a file or folder; false where there is none.
pub(super) fn is_locked(path: &Path) -> bool {
    // Over a network only who may write a file can ask for this lock; a folder cannot be opened so.
    let file = File::options().read(true).write(true).open(path).or_else(|_| File::open(path));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Deletes a copy and what is known of it.
fn remove(copy: &Path) -> std::io::Result<()> {
    let _ = fs::remove_file(copy.with_file_name("info.json"));
    fs::remove_file(copy)
}

/// The bytes of `MM_STORAGE_CACHE_BYTES`.
pub(super) fn cache_limit() -> Result<u64> {
    let Ok(text) = std::env::var("MM_STORAGE_CACHE_BYTES") else { return Ok(CACHE_BYTES) };
    text.trim().parse().with_context(|| format!("MM_STORAGE_CACHE_BYTES: found `{text}`, expected a number of bytes"))
}

#[cfg(test)]
mod tests;
