//! Which format the path of an export names.

use crate::exit::usage;
use anyhow::Result;
use std::path::Path;

/// Extensions of files that are not written, so that a name with one of them is no name of a folder.
const OTHER_FORMATS: &str = "arrow avro bin csv db faiss feather gz h5 hdf5 html index ipc json jsonl lance ndjson npy npz \
    orc parquet pickle pkl pt pth safetensors sqlite tar tsv txt usearch xlsx zip";

/// What is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Format {
    Rows,
    Parquet,
    Array,
    Folder,
}

impl Format {
    /// The format that a path names: by its extension, or a folder. Another dot in a name (`photos-v1.2`) begins no
    /// extension.
    pub(super) fn of(out: &Path) -> Result<Self> {
        let is_separator = |byte: &u8| std::path::is_separator(char::from(*byte));
        let names_folder = out.as_os_str().as_encoded_bytes().last().is_some_and(is_separator);
        let extension = out.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let file = match extension {
            "jsonl" => Some(Self::Rows),
            "parquet" => Some(Self::Parquet),
            "npy" => Some(Self::Array),
            _ => None,
        };
        let is_of_other = || OTHER_FORMATS.split_whitespace().any(|other| other.eq_ignore_ascii_case(extension));
        // Without a separator at its end, which hides a file.
        let path = out.components().as_path();
        match file.filter(|_| !names_folder) {
            Some(_) if path.is_dir() => {
                usage!(
                    "--out {}: found a folder, expected a file or a new name; a folder is named with a / at its end",
                    out.display()
                )
            }
            Some(file) => Ok(file),
            None if path.is_dir() => Ok(Self::Folder),
            None if !names_folder && is_of_other() => usage!(
                "--out {}: expected a file name that ends in .jsonl, .parquet or .npy, or the name of a folder, without the \
                 extension of another format or with a / at its end",
                out.display()
            ),
            None if path.exists() => {
                usage!("--out {}: found a file, expected a folder or a new name", out.display())
            }
            None => Ok(Self::Folder),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_format() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        std::fs::create_dir(folder.path().join("made.npy")).unwrap();
        std::fs::create_dir(folder.path().join("made.index")).unwrap();
        let of = |name: &str| Format::of(&folder.path().join(name)).map_err(|error| error.to_string());
        for (name, format) in [
            ("a.jsonl", Format::Rows),
            ("a.v1.parquet", Format::Parquet),
            ("a.npy", Format::Array),
            ("photos", Format::Folder),
            ("photos-v1.2", Format::Folder),
            ("photos.csv/", Format::Folder),
            ("photos.npy/", Format::Folder),
            ("made.npy/", Format::Folder),
            ("made.index", Format::Folder),
        ] {
            assert_eq!(of(name), Ok(format), "{name}");
        }
        for (name, wanted) in [
            ("a.csv", "expected a file name that ends in .jsonl, .parquet or .npy"),
            ("a.NPY", "expected a file name that ends in .jsonl, .parquet or .npy"),
            ("a.index", "without the extension of another format"),
            ("made.npy", "found a folder, expected a file"),
            ("plain", "plain: found a file, expected a folder or a new name"),
            ("plain/", "plain/: found a file, expected a folder or a new name"),
        ] {
            let refused = of(name).unwrap_err();
            assert!(refused.contains(wanted), "{name}: {refused}");
        }
    }
}
