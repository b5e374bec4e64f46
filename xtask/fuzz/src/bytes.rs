//! Inputs as files.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The folder of temporary files: `TMPDIR`, else one in memory where the system has it.
pub(crate) fn temporary() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match std::env::var_os("TMPDIR") {
        None if memory.is_dir() => memory.to_owned(),
        _ => std::env::temp_dir(),
    }
}

/// A folder for one input, which is removed with the value.
///
/// # Panics
/// If it cannot be created, which is no finding but ends the run.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("mm-fuzz-").tempdir_in(temporary()).expect("a temporary folder")
}

/// Writes a file below a folder.
///
/// # Panics
/// If it cannot be written, which is no finding but ends the run.
pub(crate) fn write(folder: &Path, name: &str, contents: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, contents).expect("a file in the temporary folder");
    path
}

/// Runs a decoder as mm's loader does ([`mm_data::process_catching_panics`]): a panic in a decoding library becomes an
/// error. Panics in mm's own code, and failed assertions, are findings all the same.
pub(crate) fn catching_library_panics(decode: impl FnOnce()) {
    drop(mm_data::catching_panics(decode));
}

/// Splits an input into its first byte, which selects one of several kinds of files, and the file.
pub(crate) fn select<'a, T>(kinds: &'a [T], input: &'a [u8]) -> Option<(&'a T, &'a [u8])> {
    let (first, rest) = input.split_first()?;
    // Letters, so that the corpus inputs can be read: `a` is the first kind.
    kinds.get(usize::from(first.wrapping_sub(b'a')) % kinds.len()).map(|kind| (kind, rest))
}

/// A folder of the fixtures of a crate.
pub(crate) fn fixtures(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates").join(path)
}
