//! The tables.

use super::{NamedVector, failure::Failure};
use crate::{Error, StoreConfig, config::VectorConfig, words::TOKENIZER};
use rusqlite::{Connection, TransactionBehavior, params};
use std::path::Path;

/// Says that a SQLite database is a store of mm: "mmix".
const APPLICATION_ID: i64 = 0x6d6d_6978;

/// The version of the tables and of what is in them. Another version is refused.
const VERSION: i64 = 1;

/// The tables, except for that of the vectors of each name.
///
/// - `row_data`: a row. Its number is never used again (AUTOINCREMENT), not even when the row is deleted or replaced.
/// - `fields`, `field_values`, `field_points`: what filters see of the payloads, in the order in which it is looked up.
/// - `words`: the words of `texts`, by which they can be checked.
/// - `graphs`: the graph file of a named vector, and the highest number that was in it.
const TABLES: &str = r"
CREATE TABLE vectors (
    vector INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, config TEXT NOT NULL, count INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE row_data (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, payload TEXT NOT NULL, text TEXT, version TEXT,
    checksum INTEGER NOT NULL
);
CREATE TABLE fields (field INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE field_values (
    field INTEGER NOT NULL, value NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (field, value, number)
) WITHOUT ROWID;
CREATE TABLE field_points (
    field INTEGER NOT NULL, lat REAL NOT NULL, lon REAL NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (field, lat, lon, number)
) WITHOUT ROWID;
CREATE VIEW texts AS SELECT number, text FROM row_data WHERE text IS NOT NULL;
CREATE VIRTUAL TABLE words USING fts5(
    text, content = 'texts', content_rowid = 'number', tokenize = '{TOKENIZER}'
);
CREATE TABLE graphs (
    vector INTEGER PRIMARY KEY, generation INTEGER NOT NULL, file TEXT NOT NULL, through INTEGER NOT NULL,
    count INTEGER NOT NULL, bytes INTEGER NOT NULL, blake3 TEXT NOT NULL, quantization TEXT NOT NULL,
    scale REAL NOT NULL, checksum INTEGER NOT NULL
);
";

/// Whether [`create`] made a store.
pub(super) enum Created {
    New,
    Existing,
}

/// The table with the vectors of a name.
pub(super) fn vector_table(vector: i64) -> String {
    format!("vector_data_{vector}")
}

/// Whether a database has no tables.
pub(super) fn is_empty(connection: &Connection) -> Result<bool, Failure> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0)
}

/// Makes the tables in an empty database, all or none.
pub(super) fn create(connection: &mut Connection, config: &StoreConfig) -> Result<Created, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    if !is_empty(&transaction)? {
        return Ok(Created::Existing);
    }
    transaction.execute_batch(&TABLES.replace("{TOKENIZER}", TOKENIZER))?;
    for (number, (name, vector)) in (1i64..).zip(&config.vectors) {
        let settings = serde_json::to_string(vector).map_err(|e| Failure::Damaged(e.to_string()))?;
        transaction.execute(
            "INSERT INTO vectors (vector, name, config) VALUES (?1, ?2, ?3)",
            params![number, name, settings],
        )?;
        let table = vector_table(number);
        transaction.execute_batch(&format!("CREATE TABLE {table} (number INTEGER PRIMARY KEY, data BLOB NOT NULL)"))?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(Created::New)
}

/// Checks that a database is a store of this version; returns its named vectors.
pub(super) fn open(connection: &Connection, database: &Path) -> Result<Vec<NamedVector>, Failure> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if application != APPLICATION_ID {
        let reason = if is_empty(connection)? {
            "is empty: its creation was interrupted; create it again"
        } else {
            "is a database of another program, expected a store that `mm index build` made"
        };
        return Err(Error::file(database, reason).into());
    }
    if version != VERSION {
        return Err(Error::Version { path: database.to_owned(), found: version, expected: VERSION }.into());
    }
    let mut statement = connection.prepare("SELECT vector, name, config FROM vectors ORDER BY vector")?;
    let mut rows = statement.query([])?;
    let mut vectors = Vec::new();
    while let Some(row) = rows.next()? {
        let (number, name, settings): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let damaged = |e| Failure::Damaged(format!("settings of vector `{name}`: {e}"));
        let config: VectorConfig = serde_json::from_str(&settings).map_err(damaged)?;
        vectors.push(NamedVector::new(number, name, config));
    }
    Ok(vectors)
}
