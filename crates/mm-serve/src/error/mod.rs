//! What goes wrong: starting the server ([`Error`]), and one request (`ApiError`).

mod kind;
mod request;

pub(crate) use kind::Kind;
pub(crate) use request::{ApiError, Fault, TeiError, shortened};

use std::{
    error::Error as StdError,
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

/// Why a server does not start. What caused an error is its [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is wrong.
    #[error("{setting}: found {found}, expected {expected}")]
    Setting {
        /// The setting.
        setting: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A file with settings cannot be read.
    #[error("{}: cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A model cannot be loaded.
    #[error("model {name} cannot be loaded from {}", path.display())]
    Model {
        /// Its name.
        name: String,
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The store cannot be opened.
    #[error("the store {location} cannot be opened")]
    Store {
        /// Where it is, without a password.
        location: String,
        /// Why.
        source: Box<mm_index::Error>,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; another program may use the port: choose one with --port")]
    Listen {
        /// The address and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The system does not give what a server needs: threads, signals.
    #[error("the server cannot be started")]
    System(#[from] io::Error),
}

/// The result of starting a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn setting(setting: impl Into<String>, found: impl Display, expected: impl Into<String>) -> Self {
        Self::Setting { setting: setting.into(), found: found.to_string(), expected: expected.into() }
    }

    pub(crate) fn file(path: &Path, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::File { path: path.to_owned(), source: source.into() }
    }
}
