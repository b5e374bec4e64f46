//! The data set reader `template-name`: a folder with one subfolder for each class, and one text file for each row.
//!
//! A program registers [`READER`]; `mm prepare --dataset template-name --data FOLDER --out FILE.jsonl` then writes the manifest
//! that every other command reads.

use mm_data::{
    Error, Result,
    datasets::{DatasetReader, write_manifest},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Describes the reader to the registry.
pub const READER: DatasetReader = DatasetReader {
    name: "template-name",
    description: "text files in a folder for each class",
    prepare: |folder, manifest| write_manifest(manifest, &rows(folder)?),
};

/// The entries of a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))?;
    let paths = list.map(|entry| entry.map(|e| e.path()).map_err(|e| Error::file(folder, e)));
    let mut paths = paths.collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// One row for each file `CLASS/NAME.txt`: a unique `id`, its `text` and its `label`. A value that is a file (an image, a
/// recording) is named by its absolute path, or by one relative to the manifest.
///
/// # Errors
/// When the folder or a file cannot be read, or there is no such file.
pub fn rows(folder: &Path) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for class in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        for file in entries(&class)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "txt")) {
            let text = std::fs::read_to_string(&file).map_err(|e| Error::file(&file, e))?;
            let (label, id) = (name(&class), format!("{}/{}", name(&class), name(&file)));
            rows.push(json!({"id": id, "text": text.trim(), "label": label}));
        }
    }
    if rows.is_empty() {
        return Err(Error::file(folder, "found no CLASS/NAME.txt, expected a folder with text files for each class"));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Modality, Source};
    use mm_data::{Manifest, ManifestConfig, datasets::datasets};

    #[test]
    fn files_become_rows_of_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [("birds/owl.txt", "an owl\n"), ("birds/wren.txt", "a wren"), ("fish/carp.txt", "a carp")] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::write(folder.path().join("fish/notes.md"), "no row").unwrap();
        let mut readers = datasets();
        readers.register(READER);
        let manifest = folder.path().join("rows.jsonl");
        assert_eq!((readers.get("template-name").unwrap().prepare)(folder.path(), &manifest).unwrap(), 3);
        let opened =
            Manifest::open(&ManifestConfig { manifest: "rows.jsonl".into(), ..Default::default() }, folder.path());
        let rows = opened.unwrap().rows;
        assert_eq!((rows[0].id.as_str(), rows[0].label.as_deref()), ("birds/owl.txt", Some("birds")));
        assert_eq!(rows[0].values[&Modality::TEXT], [Source::Text("an owl".into())]);
    }

    #[test]
    fn a_folder_without_rows_is_an_error_that_says_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("rows.jsonl");
        let error = |from: &Path| (READER.prepare)(from, &manifest).unwrap_err().to_string();
        assert!(error(folder.path()).contains("expected a folder with text files for each class"));
        assert!(error(Path::new("missing")).contains("missing"));
        assert!(!manifest.exists(), "nothing is written");
    }
}
