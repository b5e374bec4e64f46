//! The embedded engine: SQLite holds the truth, usearch holds graphs that are derived from it.
//!
//! A store is a folder: `index.sqlite` has rows, payloads, texts and vectors; `graphs` has a file for each named vector
//! that was optimized. A graph is never trusted: its file is compared with the hash in the database when it is loaded,
//! and what it finds is looked up and scored by the vectors of the rows.
//!
//! An upsert writes a row under a new number, and numbers are never used twice. So what was derived from a number stays
//! right: a row of a graph is either as it was, or its number is gone. Rows with higher numbers than the graph knows are
//! compared one by one.

mod check;
mod check_rows;
mod connection;
mod failure;
mod filter;
mod graph;
mod graph_record;
mod graph_write;
mod live_rows;
mod loaded_graph;
mod nearest;
mod optimize;
mod read;
mod schema;
mod search;
mod selection;
mod state;
mod stats;
mod tail;
mod text;
mod write;

use crate::{
    Answer, CheckReport, Cursor, Error, Filter, OnProgress, OptimizeOptions, Optimized, Page, Query, Result, Row,
    SearchSettings, Stats, Store, StoreConfig, config::VectorConfig,
};
use connection::{FileState, Mode, connect, unchanging_state};
use failure::Failure;
use nearest::Caches;
use rusqlite::Connection;
use state::State;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The database in the folder of a store.
const DATABASE: &str = "index.sqlite";

/// The folder of graphs in the folder of a store.
const GRAPHS: &str = "graphs";

/// A named vector: its number in the database, its settings, and what is in memory of it.
struct NamedVector {
    number: i64,
    name: String,
    config: VectorConfig,
    caches: Caches,
}

impl NamedVector {
    /// A named vector of which nothing is in memory.
    fn new(number: i64, name: String, config: VectorConfig) -> Self {
        Self { number, name, config, caches: Caches::default() }
    }
}

/// A connection that only reads.
struct Reader {
    connection: Connection,
    state: State,
    /// Where this process may not write: how the files were when the connection was made.
    files: Option<FileState>,
}

/// A store in a folder, for one machine: any number of processes may read and write it at the same time.
pub struct SqliteStore {
    folder: PathBuf,
    config: StoreConfig,
    settings: SearchSettings,
    vectors: BTreeMap<String, NamedVector>,
    /// Connections that no query uses at the moment. They are closed before the writer, which then writes the log back.
    readers: Mutex<Vec<Reader>>,
    writer: Mutex<Connection>,
}

impl SqliteStore {
    /// Creates a store in a folder, which is made where there is none.
    ///
    /// # Errors
    /// When there is a store already, the folder cannot be written, or the names or widths of the vectors are invalid.
    pub fn create(folder: &Path, config: &StoreConfig) -> Result<Self> {
        config.check()?;
        let failed = |e| Error::file(folder, format!("cannot be created: {e}"));
        std::fs::create_dir_all(folder.join(GRAPHS)).map_err(failed)?;
        let database = folder.join(DATABASE);
        let created =
            connect(&database, Mode::Create).and_then(|mut connection| schema::create(&mut connection, config));
        match created.map_err(|failure| failure.at(&database, "creating the store"))? {
            schema::Created::New => Self::open(folder),
            schema::Created::Existing => {
                Err(Error::file(folder, "holds a store already; open it, delete the folder, or choose another"))
            }
        }
    }

