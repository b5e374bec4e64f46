//! Files of vectors: which belong together, and where their rows are described.

use super::ImportOptions;
use crate::{Error, Result, embedding::rows_file, error::io_error, shards::ShardFolder};
use mm_core::Modality;
use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Files that correspond row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Arrays `[rows, dim]`.
    Arrays {
        /// Each with the name of its vectors; absent where the rows or the caller state it.
        arrays: Vec<(Option<String>, PathBuf)>,
        /// The table with a row for each of theirs; rows are numbered where there is none.
        rows: Option<PathBuf>,
        /// What the ids of rows begin with that no table names: before their numbers.
        prefix: String,
        /// Fingerprint of the model that made them, where the folder states it.
        model: Option<String>,
    },
    /// A table with a column of vectors.
    Table {
        /// The file.
        path: PathBuf,
        /// What the ids of rows begin with where no column names them: before their numbers.
        prefix: String,
    },
}

impl Part {
    /// The file that messages name.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Table { path, .. } => path,
            Self::Arrays { arrays, rows, .. } => {
                arrays.first().map(|(_, path)| path.as_path()).or(rows.as_deref()).unwrap_or(Path::new(""))
            }
        }
    }

    /// Fingerprint of the model that made the vectors, where the files state it.
    pub(super) fn model(&self) -> Option<&str> {
        match self {
            Self::Table { .. } => None,
            Self::Arrays { model, .. } => model.as_deref(),
        }
    }
}

/// The files of a source.
pub(super) fn parts(source: &Path, options: &ImportOptions) -> Result<Vec<Part>> {
    let metadata = options.metadata.as_ref();
    if metadata.is_some() && source.extension().is_none_or(|extension| extension != "npy") {
        let expected = "an array (.npy): other sources describe their rows themselves";
        return Err(Error::invalid("metadata", format!("a table for {}", source.display()), expected));
    }
    if source.is_dir() {
        let provenance = ShardFolder::open(source)?.provenance()?;
        // An export does not name a model where its store names none, or several.
        let model = provenance.map(|provenance| provenance.model).filter(|model| !model.is_empty());
        return folder_parts(source, model.as_ref(), options.id_prefix.as_deref().unwrap_or_default());
    }
    // Files of the same rows as another import, and of others, have the same numbers.
    let stem = || format!("{}/", source.file_stem().unwrap_or_default().to_string_lossy());
    let prefix = options.id_prefix.clone().unwrap_or_else(stem);
    match source.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => {
            let described = rows_file(source);
            let rows = metadata.cloned().or_else(|| described.exists().then_some(described));
            let arrays = vec![(None, source.to_owned())];
            Ok(vec![Part::Arrays { arrays, rows, prefix, model: None }])
        }
        Some("parquet" | "jsonl" | "ndjson") => Ok(vec![Part::Table { path: source.to_owned(), prefix }]),
        _ if is_faiss_index(source) => {
            let expected = "its vectors as an array: in Python `numpy.save(\"vectors.npy\", \
                faiss.read_index(FILE).reconstruct_n())`, and then `mm index import vectors.npy`";
            Err(Error::file(source, format!("found an index of faiss, which mm does not read, expected {expected}")))
        }
        _ => {
            let found = source.display();
            let expected = "a file .npy, .parquet or .jsonl, or a folder with `img_emb`, `text_emb` and `metadata` as \
                clip-retrieval and `mm embed --shards` write it";
            Err(Error::invalid("vectors", found, expected))
        }
    }
}

/// Whether a file is what `faiss.write_index` writes: four characters that name the kind of index (`IxF2`, `IHNf`,
/// `IwFl`), and the width of its vectors. Its format belongs to faiss and changes with it.
fn is_faiss_index(path: &Path) -> bool {
    const MAX_DIM: i32 = 1 << 20;
    let mut start = [0; 8];
    if File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_err() {
        return false;
    }
    let [kind @ .., a, b, c, d] = start;
    let dim = i32::from_le_bytes([a, b, c, d]);
    kind[0] == b'I' && kind.iter().all(u8::is_ascii_alphanumeric) && (1..=MAX_DIM).contains(&dim)
}

/// The name of the vectors in a folder `img_emb`.
fn vector_name(folder: &str) -> Option<&str> {
    match folder.strip_suffix("_emb")? {
        "img" => Some(Modality::IMAGE.name()),
        other => Some(other),
    }
}

/// The folder of the tables that describe the rows of a folder's arrays.
const METADATA: &str = "metadata";

/// The shards of a folder: `img_emb/img_emb_NAME.npy`, `text_emb/text_emb_NAME.npy`, `metadata/metadata_NAME.parquet`. A
/// shard that one of these folders has is expected in each.
fn folder_parts(folder: &Path, model: Option<&String>, prefix: &str) -> Result<Vec<Part>> {
    let is_folder = |name: &String| folder.join(name).is_dir();
    let mut arrays: Vec<(String, String)> = Vec::new();
    for name in entries(folder)?.into_iter().filter(is_folder) {
        if let Some(vector) = vector_name(&name) {
            arrays.push((vector.to_owned(), name));
        }
    }
    if arrays.is_empty() {
        let expected = "folders of arrays (`img_emb`, `text_emb`) as clip-retrieval and `mm embed --shards` write them";
        return Err(Error::file(folder, format!("found no folder of arrays, expected {expected}")));
    }
    let is_described = is_folder(&METADATA.to_owned());
    let mut shards = BTreeSet::new();
    for (_, name) in &arrays {
        shards.extend(shard_names(folder, name, ".npy")?);
    }
    if is_described {
        shards.extend(shard_names(folder, METADATA, ".parquet")?);
    }
    if shards.is_empty() {
        let names: Vec<String> = arrays.iter().map(|(_, name)| format!("{name}_NAME.npy")).collect();
        return Err(Error::file(folder, format!("found no array {}", names.join(", "))));
    }
    let part = |shard: &String| {
        let array = |(vector, name): &(String, String)| {
            Ok((Some(vector.clone()), existing(folder.join(name).join(format!("{name}_{shard}.npy")))?))
        };
        let rows = is_described.then(|| existing(folder.join(METADATA).join(format!("{METADATA}_{shard}.parquet"))));
        let arrays = arrays.iter().map(array).collect::<Result<_>>()?;
        Ok(Part::Arrays { arrays, rows: rows.transpose()?, prefix: format!("{prefix}{shard}/"), model: model.cloned() })
    };
    shards.iter().map(part).collect()
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path);
    }
    Err(Error::file(path, "not found, expected a file for each shard of the other folders"))
}

