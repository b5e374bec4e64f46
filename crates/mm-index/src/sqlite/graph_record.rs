//! The record of a graph in the database: which file it is in, and whether that file is what was written.

use super::{
    NamedVector, SqliteStore,
    failure::Failure,
    graph::{Graph, hash_file},
};
use crate::Quantization;
use rusqlite::{Connection, OptionalExtension as _};
use std::path::Path;

/// The row of a graph in the database.
#[derive(Debug, Clone)]
pub(super) struct GraphRecord {
    pub(super) generation: i64,
    pub(super) file: String,
    /// The highest number that was there when the graph was built: all rows up to it that have the vector are in it.
    pub(super) through: i64,
    pub(super) count: usize,
    pub(super) bytes: u64,
    pub(super) blake3: String,
    pub(super) quantization: Quantization,
    pub(super) scale: f32,
}

/// The graph of a named vector, as the database knows it; none where the record is damaged.
pub(super) fn graph_record(connection: &Connection, vector: &NamedVector) -> Result<Option<GraphRecord>, Failure> {
    let sql = "SELECT generation, file, through, count, bytes, blake3, quantization, scale, checksum FROM graphs
        WHERE vector = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([vector.number], |row| {
        let record = GraphRecord {
            generation: row.get(0)?,
            file: row.get(1)?,
            through: row.get(2)?,
            count: row.get::<_, u32>(3)? as usize,
            bytes: row.get::<_, i64>(4)?.unsigned_abs(),
            blake3: row.get(5)?,
            quantization: serde_json::from_str(&row.get::<_, String>(6)?).unwrap_or_default(),
            scale: row.get::<_, f64>(7)? as f32,
        };
        Ok((record, row.get::<_, u32>(8)?))
    });
    let found = match found.optional() {
        // A column of another type than the one that was written.
        Err(rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..)) => None,
        found => found?,
    };
    Ok(found.filter(|(record, checksum)| record.checksum(vector) == *checksum).map(|(record, _)| record))
}

impl GraphRecord {
    /// The checksum of the record.
    pub(super) fn checksum(&self, vector: &NamedVector) -> u32 {
        crc32fast::hash(format!("{} {self:?}", vector.number).as_bytes())
    }

    /// Reads the graph, if its file is what was written.
    pub(super) fn load(&self, folder: &Path, vector: &NamedVector, store: &SqliteStore) -> Result<Graph, String> {
        let path = folder.join(&self.file);
        let hash = hash_file(&path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
        if hash != self.blake3 {
            return Err(format!("{}: is damaged (its hash is not the recorded one)", path.display()));
        }
        let config = crate::VectorConfig { quantization: self.quantization, ..vector.config.clone() };
        let graph = Graph::new(&config, &store.settings, self.count, self.scale)?;
        graph.load(&path, &store.settings).map_err(|e| format!("{}: {e}", path.display()))?;
        if graph.len() != self.count {
            return Err(format!("{}: found {} rows, expected {}", path.display(), graph.len(), self.count));
        }
        Ok(graph)
    }
}
