//! The record of a graph in the database: which file it is in, and whether that file is what was written.

use super::{
    NamedVector, SqliteStore,
    failure::Failure,
    graph::{Graph, hash_file},
};
use crate::Quantization;
use rusqlite::{Connection, OptionalExtension as _};
use std::{fs::DirEntry, path::Path};

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

/// The file of a graph in the folder of graphs.
pub(super) fn graph_file(vector: &NamedVector, generation: i64) -> String {
    format!("{}-{generation}.usearch", vector.number)
}

/// The latest generation of the graphs of a named vector, 0 where there was none: by the record, whose checksum may be
/// wrong, and by the names of the files. Processes that search by a graph wait for a later generation than its own.
pub(super) fn latest_generation(connection: &Connection, vector: &NamedVector, folder: &Path) -> Result<i64, Failure> {
    /// Numbers from this one on are damaged ones.
    const LIMIT: i64 = i64::MAX / 2;
    let sql = "SELECT CAST(generation AS INTEGER) FROM graphs WHERE vector = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let recorded: Option<Option<i64>> = statement.query_row([vector.number], |row| row.get(0)).optional()?;
    let start = format!("{}-", vector.number);
    let of_file = |entry: DirEntry| -> Option<i64> {
        let name = entry.file_name();
        name.to_str()?.strip_prefix(start.as_str())?.strip_suffix(".usearch")?.parse().ok()
    };
    let of_files = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(of_file);
    let generations = of_files.chain(recorded.flatten()).filter(|generation| (0..LIMIT).contains(generation));
    Ok(generations.max().unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Method, OptimizeOptions, Query, Row, SearchSettings, Store as _, StoreConfig, VectorConfig};

    #[test]
    fn a_graph_with_a_damaged_record_is_followed_by_a_later_generation() {
        let folder = tempfile::tempdir().unwrap();
        let settings = SearchSettings { exact_below: 1, exact_k_fraction: 1.0, ..SearchSettings::default() };
        let config = StoreConfig::new("v", VectorConfig::cosine(2));
        let store = SqliteStore::create(folder.path(), &config).unwrap().with_settings(settings);
        store.upsert(&[Row::new("a").with_vector("v", vec![0.6, 0.8])]).unwrap();
        let vector = &store.vectors["v"];
        let record = || store.read("reading", |connection| graph_record(connection, vector)).unwrap();
        let optimize = || {
            let options = OptimizeOptions { stop: &false.into(), rebuild: true };
            store.optimize(&options, &mut |_, _, _| {}).unwrap();
            record().unwrap().generation
        };
        let method = || {
            let answer = store.query(&Query::nearest("v", vec![1.0, 0.0]).k(1)).unwrap();
            (answer.hits.len(), answer.steps[0].method)
        };
        assert_eq!([optimize(), optimize()], [1, 2]);
        assert_eq!(method(), (1, Method::Graph));
        for (damage, generation) in [
            ("checksum = checksum + 1", 3),
            ("generation = 7", 8),
            ("generation = 0", 9),
            ("generation = 'x'", 10),
            ("generation = 9223372036854775807", 11),
        ] {
            let damage = format!("UPDATE graphs SET {damage}");
            store.write("damaging", |connection| Ok(connection.execute(&damage, [])?)).unwrap();
            assert!(record().is_none(), "{damage}");
            assert_eq!(method(), (1, Method::Exact), "{damage}");
            assert_eq!(optimize(), generation, "{damage}");
            // The process has an earlier graph in memory.
            assert_eq!(method(), (1, Method::Graph), "{damage}");
        }
    }
}
