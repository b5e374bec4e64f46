//! Files that replace others when they are complete.

use crate::{Error, Result};
use mm_core::checkpoint::shared_tempfile;
use std::{
    fs::File,
    io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// A file that is written under a name of its own, in the folder of the file that it replaces. Where it is dropped
/// before it is complete, it is deleted and the other file stays as it is.
pub struct OutputFile {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
}

/// A file that is complete and on disk, under a name of its own.
pub struct CompleteFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl OutputFile {
    /// A file that is to replace the one at `path`.
    ///
    /// # Errors
    /// When no file can be made in its folder.
    pub fn create(path: &Path) -> Result<Self> {
        let file = shared_tempfile(folder_of(path), path).map_err(unwritten(path))?;
        Ok(Self { path: path.to_owned(), out: BufWriter::new(file) })
    }

    /// Brings it to the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn complete(self) -> Result<CompleteFile> {
        let Self { path, out } = self;
        let file = out.into_inner().map_err(|error| unwritten(&path)(error.into_error()))?;
        file.as_file().sync_all().map_err(unwritten(&path))?;
        Ok(CompleteFile { path, file })
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Seek for OutputFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.out.seek(position)
    }
}

impl CompleteFile {
    /// Gives it the name of the file that it replaces.
    ///
    /// # Errors
    /// When it cannot be renamed; it is deleted then.
    pub fn persist(self) -> Result<()> {
        let Self { path, file } = self;
        file.persist(&path).map_err(|error| unwritten(&path)(error.error))?;
        sync_folder_of(&path);
        Ok(())
    }
}

/// Replaces files that belong together. `description` (the ids of the rows of arrays) is replaced last, and its former
/// file is removed first: where this is interrupted, no description is next to files of another export.
///
/// # Errors
/// When a file cannot be removed or renamed.
pub fn replace_together(files: Vec<CompleteFile>, description: CompleteFile) -> Result<()> {
    match std::fs::remove_file(&description.path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(unwritten(&description.path)(error)),
        _ => sync_folder_of(&description.path),
    }
    files.into_iter().chain([description]).try_for_each(CompleteFile::persist)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A rename must reach the disk too; not every file system can sync a folder.
fn sync_folder_of(path: &Path) {
    let _ = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
}

fn unwritten(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |error| Error::file(&path, format!("cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(path: &Path, text: &str) -> CompleteFile {
        let mut file = OutputFile::create(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.complete().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, "old").unwrap();
        // A file of the user, with a name that a temporary file could have.
        std::fs::write(folder.path().join("rows.jsonl.new"), "of the user").unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        drop(file);
        drop(complete(&path, "new"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        complete(&path, "new").persist().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(folder.path().join("rows.jsonl.new")).unwrap(), "of the user");
        assert_eq!(names(folder.path()), ["rows.jsonl", "rows.jsonl.new"]);
        let missing = OutputFile::create(&folder.path().join("missing/rows.jsonl")).err().unwrap().to_string();
        assert!(missing.contains("missing/rows.jsonl: cannot be written"), "{missing}");
    }

    #[test]
    fn a_description_is_not_next_to_files_of_another_export() {
        let folder = tempfile::tempdir().unwrap();
        let (array, rows) = (folder.path().join("a.npy"), folder.path().join("a.rows.jsonl"));
        std::fs::write(&array, "old").unwrap();
        std::fs::write(&rows, "old").unwrap();
        replace_together(vec![complete(&array, "new")], complete(&rows, "new")).unwrap();
        assert_eq!([&array, &rows].map(|path| std::fs::read_to_string(path).unwrap()), ["new", "new"]);
        // An array that cannot be replaced: a folder that is not empty has its name.
        std::fs::remove_file(&array).unwrap();
        std::fs::create_dir(&array).unwrap();
        std::fs::write(array.join("file"), "").unwrap();
        let refused = replace_together(vec![complete(&array, "newer")], complete(&rows, "newer")).unwrap_err();
        assert!(refused.to_string().contains("a.npy: cannot be written"), "{refused}");
        assert_eq!(names(folder.path()), ["a.npy"], "neither the former description nor the new one");
    }
}
