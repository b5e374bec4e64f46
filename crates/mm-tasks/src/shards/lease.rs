//! Leases: which of several workers, on one or many hosts that see the same folder, does which piece of work.
//!
//! A lease is a file that its worker writes again and again; one that is no longer written has lost its worker. Ages are
//! measured by the clock of the file system or store, so the clocks of the hosts do not matter. Two workers may hold the
//! same lease for a moment after one has expired: outputs are complete or absent and are the same, so that costs time
//! alone.

use super::ShardFolder;
use crate::{Error, Result};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

/// A lease that was not renewed for so long is another worker's to take, unless `MM_LEASE_SECONDS` says otherwise.
const EXPIRY: Duration = Duration::from_secs(60);

/// The folder of leases.
const FOLDER: &str = "leases";

/// How the names of files begin whose time is that of the folder.
const CLOCK: &str = ".clock-";

/// Names what makes the folder, while it is written.
pub(super) const PROVENANCE: &str = "provenance";

/// The leases of a folder, as one worker sees them.
pub(super) struct Leases {
    folder: ShardFolder,
    /// Names this worker.
    owner: String,
    expiry: Duration,
}

/// The right to do a piece of work; given back when it is dropped.
pub struct Lease {
    folder: ShardFolder,
    file: String,
    owner: String,
    /// What this worker writes before it gets its name.
    unfinished: String,
    stop: Arc<AtomicBool>,
    renewal: Option<JoinHandle<()>>,
}

/// A name of this worker: host, process and time.
pub(super) fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{}-{}-{started:x}", host.trim(), std::process::id())
}

/// Where a worker writes what is not complete yet.
pub(super) fn unfinished(name: &str, worker: &str) -> String {
    format!("{FOLDER}/{name}@{worker}.partial")
}

/// The name of the file of a lease.
fn lease_file(name: &str) -> String {
    format!("{FOLDER}/{name}.lease")
}

impl Leases {
    pub(super) fn open(folder: &ShardFolder) -> Result<Self> {
        Ok(Self { folder: folder.clone(), owner: worker_name(), expiry: expiry()? })
    }

    /// Takes the lease of a name; `None` while another worker has it.
    pub(super) fn take(&self, name: &str) -> Result<Option<Lease>> {
        let file = lease_file(name);
        for _ in 0..2 {
            if self.folder.files().create(&file, self.owner.as_bytes()).map_err(self.folder.failed(&file))? {
                return Ok(Some(self.renewed(name, file)));
            }
            if !self.has_expired(&file)? {
                return Ok(None);
            }
            self.clear(name)?;
            let _ = self.folder.files().remove(&file); // Another worker may have been first.
        }
        Ok(None)
    }

    /// Whether a lease was not renewed for too long, by the clock of the folder.
    fn has_expired(&self, file: &str) -> Result<bool> {
        let clock = format!("{FOLDER}/{CLOCK}{}", self.owner);
        let age = self.folder.files().age(file, &clock).map_err(self.folder.failed(file))?;
        Ok(age.is_none_or(|age| age > self.expiry))
    }

    /// Removes the leases of workers that are gone, and what they had begun to write: for the end, when all is done.
    pub(super) fn sweep(&self) -> Result<()> {
        // It is complete, since this worker has read it.
        self.clear(PROVENANCE)?;
        for file in self.list()? {
            let (path, name) = (format!("{FOLDER}/{file}"), file.strip_suffix(".lease"));
            if (name.is_some() || file.starts_with(CLOCK)) && self.has_expired(&path)? {
                name.map_or(Ok(()), |name| self.clear(name))?;
                let _ = self.folder.files().remove(&path);
            }
        }
        Ok(())
    }

    /// Removes what a worker that is gone had begun to write.
    fn clear(&self, name: &str) -> Result<()> {
        for file in self.list()? {
            if file.strip_prefix(name).is_some_and(|rest| rest.starts_with('@')) {
                let _ = self.folder.files().remove(&format!("{FOLDER}/{file}"));
            }
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>> {
        self.folder.files().list(FOLDER).map_err(self.folder.failed(FOLDER))
    }

    fn renewed(&self, name: &str, file: String) -> Lease {
        let (stop, unfinished) = (Arc::new(AtomicBool::new(false)), unfinished(name, &self.owner));
        let mut lease =
            Lease { folder: self.folder.clone(), file, owner: self.owner.clone(), unfinished, stop, renewal: None };
        let (folder, file, owner) = (self.folder.clone(), lease.file.clone(), self.owner.clone());
        let (flag, interval, partial) =
            (lease.stop.clone(), self.expiry / 4, format!("{FOLDER}/{name}@{}.renewed", self.owner));
        let renew = move || {
            while !flag.load(Ordering::Relaxed) {
                std::thread::park_timeout(interval);
                if flag.load(Ordering::Relaxed) || !is_owned(&folder, &file, &owner) {
                    return;
                }
                let _ = folder.files().write(&file, owner.as_bytes(), &partial);
            }
        };
        // Without a thread the lease expires, and another worker does the same work.
        lease.renewal = std::thread::Builder::new().name("mm-lease".into()).spawn(renew).ok();
        lease
    }
}

impl Lease {
    /// Writes a file of the folder, which is complete or absent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let write = || self.folder.files().write(name, bytes, &self.unfinished);
        // Another worker that took this one for gone may have removed the unfinished file.
        write().or_else(|_| write()).map_err(self.folder.failed(name))
    }
}

/// The time of `MM_LEASE_SECONDS`.
fn expiry() -> Result<Duration> {
    let Ok(text) = std::env::var("MM_LEASE_SECONDS") else { return Ok(EXPIRY) };
    let seconds = text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let invalid = || Error::invalid("MM_LEASE_SECONDS", format!("`{text}`"), "a number of seconds of at least 0.1");
    seconds.filter(|expiry| *expiry >= Duration::from_millis(100)).ok_or_else(invalid)
}

fn is_owned(folder: &ShardFolder, file: &str, owner: &str) -> bool {
    folder.files().read(file).is_ok_and(|found| found.is_some_and(|found| found == owner.as_bytes()))
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(renewal) = self.renewal.take() {
            renewal.thread().unpark();
            let _ = renewal.join();
        }
        if is_owned(&self.folder, &self.file, &self.owner) {
            let _ = self.folder.files().remove(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_it_is_dropped_or_expires() {
        let parent = tempfile::tempdir().unwrap();
        let folder = ShardFolder::open(parent.path()).unwrap();
        let open = |owner: &str| Leases {
            folder: folder.clone(),
            owner: owner.to_owned(),
            expiry: Duration::from_millis(1500),
        };
        let (first, second) = (open("first"), open("second"));
        let lease = first.take("a").unwrap().unwrap();
        assert!(second.take("a").unwrap().is_none() && second.take("b").unwrap().is_some());
        // It is renewed.
        std::thread::sleep(Duration::from_millis(3000));
        assert!(second.take("a").unwrap().is_none());
        drop(lease);
        let lease = second.take("a").unwrap().unwrap();
        // A worker that was killed: nothing renews its lease, and it is not given back.
        lease.stop.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(3000));
        first.sweep().unwrap();
        assert_eq!(std::fs::read_dir(parent.path().join(FOLDER)).unwrap().count(), 0);
        let taken = first.take("a").unwrap().unwrap();
        // What the first has now, the second does not take away.
        drop(lease);
        assert!(second.take("a").unwrap().is_none());
        drop(taken);
        assert!(second.take("a").unwrap().is_some());
    }
}
