//! Where rows come from: a manifest, or the files of a folder.

use super::version::source_key;
use crate::{Error, Result};
use mm_core::{Modality, Source, cells::RecordPacker};
use mm_data::{FILE_EXTENSIONS, Manifest, ManifestConfig, Row};
use std::path::{Path, PathBuf};

/// Extensions of text files.
const TEXT_EXTENSIONS: [&str; 2] = ["txt", "md"];

/// A data set that a store follows.
pub struct DataSource {
    /// The rows.
    pub manifest: Manifest,
    /// Identifies it among others in one store.
    pub(super) key: String,
}

/// The modality of a file, by its extension.
pub fn file_modality(path: &Path) -> Option<Modality> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    if TEXT_EXTENSIONS.contains(&extension.as_str()) {
        return Some(Modality::TEXT);
    }
    let known = FILE_EXTENSIONS.iter().find(|(_, extensions)| extensions.contains(&extension.as_str()));
    known.map(|(modality, _)| Modality::from(*modality))
}

impl DataSource {
    /// The rows of a manifest.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn from_manifest(config: &ManifestConfig) -> Result<Self> {
        let manifest = Manifest::open(config, Path::new(""))?;
        let key = source_key(&canonical(&config.manifest)?);
        Ok(Self { manifest, key })
    }

    /// The image, audio, video and text files in a folder and its folders: a row for each, whose id is its path in the
    /// folder. Its payload has `path`, `folder`, `modality` and `bytes`.
    ///
    /// # Errors
    /// When the folder cannot be read or has no such file.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let root = canonical(folder)?;
        let (mut rows, mut packer) = (Vec::new(), RecordPacker::default());
        for path in files(&root)? {
            let Some(modality) = file_modality(&path) else { continue };
            rows.push(file_row(&root, path, modality, rows.len() + 1, &mut packer));
        }
        if rows.is_empty() {
            let known: Vec<&str> = FILE_EXTENSIONS.iter().flat_map(|(_, list)| list.iter().copied()).collect();
            let reason = format!("found no file that ends in .{} or .txt", known.join(", ."));
            return Err(Error::file(folder, reason));
        }
        let key = source_key(&root);
        Ok(Self { manifest: Manifest { path: root, rows, columns: Default::default() }, key })
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))
}

/// All files in a folder and its folders, sorted by path. Hidden ones and links to folders are left out.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = pending.pop() {
        let failed = |e| Error::file(&folder, e);
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() || entry.path().is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn file_row(root: &Path, path: PathBuf, modality: Modality, number: usize, packer: &mut RecordPacker) -> Row {
    let relative = path.strip_prefix(root).unwrap_or(&path);
    let id = relative.to_string_lossy().replace('\\', "/");
    let folder = relative.parent().unwrap_or(Path::new("")).to_string_lossy().replace('\\', "/");
    let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    let cells = [
        ("path", path.display().to_string()),
        ("folder", folder),
        ("modality", modality.name().to_owned()),
        ("bytes", bytes.to_string()),
    ];
    let cells = cells.into_iter().map(|(name, cell)| (name.to_owned(), cell.into())).collect();
    Row { cells: packer.pack(&cells), ..Row::new(id, number, [(modality, vec![Source::Path(path)])]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_folder_are_rows_by_their_paths() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["b/x.JPG", "a.txt", "notes.pdf", ".hidden/y.png", "b/c/z.wav"] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        let source = DataSource::from_folder(folder.path()).unwrap();
        let rows: Vec<(&str, &str)> = source
            .manifest
            .rows
            .iter()
            .map(|row| (row.id.as_str(), row.values.keys().next().unwrap().name()))
            .collect();
        assert_eq!(rows, [("a.txt", "text"), ("b/c/z.wav", "audio"), ("b/x.JPG", "image")]);
        assert_eq!(source.manifest.rows[1].cells.get("folder"), Some("b/c"));
        assert!(DataSource::from_folder(&folder.path().join("none")).is_err());
        let empty = tempfile::tempdir().unwrap();
        let message = DataSource::from_folder(empty.path()).err().unwrap().to_string();
        assert!(message.contains("found no file"), "{message}");
    }
}
