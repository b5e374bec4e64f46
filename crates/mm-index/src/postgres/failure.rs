//! Errors inside of the engine, before it is known to which store and action they belong.

use super::address::Address;
use crate::Error;
use postgres::error::SqlState;
use std::time::Duration;

/// How long a writer waits for another process that writes.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// An error of PostgreSQL or of this crate.
#[derive(Debug)]
pub(super) enum Failure {
    Sql(postgres::Error),
    Other(Error),
    /// Stored data are not what was written.
    Damaged(String),
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// As an error of a store and an action.
    pub(super) fn at(self, address: &Address, action: &str) -> Error {
        let source = match self {
            Self::Other(error) => return error,
            Self::Damaged(what) => return Error::Damaged { path: (&address.shown).into(), what },
            Self::Sql(error) => error,
        };
        if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            let seconds = LOCK_TIMEOUT.as_secs();
            return Error::Busy { path: (&address.shown).into(), action: "written", seconds };
        }
        if source.as_db_error().is_some_and(|error| *error.code() == SqlState::DISK_FULL) {
            return Error::DiskFull { path: address.shown.clone().into() };
        }
        let reason = reason(&source, address, action);
        Error::Postgres { location: address.shown.clone(), reason, source }
    }
}

/// What is wrong and what to do.
fn reason(error: &postgres::Error, address: &Address, action: &str) -> String {
    let Some(database_error) = error.as_db_error() else {
        // The client tells kinds of errors by their text alone.
        if error.to_string().contains("TLS") {
            return format!(
                "{action}: the connection is not encrypted as the address asks, or the server's certificate is not \
                accepted; see `sslmode` and `sslrootcert` in the address"
            );
        }
        if error.to_string().contains("password missing") {
            return format!("{action}: the server asks for a password; give it in PGPASSWORD, or in the address");
        }
        return format!(
            "{action}: the server cannot be reached, or closed the connection; is it running, and are host and port right?"
        );
    };
    let user = address.config.get_user().unwrap_or("the user of this process");
    let database = address.config.get_dbname().unwrap_or(user);
    let code = database_error.code();
    if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        return format!(
            "the server refuses the user `{user}`; check the name and the password (in the address, or in PGPASSWORD)"
        );
    }
    if *code == SqlState::INVALID_CATALOG_NAME {
        return format!(
            "found no database `{database}` on the server; make it (`createdb {database}`) or name another"
        );
    }
    if *code == SqlState::QUERY_CANCELED {
        let seconds = address.timeout.as_secs();
        return format!(
            "{action}: took the server longer than {seconds} s; `mm index optimize` makes searches fast, and \
            `timeout=SECONDS` in the address allows more"
        );
    }
    if *code == SqlState::TOO_MANY_CONNECTIONS {
        return "the server has no connection left; close some, or raise its max_connections".to_owned();
    }
    if *code == SqlState::CANNOT_CONNECT_NOW {
        return "the server is starting or stopping; try again when it is ready".to_owned();
    }
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return format!("{action}: the server takes no writes (a standby); name the primary server");
    }
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        let message = database_error.message();
        return format!("{action}: the user `{user}` may not do this ({message}); grant it, or use the schema's owner");
    }
    if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME {
        return format!("{action}: the tables of schema `{}` are not those of a store any more", address.schema);
    }
    if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED {
        let message = database_error.message();
        return format!(
            "{action}: found damaged data ({message}); restore a copy of the database, or build the store again"
        );
    }
    format!("{action} failed")
}
