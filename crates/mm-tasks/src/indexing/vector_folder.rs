//! Rows of a store as a folder of arrays and a table, with the names of files and columns that clip-retrieval
//! (<https://github.com/rom1504/clip-retrieval>) and `mm embed --shards` write.

use super::{ArrayWriter, FieldTypes, OutputFile, ParquetRows, replace_together};
use crate::{
    Error, Result,
    embedding::{array_file, metadata_file},
    error::io_error,
    provenance::Provenance,
    shards::ShardFolder,
};
use mm_core::Modality;
use mm_index::{Row, StoreConfig};
use serde_json::json;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The command that a folder names as its origin.
const COMMAND: &str = "index export";

/// The one shard of an export.
const SHARD: &str = "0";

/// The prefix that stands for vectors `image` in names of files, so that vectors of this name would be read as those.
const IMAGE_PREFIX: &str = "img";

/// Where [`ShardFolder`] writes what is not complete yet.
const UNFINISHED: &str = "leases";

/// Writes rows as `img_emb/img_emb_0.npy`, `text_emb/text_emb_0.npy` (one for each named vector) and
/// `metadata/metadata_0.parquet`, which correspond row by row. The table has the columns `id`, `caption` (the text of a
/// row), `image_path` (of the field `image_path` or `image`, or the file of a row that is an image) and one for each
/// field. The files of an earlier export are replaced when all are complete.
pub struct VectorFolder<'a> {
    arrays: Vec<Array>,
    metadata: ParquetRows<'a, OutputFile>,
}

/// The vectors of a name.
struct Array {
    name: String,
    path: PathBuf,
    writer: ArrayWriter<OutputFile>,
}

impl<'a> VectorFolder<'a> {
    /// A folder for the vectors of these names, and these fields. The model that made all of them is recorded as
    /// `mm embed --shards` records it.
    ///
    /// # Errors
    /// When a folder cannot hold the vectors ([`Self::check`]), it has other files than those of an export of the same
    /// vectors, or it cannot be written.
    pub fn create(path: &Path, config: &StoreConfig, names: &[String], fields: &'a FieldTypes) -> Result<Self> {
        Self::check(config, names)?;
        prepare(path, config, names)?;
        let array = |name: &String| -> Result<Array> {
            let path = path.join(array_file(&Modality::from(name.as_str()), SHARD));
            let writer = ArrayWriter::new(output(&path)?, config.vector(name)?.dim).map_err(io_error(&path))?;
            Ok(Array { name: name.clone(), path, writer })
        };
        let arrays = names.iter().map(array).collect::<Result<_>>()?;
        let metadata = ParquetRows::next_to_arrays(output(&path.join(metadata_file(SHARD)))?, fields)?;
        Ok(Self { arrays, metadata })
    }

    /// Refuses vectors that a folder cannot hold.
    ///
    /// # Errors
    /// When there are none, the store lacks one or may have several of them in a row, or a name stands for others.
    pub fn check(config: &StoreConfig, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Err(Error::invalid("modality", "none", "at least one of the vectors of the store"));
        }
        for name in names {
            if config.vector(name)?.multi {
                let expected =
                    "one: a row of this format has one vector of each modality; .jsonl and .npy have several";
                return Err(Error::invalid(format!("vectors `{name}`"), "several in a row", expected));
            }
            if name == IMAGE_PREFIX {
                let expected =
                    "another name: a folder names vectors `image` so; .jsonl, .parquet and .npy take any name";
                return Err(Error::invalid("vectors", format!("the name `{name}`"), expected));
            }
        }
        Ok(())
    }

    /// Adds a row if it has all of the vectors; whether it has.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, row: Row) -> Result<bool> {
        if self.arrays.iter().any(|array| vector_of(&row, &array.name).is_none()) {
            return Ok(false);
        }
        for array in &mut self.arrays {
            let vector = vector_of(&row, &array.name).unwrap_or_default();
            array.writer.add(vector).map_err(io_error(&array.path))?;
        }
        self.metadata.add(row)?;
        Ok(true)
    }

    /// Completes the files; returns the number of rows.
    ///
    /// # Errors
    /// When there is no row, or the files cannot be written.
    pub fn finish(self) -> Result<usize> {
        let rows = self.arrays.first().map_or(0, |array| array.writer.count());
        if rows == 0 {
            let names: Vec<&str> = self.arrays.iter().map(|array| array.name.as_str()).collect();
            return Err(Error::invalid(
                "rows",
                format!("none with a vector of {}", names.join(" and ")),
                "at least one",
            ));
        }
        let mut complete = Vec::with_capacity(self.arrays.len());
        for Array { writer, path, .. } in self.arrays {
            complete.push(writer.finish().map_err(io_error(&path))?.complete()?);
        }
        // Without its table, a folder is incomplete: arrays and tables of two exports are not taken for one.
        replace_together(complete, self.metadata.finish()?.complete()?)?;
        Ok(rows)
    }
}

/// The vector of a name.
fn vector_of<'r>(row: &'r Row, name: &str) -> Option<&'r [f32]> {
    row.vectors.get(name)?.iter().next()
}

/// Records what the folder holds, and refuses a folder with other files.
fn prepare(path: &Path, config: &StoreConfig, names: &[String]) -> Result<()> {
    let folder = ShardFolder::open(path)?;
    let is_used = || path.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if folder.provenance()?.is_none() && is_used() {
        let reason = "holds files that are not of an export, expected a new or an empty folder";
        return Err(Error::file(path, reason));
    }
    let models = names.iter().filter_map(|name| config.vectors.get(name)?.model.as_ref());
    let models: BTreeSet<&str> = models.map(|model| model.fingerprint.as_str()).collect();
    let is_known = names.iter().all(|name| config.vectors.get(name).is_some_and(|vector| vector.model.is_some()));
    // No model where there are several, or it is not known of all vectors.
    let model = models.first().filter(|_| is_known && models.len() == 1).copied().unwrap_or_default();
    let options = [("modalities".to_owned(), json!(names))].into_iter().collect();
    folder.prepare(&Provenance { command: COMMAND.into(), model: model.into(), options, table: String::new() })?;
    // Only where it is empty; an export has no workers.
    let _ = std::fs::remove_dir(path.join(UNFINISHED));
    Ok(())
}

/// A file of the folder, in a folder of its own.
fn output(path: &Path) -> Result<OutputFile> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(io_error(folder))?;
    }
    OutputFile::create(path)
}
