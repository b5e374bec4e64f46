//! The engine on a server: PostgreSQL holds rows, texts and vectors, and its extension pgvector graphs of them.
//!
//! A store is a schema of a database, so that several fit into one. All its tables begin with `mm_`, and no other is
//! touched. One process writes at a time (an advisory lock of the schema), any number search; each search sees one state
//! of the rows (`REPEATABLE READ`).
//!
//! As in the embedded engine, an upsert writes a row under a new number, numbers are never used twice, and rows and
//! vectors have checksums that are compared whenever they are read. The server finds candidates; scores are computed
//! here from the vectors that it returns, by the same code for every engine.

mod address;
mod check;
mod check_rows;
mod connection;
mod failure;
mod fields;
mod filter;
mod nearest;
mod optimize;
mod parameters;
mod read;
mod schema;
mod search;
mod stats;
mod text;
mod tls;
mod write;

use crate::{
    Answer, CheckReport, Cursor, Error, Filter, OnProgress, OptimizeOptions, Optimized, Page, Query, Result, Row,
    SearchSettings, Stats, Store, StoreConfig, config::VectorConfig,
};
use address::Address;
use connection::connect;
use failure::Failure;
use postgres::{Client, IsolationLevel, Transaction};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Connections that are kept while no query uses them.
const IDLE_CONNECTIONS: usize = 8;

/// The first number of the advisory lock of a process that writes: "mmix". The second one is that of the schema.
const WRITER_LOCK: i32 = 0x6d6d_6978;

/// A named vector: its number in the database and its settings.
struct NamedVector {
    number: i64,
    name: String,
    config: VectorConfig,
}

impl NamedVector {
    /// The table of its vectors.
    fn table(&self) -> String {
        schema::vector_table(self.number)
    }
}

/// A store in a schema of a database, for any number of machines.
///
/// Its calls wait for the server: asynchronous code makes them where blocking is allowed (`spawn_blocking` of tokio).
pub struct PostgresStore {
    address: Address,
    config: StoreConfig,
    settings: SearchSettings,
    vectors: BTreeMap<String, NamedVector>,
    /// Connections that no query uses at the moment.
    readers: Mutex<Vec<Client>>,
    writer: Mutex<Option<Client>>,
}

impl PostgresStore {
    /// Creates a store at an address, `postgres://user:password@host:port/database?schema=birds`. The schema is made
    /// where there is none; without a name it is `mm`. Where the address has no password, that of the environment
    /// variable `PGPASSWORD` is taken.
    ///
    /// # Errors
    /// When there is a store already, the schema holds something else, the server does not answer or lacks pgvector, or
    /// the names or widths of the vectors are invalid.
    pub fn create(address: &str, config: &StoreConfig) -> Result<Self> {
        config.check()?;
        let address = Address::parse(address)?;
        schema::check(config)?;
        schema::create(&address, config).map_err(|failure| failure.at(&address, "creating the store"))?;
        Self::open_at(address)
    }

    /// Opens the store at an address: see [`PostgresStore::create`].
    ///
    /// # Errors
    /// When there is none, it is of another version, or the server does not answer.
    pub fn open(address: &str) -> Result<Self> {
        Self::open_at(Address::parse(address)?)
    }

