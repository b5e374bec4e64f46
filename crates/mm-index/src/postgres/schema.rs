//! The tables.

use super::{
    NamedVector, WRITER_LOCK,
    address::Address,
    connection::{NO_EXTENSION, connect_bare, find_extension, use_extension},
    failure::Failure,
};
use crate::{Error, Quantization, StoreConfig, config::VectorConfig};
use postgres::{Client, GenericClient, Transaction, error::SqlState};

/// Says that a schema is a store of mm.
const APPLICATION: &str = "mm-index";

/// The version of the tables and of what is in them. Another version is refused.
const VERSION: i64 = 1;

/// Largest width of a vector in a table.
const MAX_DIM: usize = 16_000;

/// Largest width of vectors that are kept in the rows of the table rather than outside of it: several fit into a page.
const INLINE_DIM: usize = 2_000;

/// Characters of a text by which filters find it; PostgreSQL indexes no long values.
pub(super) const TEXT_PREFIX: usize = 200;

/// The tables, except for that of the vectors of each name.
///
/// - `mm_store`: what the schema is, and the totals that BM25 needs.
/// - `mm_rows`: a row; its number is never used again, not even when the row is deleted or replaced. `words` are those of
///   the text in their order. The payload is `json`, which keeps it as it was written: `jsonb` rewrites numbers.
/// - `mm_fields`, `mm_field_values`, `mm_field_points`: what filters see of the payloads. Texts are compared by bytes.
const TABLES: &str = r#"
CREATE TABLE mm_store (
    application text NOT NULL, version bigint NOT NULL, texts bigint NOT NULL DEFAULT 0, words bigint NOT NULL DEFAULT 0
);
CREATE SEQUENCE mm_numbers AS bigint;
CREATE TABLE mm_vectors (
    vector bigint PRIMARY KEY, name text NOT NULL UNIQUE, config text NOT NULL, count bigint NOT NULL DEFAULT 0
);
CREATE TABLE mm_rows (
    number bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, payload json NOT NULL, text text, version text,
    words text[] COLLATE "C", checksum bigint NOT NULL
);
CREATE INDEX mm_rows_words ON mm_rows USING gin (words);
CREATE TABLE mm_fields (field bigint PRIMARY KEY, path text COLLATE "C" NOT NULL UNIQUE);
CREATE TABLE mm_field_values (
    number bigint NOT NULL, field bigint NOT NULL, number_value numeric, text_value text COLLATE "C",
    bool_value boolean
);
CREATE INDEX mm_field_values_row ON mm_field_values (number, field);
CREATE INDEX mm_field_values_number ON mm_field_values (field, number_value) WHERE number_value IS NOT NULL;
CREATE INDEX mm_field_values_text ON mm_field_values (field, left(text_value, {TEXT_PREFIX}))
    WHERE text_value IS NOT NULL;
CREATE INDEX mm_field_values_bool ON mm_field_values (field, bool_value) WHERE bool_value IS NOT NULL;
CREATE TABLE mm_field_points (
    number bigint NOT NULL, field bigint NOT NULL, lat double precision NOT NULL, lon double precision NOT NULL
);
CREATE INDEX mm_field_points_row ON mm_field_points (number, field);
CREATE INDEX mm_field_points_place ON mm_field_points (field, lat, lon);
"#;

/// The table with the vectors of a name: each vector of a row is a part, of a row with one the part 0.
pub(super) fn vector_table(vector: i64) -> String {
    format!("mm_vector_data_{vector}")
}

/// Refuses what this engine cannot hold.
pub(super) fn check(config: &StoreConfig) -> Result<(), Error> {
    for (name, vector) in &config.vectors {
        if vector.dim > MAX_DIM {
            let expected = format!("a width of 1 to {MAX_DIM} in PostgreSQL");
            return Err(Error::invalid(format!("vector `{name}`"), vector.dim, expected));
        }
        if vector.quantization != Quantization::F16 {
            let expected = "f16: pgvector has no graphs of 8-bit integers";
            return Err(Error::invalid(format!("quantization of vector `{name}`"), "i8", expected));
        }
    }
    Ok(())
}

/// What a schema is.
enum Found {
    Nothing,
    Store,
    /// Tables that mm did not make.
    Others,
}

fn look(client: &mut impl GenericClient, address: &Address) -> Result<Found, Failure> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE relname = 'mm_store') FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')";
    let row = client.query_one(sql, &[&address.schema])?;
    Ok(match (row.try_get::<_, i64>(0)?, row.try_get::<_, i64>(1)?) {
        (0, _) => Found::Nothing,
        (_, 0) => Found::Others,
        _ => Found::Store,
    })
}

/// Whether a schema is a store.
pub(super) fn exists(address: &Address) -> Result<bool, Failure> {
    Ok(matches!(look(&mut connect_bare(address)?, address)?, Found::Store))
}

fn others(address: &Address) -> Error {
    let reason = format!(
        "the schema `{}` holds tables of another program, expected a store that `mm index build` made; name another \
        schema (`?schema=NAME`)",
        address.schema
    );
    Error::file(&address.shown, reason)
}

