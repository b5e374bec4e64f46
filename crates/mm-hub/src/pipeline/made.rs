//! Which files steps made, by when they came to be: a file that appeared while no step ran is someone else's.

use crate::{
    error::{At, Result},
    paths::{create_dir, exists},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Times of files lag behind the clock by up to a tick of the kernel.
const TICK: Duration = Duration::from_millis(20);

/// When a step ran, by the clock of the file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Window {
    /// The digest of the step.
    step: String,
    from: SystemTime,
    /// None while it runs, and for one that was killed: what came after it may be its own.
    to: Option<SystemTime>,
}

/// When steps ran.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Windows(Vec<Window>);

impl Windows {
    /// A step begins.
    pub(super) fn open(&mut self, step: &str, now: Option<SystemTime>) {
        self.close(step, now);
        self.0.extend(now.map(|from| Window { step: step.to_owned(), from, to: None }));
    }

    /// A step has ended.
    pub(super) fn close(&mut self, step: &str, now: Option<SystemTime>) {
        for window in self.0.iter_mut().filter(|window| window.step == step && window.to.is_none()) {
            window.to = now;
        }
        // Many short windows become few long ones.
        self.0.sort_by_key(|window| window.from);
        self.0.dedup_by(|next, last| match (last.to, next.to) {
            (Some(end), Some(next_end)) if next.from <= end + TICK => {
                last.to = Some(end.max(next_end));
                true
            }
            _ => false,
        });
    }

    fn contain(&self, time: SystemTime) -> bool {
        self.0.iter().any(|window| window.from - TICK <= time && window.to.is_none_or(|to| time <= to))
    }

    /// Whether what is at a path came to be while no step ran. Where the file system does not say, it is taken for a step's.
    pub(super) fn is_foreign(&self, path: &Path) -> bool {
        !self.0.is_empty() && created(path).is_some_and(|time| !self.contain(time))
    }

    /// The files below a folder that came to be while no step ran; links are not followed.
    pub(super) fn foreign_below(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).at(folder, "read")? {
            let path = entry.at(folder, "read")?.path();
            if path.is_dir() && !path.is_symlink() {
                found.extend(self.foreign_below(&path)?);
            } else if self.is_foreign(&path) {
                found.push(path);
            }
        }
        Ok(found)
    }
}

/// When what is at a path came to be, where the file system says it.
pub(super) fn created(path: &Path) -> Option<SystemTime> {
    std::fs::symlink_metadata(path).ok()?.created().ok()
}

/// The time of the file system, which need not be this machine's.
pub(super) fn file_time(folder: &Path) -> Option<SystemTime> {
    let probe = folder.join(format!(".time-{}", std::process::id()));
    let time = File::create(&probe).ok().and_then(|file| file.metadata().ok()?.created().ok());
    let _ = std::fs::remove_file(&probe);
    time
}

/// Moves files of `folder` to the same relative paths below `target`, which is made.
pub(super) fn move_files(files: &[PathBuf], folder: &Path, target: &Path) -> Result<()> {
    for file in files {
        let destination = target.join(file.strip_prefix(folder).unwrap_or(file));
        create_dir(destination.parent().unwrap_or(target))?;
        std::fs::rename(file, &destination).at(&destination, "written")?;
    }
    Ok(())
}

/// A path of which nothing is there yet: `path`, or with a number.
pub(super) fn free(path: &Path) -> PathBuf {
    let numbered =
        |n: u32| path.with_file_name(format!("{}-{n}", path.file_name().unwrap_or_default().to_string_lossy()));
    if exists(path) {
        (2..u32::MAX).map(numbered).find(|p| !exists(p)).unwrap_or_else(|| path.to_owned())
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_joined_and_an_open_one_holds_what_comes() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut windows = Windows::default();
        for (step, from, to) in [("a", 10, 20), ("b", 15, 30), ("a", 30, 31), ("c", 50, 60)] {
            windows.open(step, Some(at(from)));
            windows.close(step, Some(at(to)));
        }
        assert_eq!(windows.0.len(), 2);
        let inside = |windows: &Windows| [9, 10, 31, 32, 50, 61].map(|time| windows.contain(at(time)));
        assert_eq!(inside(&windows), [false, true, true, false, true, false]);
        windows.open("d", Some(at(55)));
        assert!(windows.contain(at(1000)));
        // The next run of a step that was killed ends its window.
        windows.open("d", Some(at(70)));
        windows.close("d", Some(at(80)));
        assert!(windows.contain(at(75)) && !windows.contain(at(81)) && windows.0.len() == 2);
    }
}
