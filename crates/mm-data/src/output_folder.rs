//! Folders that several processes write to at the same time: on a file system that all see, or in an object store.

use crate::{
    Result,
    fetch::{is_remote, remote_output_folder},
};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// A folder of outputs. Names of files are relative to it, with `/` between their parts; folders appear with the files
/// in them.
pub trait OutputFolder: Send + Sync {
    /// The content of a file; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Writes a file, of which others see all or nothing. What is not complete yet has another name, `unfinished`, where
    /// the folder needs one; it stays there when the process is killed.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write(&self, name: &str, bytes: &[u8], unfinished: &str) -> io::Result<()>;

    /// Writes a file unless there is one; whether it was written. The content has to be that of the caller alone.
    ///
    /// # Errors
    /// When it cannot be written.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<bool>;

    /// Copies a file of this machine, which may be large, to the folder unless there is one of that name; whether it was
    /// copied. Others see all of it or nothing. The content has to be that of the caller alone.
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn upload(&self, name: &str, file: &Path) -> io::Result<bool> {
        self.create(name, &fs::read(file)?)
    }

    /// Deletes a file, where there is one.
    ///
    /// # Errors
    /// When it cannot be deleted.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of the files that lie directly in a folder, without it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// For how long a file was not written, by the clock of what keeps it; `None` where there is none. `clock` names a
    /// file that may be written and deleted for that.
    ///
    /// # Errors
    /// When the times cannot be read.
    fn age(&self, name: &str, clock: &str) -> io::Result<Option<Duration>>;

    /// How often to look whether another process has written something.
    fn polling_interval(&self) -> Duration;
}

/// The folder at a path, which is made with its first file, or at a URL of an object store.
///
/// # Errors
/// When the program cannot write to the URL.
pub fn open_output_folder(path: &Path) -> Result<Box<dyn OutputFolder>> {
    match path.to_str().filter(|_| is_remote(path)) {
        Some(url) => remote_output_folder(path, url),
        None => Ok(Box::new(LocalFolder(path.to_owned()))),
    }
}

/// A folder of a file system.
struct LocalFolder(PathBuf);

/// `None` where there is no such file.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl LocalFolder {
    /// Where a file is to be written; its folder is made.
    fn target(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
        Ok(path)
    }
}

impl OutputFolder for LocalFolder {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        found(fs::read(self.0.join(name)))
    }

    fn write(&self, name: &str, bytes: &[u8], unfinished: &str) -> io::Result<()> {
        let (path, partial) = (self.target(name)?, self.target(unfinished)?);
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<bool> {
        match File::create_new(self.target(name)?) {
            Ok(mut file) => file.write_all(bytes).map(|()| true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        found(fs::remove_file(self.0.join(name))).map(drop)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in found(fs::read_dir(self.0.join(folder)))?.into_iter().flatten() {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn age(&self, name: &str, clock: &str) -> io::Result<Option<Duration>> {
        let modified = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
        let Some(written) = found(modified(&self.0.join(name)))? else { return Ok(None) };
        let clock = self.target(clock)?;
        let now = fs::write(&clock, b"").and_then(|()| modified(&clock))?;
        found(fs::remove_file(&clock))?;
        Ok(Some(now.duration_since(written).unwrap_or_default()))
    }

    fn polling_interval(&self) -> Duration {
        Duration::from_millis(500)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_complete_and_made_once() {
        let parent = tempfile::tempdir().unwrap();
        let folder = open_output_folder(&parent.path().join("out")).unwrap();
        assert_eq!(folder.read("a/b.json").unwrap(), None);
        assert_eq!(folder.list("a").unwrap(), Vec::<String>::new());
        assert_eq!(folder.age("a/b.json", "clock").unwrap(), None);
        folder.remove("a/b.json").unwrap();
        assert!(folder.create("a/b.json", b"first").unwrap());
        assert!(!folder.create("a/b.json", b"second").unwrap());
        assert_eq!(folder.read("a/b.json").unwrap().unwrap(), b"first");
        folder.write("a/b.json", b"third", "a/b.partial").unwrap();
        assert_eq!(folder.read("a/b.json").unwrap().unwrap(), b"third");
        assert!(folder.age("a/b.json", "clock").unwrap().unwrap() < Duration::from_secs(60));
        assert_eq!(folder.list("a").unwrap(), ["b.json"]);
        folder.remove("a/b.json").unwrap();
        assert_eq!(folder.read("a/b.json").unwrap(), None);
        // Nothing else is left.
        assert_eq!(folder.list("").unwrap(), ["a"]);
        // A URL that the program cannot write to.
        let error = open_output_folder(Path::new("s3://bucket/out")).err().unwrap().to_string();
        assert!(error.contains("s3://bucket/out") && error.contains("writes to no URL"), "{error}");
    }
}