    /// Opens the store in a folder.
    ///
    /// # Errors
    /// When there is none, it is damaged, or of another version.
    pub fn open(folder: &Path) -> Result<Self> {
        let database = folder.join(DATABASE);
        match std::fs::metadata(&database) {
            Ok(file) if file.is_file() => {}
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Error::file(database, format!("cannot be read: {error}; expected read permission")));
            }
            _ => {
                let found = if folder.is_dir() { "holds no store" } else { "no such folder" };
                return Err(Error::file(folder, format!("{found} ({DATABASE}); `mm index build` makes one")));
            }
        }
        let opened = connect(&database, Mode::Write).and_then(|connection| {
            let vectors = schema::open(&connection, &database)?;
            Ok((connection, vectors))
        });
        let (connection, vectors) = opened.map_err(|failure| failure.at(&database, "opening the store"))?;
        let config = vectors.iter().map(|v| (v.name.clone(), v.config.clone())).collect();
        Ok(Self {
            folder: folder.to_owned(),
            config: StoreConfig { vectors: config },
            settings: SearchSettings::default(),
            vectors: vectors.into_iter().map(|vector| (vector.name.clone(), vector)).collect(),
            writer: Mutex::new(connection),
            readers: Mutex::default(),
        })
    }

    /// Whether a folder holds a store, whole or not. One whose creation was interrupted holds none: it can be created.
    pub fn exists(folder: &Path) -> bool {
        let database = folder.join(DATABASE);
        std::fs::metadata(&database).is_ok_and(|file| file.len() > 0)
            && !connect(&database, Mode::Read).and_then(|connection| schema::is_empty(&connection)).unwrap_or(false)
    }

    /// The store with other settings than the default ones; they hold for this value only.
    pub fn with_settings(self, settings: SearchSettings) -> Self {
        Self { settings, ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn database(&self) -> PathBuf {
        self.folder.join(DATABASE)
    }

    fn graphs(&self) -> PathBuf {
        self.folder.join(GRAPHS)
    }

    fn named(&self, name: &str) -> Result<&NamedVector> {
        self.vectors.get(name).ok_or_else(|| Error::unknown("vector", name, self.vectors.keys().map(String::as_str)))
    }

    /// A new connection that only reads.
    fn reader(&self) -> Result<Reader, Failure> {
        let connection = connect(&self.database(), Mode::Read)?;
        let files = unchanging_state(&connection, &self.database())?;
        Ok(Reader { connection, state: State::default(), files })
    }

    /// Runs `work` on one state of the database, which later writes do not change.
    fn read<T>(&self, action: &'static str, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T> {
        self.read_known(action, |connection, _| work(connection))
    }

    /// As `read`, with what the connection remembers of that state.
    fn read_known<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Connection, &mut State) -> Result<T, Failure>,
    ) -> Result<T> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let run = || {
            let mut reader = match idle {
                Some(reader) if unchanging_state(&reader.connection, &self.database())? == reader.files => reader,
                _ => self.reader()?,
            };
            let Reader { connection, state, .. } = &mut reader;
            let result = connection.unchecked_transaction().map_err(Failure::from).and_then(|snapshot| {
                let result = work(&snapshot, state)?;
                snapshot.finish()?;
                Ok(result)
            });
            self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            result
        };
        run().map_err(|failure: Failure| failure.at(&self.database(), action))
    }

    /// Runs `work` in a transaction that is on disk, whole, when this returns, or undone when it fails.
    fn write<T>(&self, action: &'static str, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T> {
        self.try_write(work).map_err(|failure| failure.at(&self.database(), action))
    }

    /// As `write`, with the failure as it is inside of the engine.
    fn try_write<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

impl Store for SqliteStore {
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
        self.read("reading rows", |connection| ids.iter().map(|id| self.row_of_id(connection, id)).collect())
    }

    fn page(&self, after: Option<Cursor>, limit: usize) -> Result<Page> {
        self.read("reading rows", |connection| self.read_page(connection, after, limit))
    }

    fn versions(&self) -> Result<Vec<(String, Option<String>)>> {
        self.read("reading versions", |connection| Ok(read::versions(connection)?))
    }

    fn select(&self, filter: &Filter, limit: usize) -> Result<Vec<String>> {
        filter.check()?;
        self.read_known("filtering rows", |connection, state| {
            let selection = state.select(connection, filter)?;
            selection.numbers().take(limit).map(|number| read::selected_id(connection, number, filter)).collect()
        })
    }

    fn query(&self, query: &Query) -> Result<Answer> {
        self.read_known("searching", |connection, state| self.answer(connection, state, query))
    }

    fn optimize(&self, options: &OptimizeOptions<'_>, on_progress: OnProgress<'_>) -> Result<Optimized> {
        self.optimize_all(options, on_progress)
    }

    fn stats(&self) -> Result<Stats> {
        self.read("reading counts", |connection| self.read_stats(connection))
    }

    fn check(&self, on_progress: OnProgress<'_>) -> Result<CheckReport> {
        self.check_all(on_progress)
    }
}
