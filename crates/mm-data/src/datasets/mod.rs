//! Known data sets: writes the manifest of a data set that was downloaded and unpacked.

mod coco;
#[cfg(feature = "hdf5")]
mod computational_sequences;
mod dictionary_text;
mod easy_vqa;
mod emoji;
mod mosi;
mod multimodal_sentiment;
mod reader;
mod registry;
#[cfg(feature = "pickle")]
mod sentiment_pickles;
mod sequence_store;
mod sort_of_clevr;
mod tuxpaint_stamps;

pub use reader::{DatasetReader, write_manifest};
pub use registry::{DatasetRegistry, datasets};

use crate::{Error, Result};
use std::path::Path;

/// Writes the manifest of a known data set (for english-dictionary, its text) and returns the number of its rows.
/// `folder` is the folder to which the data set was unpacked, or its file.
///
/// # Errors
/// When the name is not one of [`datasets`], or files of the data set are missing or damaged.
pub fn prepare(name: &str, folder: &Path, manifest: &Path) -> Result<usize> {
    (datasets().get(name)?.prepare)(folder, manifest)
}

/// The absolute path of a file.
fn absolute(file: &Path) -> Result<String> {
    let path = std::fs::canonicalize(file).map_err(|e| Error::file(file, e))?;
    Ok(path.to_string_lossy().into_owned())
}

/// All files in a folder and its subfolders, sorted by path.
fn walk(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut out = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).map_err(|e| Error::file(&next, e))? {
            let path = entry.map_err(|e| Error::file(&next, e))?.path();
            if path.is_dir() { pending.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    Ok(out)
}
