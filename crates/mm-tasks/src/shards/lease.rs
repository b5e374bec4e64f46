//! Leases: which of several workers, on one or many hosts with a shared file system, does which piece of work.
//!
//! A lease is a file that its worker writes again and again; one that is no longer written has lost its worker. Ages are
//! measured by the clock of the file system, so the clocks of the hosts do not matter. Two workers may hold the same
//! lease for a moment after one has expired: outputs are written atomically and are the same, so that costs time alone.

use crate::{Error, Result, error::io_error};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
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
pub(super) struct Leases {
    folder: PathBuf,
    /// Names this worker.
    owner: String,
    expiry: Duration,
}

/// The right to do a piece of work; given back when it is dropped.
pub struct Lease {
    path: PathBuf,
    owner: String,
    /// Where this worker writes a file before it gets its name.
    partial: PathBuf,
    stop: Arc<AtomicBool>,
    renewal: Option<JoinHandle<()>>,
}

impl Leases {
    pub(super) fn open(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let owner = format!("{}-{}-{started:x}", host.trim(), std::process::id());
        Ok(Self { folder, owner, expiry: expiry()? })
    }

    /// Takes the lease of a name; `None` while another worker has it.
    pub(super) fn take(&self, name: &str) -> Result<Option<Lease>> {
        let path = self.folder.join(format!("{name}.lease"));
        for _ in 0..2 {
            match File::create_new(&path) {
                Ok(mut file) => {
                    file.write_all(self.owner.as_bytes()).map_err(io_error(&path))?;
                    return Ok(Some(self.renewed(name, path)));
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                    if !self.has_expired(&path)? {
                        return Ok(None);
                    }
                    self.clear(name);
                    let _ = fs::remove_file(&path); // Another worker may have been first.
                }
                Err(e) => return Err(io_error(&path)(e)),
            }
        }
        Ok(None)
    }

    /// Whether a lease was not renewed for too long, by the clock of the file system.
    fn has_expired(&self, path: &Path) -> Result<bool> {
        let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
        let Ok(renewed) = modified(path) else { return Ok(true) };
        let clock = self.folder.join(format!(".clock-{}", self.owner));
        let now = fs::write(&clock, b"").and_then(|()| modified(&clock)).map_err(io_error(&clock))?;
        let _ = fs::remove_file(&clock);
        Ok(now.duration_since(renewed).is_ok_and(|age| age > self.expiry))
    }

    /// Removes the leases of workers that are gone, and what they had begun to write: for the end, when all is done.
    pub(super) fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).map_err(io_error(&self.folder))?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "lease")
                && self.has_expired(&path)?
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                self.clear(name);
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Removes what a worker that is gone had begun to write.
    fn clear(&self, name: &str) {
        let is_of = |file: &str| file.strip_prefix(name).is_some_and(|rest| rest.starts_with('@'));
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if is_of(&entry.file_name().to_string_lossy()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn renewed(&self, name: &str, path: PathBuf) -> Lease {
        let stop = Arc::new(AtomicBool::new(false));
        let (file, owner, flag, interval) = (path.clone(), self.owner.clone(), stop.clone(), self.expiry / 4);
        let renew = move || {
            while !flag.load(Ordering::Relaxed) {
                std::thread::park_timeout(interval);
                if flag.load(Ordering::Relaxed) || !is_owned(&file, &owner) {
                    return;
                }
                let _ = fs::write(&file, &owner);
            }
        };
        // Without a thread the lease expires, and another worker does the same work.
        let renewal = std::thread::Builder::new().name("mm-lease".into()).spawn(renew).ok();
        let partial = self.folder.join(format!("{name}@{}.partial", self.owner));
        Lease { path, owner: self.owner.clone(), partial, stop, renewal }
    }
}

impl Lease {
    /// Writes a file, which is complete or absent; the folder of leases is on the same file system.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&self.partial)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&self.partial, path)
        };
        // Another worker that took this one for gone may have removed the file between the two.
        write().or_else(|_| write()).map_err(io_error(path))
    }
}

/// The time of `MM_LEASE_SECONDS`.
fn expiry() -> Result<Duration> {
    let Ok(text) = std::env::var("MM_LEASE_SECONDS") else { return Ok(EXPIRY) };
    let seconds = text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let invalid = || Error::invalid("MM_LEASE_SECONDS", format!("`{text}`"), "a number of seconds of at least 0.1");
    seconds.filter(|expiry| *expiry >= Duration::from_millis(100)).ok_or_else(invalid)
}

fn is_owned(path: &Path, owner: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == owner)
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(renewal) = self.renewal.take() {
            renewal.thread().unpark();
            let _ = renewal.join();
        }
        if is_owned(&self.path, &self.owner) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_it_is_dropped_or_expires() {
        let folder = tempfile::tempdir().unwrap();
        let open = |owner: &str| Leases {
            folder: folder.path().to_owned(),
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
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let taken = first.take("a").unwrap().unwrap();
        // What the first has now, the second does not take away.
        drop(lease);
        assert!(second.take("a").unwrap().is_none());
        drop(taken);
        assert!(second.take("a").unwrap().is_some());
    }
}
