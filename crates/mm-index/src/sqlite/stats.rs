//! Counts and sizes.

use super::{NamedVector, SqliteStore, failure::Failure, graph_record::graph_record, schema::vector_table};
use crate::{GraphStats, Stats, VectorStats};
use rusqlite::Connection;
use std::path::Path;

/// Number of rows that have a named vector.
pub(super) fn count(connection: &Connection, vector: &NamedVector) -> Result<usize, Failure> {
    let mut statement = connection.prepare_cached("SELECT count FROM vectors WHERE vector = ?1")?;
    let count: i64 = statement.query_row([vector.number], |row| row.get(0))?;
    usize::try_from(count).map_err(|_| Failure::Damaged(format!("the number of rows of vector `{}`", vector.name)))
}

/// Number of rows of a named vector with a higher number than `after`.
pub(super) fn count_after(connection: &Connection, vector: &NamedVector, after: i64) -> Result<usize, Failure> {
    let sql = format!("SELECT count(*) FROM {} WHERE number > ?1", vector_table(vector.number));
    let count: i64 = connection.prepare_cached(&sql)?.query_row([after], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Bytes of the files in a folder and its folders.
fn folder_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

impl SqliteStore {
    pub(super) fn read_stats(&self, connection: &Connection) -> Result<Stats, Failure> {
        let counts = "SELECT count(*), count(text) FROM row_data";
        let (rows, texts): (i64, i64) = connection.query_row(counts, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut statement = connection.prepare("SELECT path FROM fields ORDER BY path")?;
        let fields = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let vectors = self.vectors.values().map(|v| Self::vector_stats(connection, v)).collect::<Result<_, _>>()?;
        let size = |count: i64| usize::try_from(count).unwrap_or(0);
        Ok(Stats { rows: size(rows), texts: size(texts), fields, vectors, bytes: folder_size(&self.folder) })
    }

    fn vector_stats(connection: &Connection, vector: &NamedVector) -> Result<VectorStats, Failure> {
        let rows = count(connection, vector)?;
        let graph = match graph_record(connection, vector)? {
            None => None,
            Some(record) => {
                let fresh = count_after(connection, vector, record.through)?;
                let deleted = (record.count + fresh).saturating_sub(rows);
                Some(GraphStats { rows: record.count, deleted, fresh, bytes: record.bytes })
            }
        };
        Ok(VectorStats { name: vector.name.clone(), config: vector.config.clone(), rows, graph })
    }
}