/// `0001` of each `img_emb/img_emb_0001.npy`.
fn shard_names(folder: &Path, name: &str, ending: &str) -> Result<Vec<String>> {
    let prefix = format!("{name}_");
    let files = entries(&folder.join(name))?;
    let shard = |file: &String| Some(file.strip_prefix(&prefix)?.strip_suffix(ending)?.to_owned());
    Ok(files.iter().filter_map(shard).collect())
}

/// The names in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        let refused = |_| Error::file(entry.path(), "found a name that is not UTF-8, expected one that is; rename it");
        names.push(entry.file_name().into_string().map_err(refused)?);
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn the_arrays_of_a_shard_belong_together() {
        let folder = tempfile::tempdir().unwrap();
        let refused = || parts(folder.path(), &ImportOptions::default()).unwrap_err().to_string();
        // The first folder has fewer shards than the second.
        write(folder.path(), &["img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy", "text_emb/text_emb_1.npy"]);
        assert!(refused().contains("img_emb_1.npy: not found, expected a file for each shard"), "{}", refused());
        write(folder.path(), &["img_emb/img_emb_1.npy", "img_emb/notes.txt"]);
        let found = parts(folder.path(), &ImportOptions::default()).unwrap();
        assert_eq!(found.len(), 2);
        let Part::Arrays { arrays, rows, prefix, model } = &found[1] else { panic!("arrays") };
        let names: Vec<_> = arrays.iter().map(|(name, _)| name.as_deref().unwrap()).collect();
        assert_eq!((names, rows, prefix.as_str(), model), (vec!["image", "text"], &None, "1/", &None));
        // Where shards are described, each is.
        write(folder.path(), &["metadata/metadata_0.parquet"]);
        assert!(refused().contains("metadata_1.parquet: not found"), "{}", refused());
        write(folder.path(), &["metadata/metadata_1.parquet", "metadata/metadata_2.parquet"]);
        assert!(refused().contains("img_emb_2.npy: not found"), "{}", refused());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_that_are_not_utf_8_are_refused() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &["img_emb/img_emb_0.npy"]);
        std::fs::write(folder.path().join("img_emb").join(OsStr::from_bytes(b"img_emb_\xff.npy")), "").unwrap();
        let message = parts(folder.path(), &ImportOptions::default()).unwrap_err().to_string();
        assert!(message.contains("img_emb_") && message.contains("not UTF-8"), "{message}");
    }

    #[test]
    fn what_holds_no_vectors_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let options = ImportOptions { metadata: Some("rows.jsonl".into()), ..ImportOptions::default() };
        let described = parts(folder.path(), &options).unwrap_err().to_string();
        assert!(described.contains("metadata") && described.contains("expected an array"), "{described}");
        assert!(
            parts(folder.path(), &ImportOptions::default())
                .unwrap_err()
                .to_string()
                .contains("found no folder of arrays")
        );
        let refused = |path: &Path| parts(path, &ImportOptions::default()).unwrap_err().to_string();
        assert!(refused(Path::new("a.csv")).contains("expected a file .npy"));
        // The first bytes of what faiss writes for eight values a vector, and of other files.
        let path = folder.path().join("photos.index");
        for kind in ["IxF2", "IHNf", "IwFl", "IxMp"] {
            std::fs::write(&path, [kind.as_bytes(), &8_i32.to_le_bytes(), b"more"].concat()).unwrap();
            assert!(refused(&path).contains("found an index of faiss") && refused(&path).contains("reconstruct_n"));
        }
        for other in [&b"Image,Text"[..], b"IxF2", b"\x93NUMPY\x01\x00", b""] {
            std::fs::write(&path, other).unwrap();
            assert!(refused(&path).contains("expected a file .npy"), "{other:?}");
        }
    }

    #[test]
    fn rows_without_ids_are_named_by_their_file() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &["img_emb/img_emb_0.npy"]);
        let prefix = |source: &Path, given: Option<&str>| {
            let options = ImportOptions { id_prefix: given.map(Into::into), ..ImportOptions::default() };
            match parts(source, &options).unwrap().remove(0) {
                Part::Arrays { prefix, .. } | Part::Table { prefix, .. } => prefix,
            }
        };
        let of = |name: &str, given| prefix(Path::new(name), given);
        assert_eq!((of("x/emb_0.npy", None), of("rows.parquet", None)), ("emb_0/".into(), "rows/".into()));
        assert_eq!((of("emb_0.npy", Some("b:")), of("rows.jsonl", Some(""))), ("b:".into(), String::new()));
        assert_eq!((prefix(folder.path(), None), prefix(folder.path(), Some("b:"))), ("0/".into(), "b:0/".into()));
    }
}
