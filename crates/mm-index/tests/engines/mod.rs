//! The engines that tests run on: a folder, and where there is a server of PostgreSQL, a schema of it.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses a part")]

use mm_index::{SearchSettings, SqliteStore, Store, StoreConfig};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

#[cfg(feature = "postgres")]
mod encrypted;
#[cfg(feature = "postgres")]
mod server;
#[cfg(feature = "postgres")]
pub use encrypted::Encrypted;
#[cfg(feature = "postgres")]
pub use server::{Schema, Server};

/// A place for one store.
pub trait Engine {
    /// The location, as `mm_index::open` takes it.
    fn location(&self) -> PathBuf;

    /// How long it takes at most until a process has written a few times.
    fn few_writes(&self) -> Duration {
        Duration::from_millis(280)
    }

    /// Makes the store.
    fn create(&self, config: &StoreConfig) -> Box<dyn Store> {
        drop(mm_index::create(&self.location(), config).unwrap());
        self.open(SearchSettings::default())
    }

    /// Opens the store.
    fn open(&self, settings: SearchSettings) -> Box<dyn Store> {
        open(&self.location(), settings)
    }
}

/// Opens the store at a location.
pub fn open(location: &Path, settings: SearchSettings) -> Box<dyn Store> {
    #[cfg(feature = "postgres")]
    if location.starts_with("postgres:") {
        let address = location.to_str().unwrap();
        return Box::new(mm_index::PostgresStore::open(address).unwrap().with_settings(settings));
    }
    Box::new(SqliteStore::open(location).unwrap().with_settings(settings))
}

/// A folder.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Engine for Folder {
    fn location(&self) -> PathBuf {
        self.0.path().join("store")
    }
}

/// Tests that are functions of an engine, on each engine.
macro_rules! on_each_engine {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(&crate::engines::Folder::new()); })*
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[test] fn $name() {
                if let Some(server) = crate::engines::Server::start() {
                    super::$name(&server.schema());
                }
            })*
        }
    };
}
pub(crate) use on_each_engine;
