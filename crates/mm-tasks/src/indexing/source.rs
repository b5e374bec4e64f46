//! Where rows come from: a manifest, or the files of a folder.

use super::version::source_key;
use crate::{Error, Result, embedding::FailedValue};
use mm_core::{Modality, Source, cells::RecordPacker};
use mm_data::{FILE_EXTENSIONS, Manifest, ManifestConfig, Row};
use std::path::{Path, PathBuf};

/// Extensions of text files.
const TEXT_EXTENSIONS: [&str; 2] = ["txt", "md"];

/// A data set that a store follows.
pub struct DataSource {
    /// The rows.
    pub manifest: Manifest,
    /// Files of a folder that are no rows, since no id can name them.
    pub(super) without_id: Vec<FailedValue>,
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
        Ok(Self { manifest, without_id: Vec::new(), key })
    }

    /// The image, audio, video and text files in a folder and its folders: a row for each, whose id is its path in the
    /// folder. Its payload has `path`, `folder`, `modality` and `bytes`. Files whose path is not UTF-8 are left out.
    ///
    /// # Errors
    /// When the folder cannot be read or has no such file.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let root = canonical(folder)?;
        let (mut rows, mut without_id, mut packer) = (Vec::new(), Vec::new(), RecordPacker::default());
        for path in files(&root)? {
            let Some(modality) = file_modality(&path) else { continue };
            if let Some(id) = id_of(&root, &path) {
                rows.push(file_row(id, path, modality, rows.len() + 1, &mut packer));
                continue;
            }
            let reason = "found a path that is not UTF-8, expected one that an id can hold; rename it".to_owned();
            without_id.push(FailedValue { id: path.display().to_string(), modality, reason });
        }
        if rows.is_empty() {
            if let Some(file) = without_id.first() {
                return Err(Error::file(&file.id, file.reason.clone()));
            }
            let known: Vec<&str> = FILE_EXTENSIONS.iter().flat_map(|(_, list)| list.iter().copied()).collect();
            let reason = format!("found no file that ends in .{} or .txt", known.join(", ."));
            return Err(Error::file(folder, reason));
        }
        let key = source_key(&root);
        Ok(Self { manifest: Manifest { path: root, rows, columns: Default::default() }, without_id, key })
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

/// The path of a file in a folder, with `/` between its parts on every system; none where it is not UTF-8.
fn id_of(root: &Path, path: &Path) -> Option<String> {
    let parts = path.strip_prefix(root).unwrap_or(path).components();
    Some(parts.map(|part| part.as_os_str().to_str()).collect::<Option<Vec<_>>>()?.join("/"))
}

fn file_row(id: String, path: PathBuf, modality: Modality, number: usize, packer: &mut RecordPacker) -> Row {
    let folder = id.rsplit_once('/').map_or("", |(folder, _)| folder);
    let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    let cells = [
        ("path", path.display().to_string()),
        ("folder", folder.to_owned()),
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

    #[cfg(target_os = "linux")]
    #[test]
    fn different_files_have_different_ids() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        for file in [&b"a/b.txt"[..], b"a\\b.txt", b"\xff.txt", b"\xfe.txt"] {
            std::fs::write(folder.path().join(OsStr::from_bytes(file)), "text").unwrap();
        }
        let source = DataSource::from_folder(folder.path()).unwrap();
        let rows: Vec<(&str, Option<&str>)> =
            source.manifest.rows.iter().map(|row| (row.id.as_str(), row.cells.get("folder"))).collect();
        assert_eq!(rows, [("a/b.txt", Some("a")), ("a\\b.txt", Some(""))]);
        assert_eq!(source.without_id.len(), 2);
        assert!(source.without_id[0].reason.contains("not UTF-8"), "{:?}", source.without_id);
        std::fs::remove_dir_all(folder.path().join("a")).unwrap();
        std::fs::remove_file(folder.path().join("a\\b.txt")).unwrap();
        assert!(DataSource::from_folder(folder.path()).err().unwrap().to_string().contains("not UTF-8"));
    }
}
