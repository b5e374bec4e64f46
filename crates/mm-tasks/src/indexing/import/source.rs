//! Files of vectors: which belong together, and where their rows are described.

use crate::{Error, Result, embedding::rows_file, error::io_error, shards::ShardFolder};
use mm_core::Modality;
use std::path::{Path, PathBuf};

/// Files that correspond row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Arrays `[rows, dim]`.
    Arrays {
        /// Each with the name of its vectors; absent where the rows or the caller say it.
        arrays: Vec<(Option<String>, PathBuf)>,
        /// The table with a row for each of theirs; rows are numbered where there is none.
        rows: Option<PathBuf>,
        /// What the numbers of rows begin with.
        prefix: String,
    },
    /// A table with a column of vectors.
    Table(PathBuf),
}

impl Part {
    /// The file that messages name.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Table(path) => path,
            Self::Arrays { arrays, rows, .. } => {
                arrays.first().map(|(_, path)| path.as_path()).or(rows.as_deref()).unwrap_or(Path::new(""))
            }
        }
    }
}

/// The files of a source, and the fingerprint of the model that made them where they say it.
pub(super) fn parts(source: &Path, metadata: Option<&Path>) -> Result<(Vec<Part>, Option<String>)> {
    if metadata.is_some() && source.extension().is_none_or(|extension| extension != "npy") {
        let expected = "an array (.npy): other sources describe their rows themselves";
        return Err(Error::invalid("metadata", format!("a table for {}", source.display()), expected));
    }
    if source.is_dir() {
        let parts = folder_parts(source)?;
        return Ok((parts, ShardFolder::open(source)?.provenance()?.map(|provenance| provenance.model)));
    }
    match source.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => {
            let described = rows_file(source);
            let rows = metadata.map(Path::to_owned).or_else(|| described.exists().then_some(described));
            Ok((vec![Part::Arrays { arrays: vec![(None, source.to_owned())], rows, prefix: String::new() }], None))
        }
        Some("parquet" | "jsonl" | "ndjson") => Ok((vec![Part::Table(source.to_owned())], None)),
        _ => {
            let found = source.display();
            let expected = "a file .npy, .parquet or .jsonl, or a folder with `img_emb`, `text_emb` and `metadata` as \
                clip-retrieval and `mm embed --shards` write it";
            Err(Error::invalid("vectors", found, expected))
        }
    }
}

/// The name of the vectors in a folder `img_emb`.
fn vector_name(folder: &str) -> Option<&str> {
    match folder.strip_suffix("_emb")? {
        "img" => Some(Modality::IMAGE.name()),
        other => Some(other),
    }
}

/// The shards of a folder: `img_emb/img_emb_NAME.npy`, `text_emb/text_emb_NAME.npy`, `metadata/metadata_NAME.parquet`.
fn folder_parts(folder: &Path) -> Result<Vec<Part>> {
    let mut arrays: Vec<(String, String)> = Vec::new();
    for name in entries(folder)? {
        if let Some(vector) = vector_name(&name) {
            arrays.push((vector.to_owned(), name));
        }
    }
    let Some((_, first)) = arrays.first() else {
        let expected = "folders of arrays (`img_emb`, `text_emb`) as clip-retrieval and `mm embed --shards` write them";
        return Err(Error::file(folder, format!("found no folder of arrays, expected {expected}")));
    };
    let shard_of = |file: &str| {
        let name = file.strip_prefix(&format!("{first}_"))?.strip_suffix(".npy")?;
        Some(name.to_owned())
    };
    let shards: Vec<String> = entries(&folder.join(first))?.iter().filter_map(|file| shard_of(file)).collect();
    if shards.is_empty() {
        return Err(Error::file(folder.join(first), format!("found no array {first}_NAME.npy")));
    }
    let part = |shard: &String| {
        let array = |(vector, folder_name): &(String, String)| {
            (Some(vector.clone()), folder.join(folder_name).join(format!("{folder_name}_{shard}.npy")))
        };
        let rows = folder.join("metadata").join(format!("metadata_{shard}.parquet"));
        let rows = rows.exists().then_some(rows);
        Part::Arrays { arrays: arrays.iter().map(array).collect(), rows, prefix: format!("{shard}/") }
    };
    let parts: Vec<Part> = shards.iter().map(part).collect();
    for (_, path) in parts.iter().flat_map(|part| match part {
        Part::Arrays { arrays, .. } => arrays.as_slice(),
        Part::Table(_) => &[],
    }) {
        if !path.exists() {
            return Err(Error::file(path, "not found, expected an array for each shard of the others"));
        }
    }
    Ok(parts)
}

/// The names in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).map_err(io_error(folder))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(io_error(folder))?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrays_of_a_shard_belong_together() {
        let folder = tempfile::tempdir().unwrap();
        for file in
            ["img_emb/img_emb_0.npy", "img_emb/img_emb_1.npy", "text_emb/text_emb_0.npy", "metadata/metadata_0.parquet"]
        {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let error = parts(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("text_emb_1.npy") && error.contains("not found"), "{error}");
        std::fs::write(folder.path().join("text_emb/text_emb_1.npy"), "").unwrap();
        let (found, model) = parts(folder.path(), None).unwrap();
        assert_eq!((found.len(), model), (2, None));
        let Part::Arrays { arrays, rows, prefix } = &found[1] else { panic!("arrays") };
        let names: Vec<_> = arrays.iter().map(|(name, _)| name.as_deref().unwrap()).collect();
        assert_eq!((names, rows, prefix.as_str()), (vec!["image", "text"], &None, "1/"));
    }

    #[test]
    fn what_holds_no_vectors_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let described = parts(folder.path(), Some(Path::new("rows.jsonl"))).unwrap_err().to_string();
        assert!(described.contains("metadata") && described.contains("expected an array"), "{described}");
        assert!(parts(folder.path(), None).unwrap_err().to_string().contains("found no folder of arrays"));
        assert!(parts(Path::new("a.csv"), None).unwrap_err().to_string().contains("expected a file .npy"));
    }
}
