//! Counts and sizes.

use super::{NamedVector, PostgresStore, failure::Failure};
use crate::{GraphStats, Stats, VectorStats};
use postgres::GenericClient;

/// Number of rows that have a named vector.
pub(super) fn count(client: &mut impl GenericClient, vector: &NamedVector) -> Result<usize, Failure> {
    let row = client.query_one("SELECT count FROM mm_vectors WHERE vector = $1", &[&vector.number])?;
    let damaged = |_| Failure::Damaged(format!("the number of rows of vector `{}`", vector.name));
    usize::try_from(row.try_get::<_, i64>(0)?).map_err(damaged)
}

/// The graph of a named vector that searches use: an index of pgvector that is complete.
pub(super) struct GraphIndex {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// The complete graph of a named vector.
pub(super) fn graph_index(
    client: &mut impl GenericClient,
    vector: &NamedVector,
) -> Result<Option<GraphIndex>, Failure> {
    let sql = "SELECT c.relname::text, pg_relation_size(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am a ON a.oid = c.relam
        WHERE i.indrelid = $1::text::regclass AND a.amname = 'hnsw' AND i.indisvalid AND i.indisready
        ORDER BY c.oid DESC LIMIT 1";
    let found = client.query_opt(sql, &[&vector.table()])?;
    found.map(|row| Ok(GraphIndex { name: row.try_get(0)?, bytes: bytes(row.try_get(1)?) })).transpose()
}

/// Rows of the table of a named vector that were deleted and whose space is not free yet, by the server's statistics.
pub(super) fn deleted(client: &mut impl GenericClient, vector: &NamedVector) -> Result<usize, Failure> {
    let sql = "SELECT pg_stat_get_dead_tuples($1::text::regclass)";
    let count: Option<i64> = client.query_one(sql, &[&vector.table()])?.try_get(0)?;
    Ok(usize::try_from(count.unwrap_or(0)).unwrap_or(0))
}

pub(super) fn bytes(size: i64) -> u64 {
    size.unsigned_abs()
}

impl PostgresStore {
    pub(super) fn read_stats(&self, client: &mut impl GenericClient) -> Result<Stats, Failure> {
        let row = client.query_one("SELECT count(*), count(text) FROM mm_rows", &[])?;
        let (rows, texts): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let fields = client.query("SELECT path FROM mm_fields ORDER BY path", &[])?;
        let fields = fields.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let mut vectors = Vec::new();
        for vector in self.vectors.values() {
            vectors.push(vector_stats(client, vector)?);
        }
        let sql = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'";
        let size = client.query_one(sql, &[&self.address.schema])?.try_get(0)?;
        let number = |count: i64| usize::try_from(count).unwrap_or(0);
        Ok(Stats { rows: number(rows), texts: number(texts), fields, vectors, bytes: bytes(size) })
    }
}

fn vector_stats(client: &mut impl GenericClient, vector: &NamedVector) -> Result<VectorStats, Failure> {
    let rows = count(client, vector)?;
    let graph = match graph_index(client, vector)? {
        None => None,
        Some(GraphIndex { bytes, .. }) => {
            // The server adds every row to its graph when it is written.
            let deleted = deleted(client, vector)?;
            Some(GraphStats { rows: rows + deleted, deleted, fresh: 0, bytes })
        }
    };
    Ok(VectorStats { name: vector.name.clone(), config: vector.config.clone(), rows, graph })
}
