//! Rows of a store as a folder of arrays and a table, with the names of files and columns that clip-retrieval
//! (<https://github.com/rom1504/clip-retrieval>) and `mm embed --shards` write and autofaiss reads.

use super::{ArrayWriter, FieldTypes, ParquetRows};
use crate::{
    Error, Result,
    embedding::{array_file, metadata_file, with_suffix},
    error::io_error,
    provenance::Provenance,
    shards::ShardFolder,
};
use mm_core::Modality;
use mm_index::{Row, StoreConfig};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, ErrorKind},
    path::{Path, PathBuf},
};

/// The command that a folder names as its origin.
const COMMAND: &str = "index export";

/// The one shard of an export.
const SHARD: &str = "0";

/// Writes rows as `img_emb/img_emb_0.npy`, `text_emb/text_emb_0.npy` (one for each named vector) and
/// `metadata/metadata_0.parquet`, which correspond row by row. The table has the columns `id`, `caption` (the text of a
/// row), `image_path` (of the field `image_path` or `image`, or the file of a row that is an image) and one for each
/// field. The files of an earlier export are replaced when all are complete.
pub struct VectorFolder<'a> {
    path: PathBuf,
    arrays: Vec<Array>,
    metadata: ParquetRows<'a, BufWriter<File>>,
    metadata_file: PartialFile,
}

/// The vectors of a name.
struct Array {
    name: String,
    writer: ArrayWriter<BufWriter<File>>,
    file: PartialFile,
}

impl<'a> VectorFolder<'a> {
    /// A folder for the vectors of these names, and these fields. The model that made all of them is recorded as
    /// `mm embed --shards` records it.
    ///
    /// # Errors
    /// When the store lacks one of the vectors or may have several of them in a row, the folder holds other files than
    /// those of an export of the same vectors, or it cannot be written.
    pub fn create(path: &Path, config: &StoreConfig, names: &[String], fields: &'a FieldTypes) -> Result<Self> {
        if names.is_empty() {
            return Err(Error::invalid("modality", "none", "at least one of the vectors of the store"));
        }
        for name in names {
            if config.vector(name)?.multi {
                let expected =
                    "one: a row of this format has one vector of each modality; .jsonl and .npy have several";
                return Err(Error::invalid(format!("vectors `{name}`"), "several in a row", expected));
            }
        }
        prepare(path, config, names)?;
        let array = |name: &String| -> Result<Array> {
            let (file, out) = PartialFile::create(path.join(array_file(&Modality::from(name.as_str()), SHARD)))?;
            let writer = ArrayWriter::new(out, config.vector(name)?.dim).map_err(io_error(&file.path))?;
            Ok(Array { name: name.clone(), writer, file })
        };
        let arrays = names.iter().map(array).collect::<Result<_>>()?;
        let (metadata_file, out) = PartialFile::create(path.join(metadata_file(SHARD)))?;
        let metadata = ParquetRows::next_to_arrays(out, fields)?;
        Ok(Self { path: path.to_owned(), arrays, metadata, metadata_file })
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
            array.writer.add(vector).map_err(io_error(&array.file.path))?;
        }
        self.metadata.add(row)?;
        Ok(true)
    }

    /// Completes the files; returns the number of rows.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(self) -> Result<usize> {
        let rows = self.arrays.first().map_or(0, |array| array.writer.count());
        let mut complete = Vec::with_capacity(self.arrays.len());
        for Array { writer, file, .. } in self.arrays {
            let out = writer.finish().map_err(io_error(&file.path))?;
            complete.push(file.flush(out)?);
        }
        let metadata = self.metadata_file.flush(self.metadata.finish()?)?;
        // Without its table, a folder is incomplete: arrays and tables of two exports are not taken for one.
        let table = self.path.join(metadata_file(SHARD));
        match std::fs::remove_file(&table) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io_error(&table)(error)),
            _ => {}
        }
        complete.into_iter().chain([metadata]).try_for_each(PartialFile::rename)?;
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
    folder.prepare(&Provenance { command: COMMAND.into(), model: model.into(), options, table: String::new() })
}

/// A file that takes the place of another one when it is complete; it is deleted where it does not get that far.
struct PartialFile {
    path: PathBuf,
    partial: PathBuf,
}

impl PartialFile {
    fn create(path: PathBuf) -> Result<(Self, BufWriter<File>)> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io_error(folder))?;
        }
        let partial = with_suffix(&path, ".new");
        let out = File::create(&partial).map_err(io_error(&path))?;
        Ok((Self { path, partial }, BufWriter::new(out)))
    }

    /// Brings it to the disk.
    fn flush(self, out: BufWriter<File>) -> Result<Self> {
        let flush = || -> io::Result<()> { out.into_inner()?.sync_all() };
        flush().map_err(io_error(&self.path))?;
        Ok(self)
    }

    fn rename(self) -> Result<()> {
        std::fs::rename(&self.partial, &self.path).map_err(io_error(&self.path))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.partial);
    }
}