    /// Whether there is a store at an address.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn exists(address: &str) -> Result<bool> {
        let address = Address::parse(address)?;
        schema::exists(&address).map_err(|failure| failure.at(&address, "looking for the store"))
    }

    fn open_at(address: Address) -> Result<Self> {
        let opened = connect(&address).and_then(|mut client| {
            let vectors = schema::open(&mut client, &address)?;
            Ok((client, vectors))
        });
        let (client, vectors) = opened.map_err(|failure| failure.at(&address, "opening the store"))?;
        let config = vectors.iter().map(|v| (v.name.clone(), v.config.clone())).collect();
        Ok(Self {
            address,
            config: StoreConfig { vectors: config },
            settings: SearchSettings::default(),
            vectors: vectors.into_iter().map(|vector| (vector.name.clone(), vector)).collect(),
            readers: Mutex::new(vec![client]),
            writer: Mutex::default(),
        })
    }

    /// The store with other settings than the default ones; they hold for this value only.
    pub fn with_settings(self, settings: SearchSettings) -> Self {
        Self { settings, ..self }
    }

    fn named(&self, name: &str) -> Result<&NamedVector> {
        self.vectors.get(name).ok_or_else(|| Error::unknown("vector", name, self.vectors.keys().map(String::as_str)))
    }

    /// Runs `work` on one state of the rows, which later writes do not change.
    fn read<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let run = || {
            let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut client = self.live(idle)?;
            let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
            let mut transaction = builder.read_only(true).start()?;
            let result = work(&mut transaction);
            if transaction.rollback().is_ok() {
                let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
                if readers.len() < IDLE_CONNECTIONS {
                    readers.push(client);
                }
            }
            result
        };
        run().map_err(|failure: Failure| failure.at(&self.address, action))
    }

    /// Runs `work` in a transaction that is on the server's disk, whole, when this returns, or undone when it fails. No
    /// other process writes meanwhile.
    fn write<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let mut client = self.live(writer.take())?;
            let mut transaction = client.transaction()?;
            self.wait_to_write(&mut transaction)?;
            let result = work(&mut transaction)?;
            transaction.commit().map_err(|error| self.lost_commit(error))?;
            *writer = Some(client);
            Ok(result)
        };
        run().map_err(|failure: Failure| failure.at(&self.address, action))
    }

    /// A connection that answers: the given one, or another where the server closed it.
    fn live(&self, idle: Option<Client>) -> Result<Client, Failure> {
        if let Some(mut client) = idle
            && !client.is_closed()
            && client.is_valid(self.address.connect_timeout).is_ok()
        {
            return Ok(client);
        }
        connect(&self.address)
    }

    /// Waits until no other process writes; the lock is held until the transaction ends.
    fn wait_to_write(&self, transaction: &mut Transaction<'_>) -> Result<(), Failure> {
        let (number, timeout) = (self.address.lock_number(), self.address.timeout.as_millis());
        transaction.batch_execute(&format!(
            "SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({WRITER_LOCK}, {number});
            SET LOCAL statement_timeout = {timeout}"
        ))?;
        Ok(())
    }

    /// What it means that a commit fails.
    fn lost_commit(&self, error: postgres::Error) -> Failure {
        if error.as_db_error().is_some() {
            return error.into();
        }
        let reason = "the connection was lost while the write was confirmed: it is stored whole or not at all; repeat it, \
            which does no harm";
        let location = self.address.shown.clone();
        Error::Postgres { location, reason: reason.to_owned(), source: error }.into()
    }
}

impl Store for PostgresStore {
    fn config(&self) -> &StoreConfig {
        &self.config
    }

    fn upsert(&self, rows: &[Row]) -> Result<()> {
        self.upsert_rows(rows)
    }

    fn delete(&self, ids: &[&str]) -> Result<usize> {
        self.delete_rows(ids)
    }

    fn get(&self, ids: &[&str]) -> Result<Vec<Option<Row>>> {
        self.read("reading rows", |transaction| self.rows_of_ids(transaction, ids))
    }

    fn page(&self, after: Option<Cursor>, limit: usize) -> Result<Page> {
        self.read("reading rows", |transaction| self.read_page(transaction, after, limit))
    }

    fn versions(&self) -> Result<Vec<(String, Option<String>)>> {
        self.read("reading versions", read::versions)
    }

    fn select(&self, filter: &Filter, limit: usize) -> Result<Vec<String>> {
        filter.check()?;
        self.read("filtering rows", |transaction| filter::select(transaction, filter)?.ids(transaction, limit))
    }

    fn query(&self, query: &Query) -> Result<Answer> {
        self.read("searching", |transaction| self.answer(transaction, query))
    }

    fn optimize(&self, options: &OptimizeOptions<'_>, on_progress: OnProgress<'_>) -> Result<Optimized> {
        self.optimize_all(options, on_progress)
    }

    fn stats(&self) -> Result<Stats> {
        self.read("reading counts", |transaction| self.read_stats(transaction))
    }

    fn check(&self, on_progress: OnProgress<'_>) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        self.read("checking the store", |transaction| self.check_all(transaction, &mut report, on_progress))?;
        Ok(report)
    }
}
