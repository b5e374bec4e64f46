//! Errors inside of the engine, before it is known to which file and action they belong.

use crate::Error;
use rusqlite::{ErrorCode, ffi};
use std::{path::Path, time::Duration};

/// How long a writer waits for another process that writes.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// An error of SQLite or of this crate.
#[derive(Debug)]
pub(super) enum Failure {
    Sql(rusqlite::Error),
    Other(Error),
    /// Stored data are not what was written.
    Damaged(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Whether a column has another type than the one that was written.
fn is_conversion(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

/// Whether there was no room for a write, or for the file by which processes share the log (`-shm`), which reading needs
/// too.
fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE)
}

impl Failure {
    /// Whether what was read is not what was written: its checksum is wrong, or a column has another type.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Sql(error) => is_conversion(error),
            Self::Other(_) => false,
        }
    }

    /// The error code of SQLite.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sql(error) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// As an error of a database and an action.
    pub(super) fn at(self, database: &Path, action: &'static str) -> Error {
        let error = match self {
            Self::Other(error) => return error,
            Self::Damaged(what) => return Error::Damaged { path: database.to_owned(), what },
            Self::Sql(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Error::Busy { path: database.to_owned(), action: "written", seconds: BUSY_TIMEOUT.as_secs() }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Error::Damaged { path: database.to_owned(), what: error.to_string() }
            }
            Some(ErrorCode::ReadOnly) => {
                let reason = format!(
                    "{action} failed: this process may not write here; expected write permission for \
                    the folder of the store and its files"
                );
                Error::file(database, reason)
            }
            _ if is_full(&error) => Error::DiskFull { path: database.to_owned() },
            _ if is_conversion(&error) => Error::Damaged { path: database.to_owned(), what: error.to_string() },
            _ => Error::Sqlite { path: database.to_owned(), action, source: error },
        }
    }
}
