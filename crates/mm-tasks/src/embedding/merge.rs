//! Many arrays as one.

use super::{
    options::with_suffix,
    rows::rows_file,
    shards::{EmbeddedShard, array_file, metadata_file},
};
use crate::{
    Error, Result,
    error::io_error,
    shards::{ShardFolder, ShardRecord, name_shards},
};
use mm_core::Modality;
use mm_data::{Table, TableOptions};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// Joins the arrays of a modality of shards that are all done into one, with the rows next to it
/// ([`super::rows_file`]), in the order of the shards. Returns the number of vectors.
///
/// # Errors
/// When a shard is not done, or has vectors of another dimension.
pub fn merge_shards(folder: &Path, files: &[PathBuf], modality: &Modality, out: &Path) -> Result<usize> {
    let (folder, shards) = (ShardFolder::open(folder)?, name_shards(files)?);
    let records = folder.records(&shards)?;
    if records.len() < shards.len() {
        let done: BTreeSet<&String> = records.iter().map(|(name, _)| name).collect();
        let missing: Vec<&str> = shards.iter().filter(|(n, _)| !done.contains(n)).map(|(n, _)| n.as_str()).collect();
        let shown = missing.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        let reason = format!("{} of {} shards are not done: {shown}; embed them first", missing.len(), shards.len());
        return Err(Error::file(folder.path(), reason));
    }
    merge(&folder, &records, modality, out)
}

/// Writes the arrays of a modality, one after the other, and `{"id", "row", "modality", "value", "shard"}` of each
/// vector. One shard is in memory at a time.
fn merge(
    folder: &ShardFolder,
    records: &[(String, ShardRecord<EmbeddedShard>)],
    modality: &Modality,
    out: &Path,
) -> Result<usize> {
    let count: usize = records.iter().map(|(_, record)| record.result.vectors).sum();
    let dim_of = |record: &ShardRecord<EmbeddedShard>| record.result.dims.get(modality.name()).copied();
    let Some(dim) = records.iter().filter(|(_, r)| r.result.vectors > 0).find_map(|(_, r)| dim_of(r)) else {
        return Err(Error::invalid("modality", format!("no vector of {modality}"), "a modality that was embedded"));
    };
    let (array, rows) = (with_suffix(out, ".new"), with_suffix(&rows_file(out), ".new"));
    let create = |path: &Path| File::create(path).map(BufWriter::new).map_err(io_error(path));
    let (mut vectors, mut rows_writer) = (create(&array)?, create(&rows)?);
    vectors.write_all(&mm_data::npy_header("<f4", &[count, dim])).map_err(io_error(&array))?;
    for (name, record) in records.iter().filter(|(_, record)| record.result.vectors > 0) {
        let path = folder.path().join(array_file(modality, name));
        let copy = mm_data::local_copy(&path)?;
        let bytes = std::fs::read(&copy).map_err(io_error(&path))?;
        mm_data::release_copy(&path);
        let size = record.result.vectors * dim * size_of::<f32>();
        if dim_of(record) != Some(dim) || bytes.len() < size {
            let reason = format!("{} bytes and dimension {:?}, expected {dim}", bytes.len(), dim_of(record));
            return Err(Error::file(&path, format!("{reason}; delete shards/{name}.json to embed it again")));
        }
        vectors.write_all(&bytes[bytes.len() - size..]).map_err(io_error(&array))?;
        let path = folder.path().join(metadata_file(name));
        let options = TableOptions { missing_values: Some(&[]), ..TableOptions::default() };
        let metadata = Table::read(&mm_data::local_copy(&path)?, &options)?;
        mm_data::release_copy(&path);
        if metadata.rows.len() != record.result.vectors {
            let reason = format!("{} rows, expected {}", metadata.rows.len(), record.result.vectors);
            return Err(Error::file(path, reason));
        }
        for cells in metadata.rows {
            let line = json!({"id": cells.get("id"), "row": cells.value("row"), "modality": modality, "value": 0, "shard": name});
            writeln!(rows_writer, "{line}").map_err(io_error(&rows))?;
        }
    }
    vectors.flush().map_err(io_error(&array))?;
    rows_writer.flush().map_err(io_error(&rows))?;
    std::fs::rename(&rows, rows_file(out)).map_err(io_error(&rows))?;
    std::fs::rename(&array, out).map_err(io_error(out))?;
    Ok(count)
}