/// Makes the tables, all or none.
pub(super) fn create(address: &Address, config: &StoreConfig) -> Result<(), Failure> {
    let mut client = connect_bare(address)?;
    let encoding: String = client.query_one("SHOW server_encoding", &[])?.try_get(0)?;
    if encoding != "UTF8" {
        let reason = format!("found a database in {encoding}, expected UTF8 (`createdb --encoding=UTF8`)");
        return Err(Error::file(&address.shown, reason).into());
    }
    let mut transaction = client.transaction()?;
    let number = address.lock_number();
    transaction.batch_execute(&format!("SELECT pg_advisory_xact_lock({WRITER_LOCK}, {number})"))?;
    match look(&mut transaction, address)? {
        Found::Nothing => {}
        Found::Others => return Err(others(address).into()),
        Found::Store => {
            let schema = &address.schema;
            let reason =
                format!("schema `{schema}` holds a store already; open it, drop the schema, or choose another");
            return Err(Error::file(&address.shown, reason).into());
        }
    }
    make_extension(&mut transaction, address)?;
    make_tables(&mut transaction, address, config)?;
    transaction.commit()?;
    Ok(())
}

/// Makes pgvector's types known to the database, where they are not yet.
fn make_extension(transaction: &mut Transaction<'_>, address: &Address) -> Result<(), Failure> {
    let missing = || Failure::Other(Error::file(&address.shown, NO_EXTENSION));
    if find_extension(transaction)?.is_none() {
        let absent = [SqlState::FEATURE_NOT_SUPPORTED, SqlState::UNDEFINED_FILE, SqlState::INSUFFICIENT_PRIVILEGE];
        let made = transaction.batch_execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public");
        made.map_err(|error| match error.code() {
            Some(code) if absent.contains(code) => missing(),
            _ => error.into(),
        })?;
    }
    let extension = find_extension(transaction)?.ok_or_else(missing)?;
    use_extension(transaction, address, &extension)
}

fn make_tables(transaction: &mut Transaction<'_>, address: &Address, config: &StoreConfig) -> Result<(), Failure> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)";
    let is_there: bool = transaction.query_one(sql, &[&address.schema])?.try_get(0)?;
    if !is_there {
        transaction.batch_execute(&format!("CREATE SCHEMA {}", address.quoted_schema()))?;
    }
    transaction.batch_execute(&TABLES.replace("{TEXT_PREFIX}", &TEXT_PREFIX.to_string()))?;
    for (number, (name, vector)) in (1i64..).zip(&config.vectors) {
        let settings = serde_json::to_string(vector).map_err(|e| Failure::Damaged(e.to_string()))?;
        let sql = "INSERT INTO mm_vectors (vector, name, config) VALUES ($1, $2, $3)";
        transaction.execute(sql, &[&number, name, &settings])?;
        let (table, dim) = (vector_table(number), vector.dim);
        let storage = if dim <= INLINE_DIM { "PLAIN" } else { "EXTERNAL" };
        transaction.batch_execute(&format!(
            "CREATE TABLE {table} (
                number bigint NOT NULL, part integer NOT NULL, data halfvec({dim}) NOT NULL, checksum bigint NOT NULL,
                PRIMARY KEY (number, part)
            );
            ALTER TABLE {table} ALTER COLUMN data SET STORAGE {storage}"
        ))?;
    }
    transaction.execute("INSERT INTO mm_store (application, version) VALUES ($1, $2)", &[&APPLICATION, &VERSION])?;
    Ok(())
}

/// Checks that a schema is a store of this version; returns its named vectors.
pub(super) fn open(client: &mut Client, address: &Address) -> Result<Vec<NamedVector>, Failure> {
    match look(client, address)? {
        Found::Store => {}
        Found::Others => return Err(others(address).into()),
        Found::Nothing => {
            let reason = format!("the schema `{}` holds no store; `mm index build` makes one", address.schema);
            return Err(Error::file(&address.shown, reason).into());
        }
    }
    // With the name of the schema, so that a user who may not use it gets that error.
    let sql = format!("SELECT application, version FROM {}.mm_store", address.quoted_schema());
    let found: Option<(String, i64)> = match client.query_opt(&sql, &[]) {
        Ok(row) => row.map(|row| Ok::<_, postgres::Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_COLUMN) => None,
        Err(error) => return Err(error.into()),
    };
    match found {
        Some((application, version)) if application == APPLICATION => {
            if version != VERSION {
                let path = (&address.shown).into();
                return Err(Error::Version { path, found: version, expected: VERSION }.into());
            }
        }
        _ => return Err(others(address).into()),
    }
    let mut vectors = Vec::new();
    for row in client.query("SELECT vector, name, config FROM mm_vectors ORDER BY vector", &[])? {
        let (number, name, settings): (i64, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let damaged = |e| Failure::Damaged(format!("settings of vector `{name}`: {e}"));
        let config: VectorConfig = serde_json::from_str(&settings).map_err(damaged)?;
        vectors.push(NamedVector { number, name, config });
    }
    Ok(vectors)
}
