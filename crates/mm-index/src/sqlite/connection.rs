//! Connections to the database.

use super::failure::{BUSY_TIMEOUT, Failure};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Bytes of a page of a new database: several vectors fit into one.
const PAGE_SIZE: i64 = 8192;

/// KiB of pages that a connection keeps.
const CACHE_KIB: i64 = 32 * 1024;

/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 64;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Create,
    Write,
    Read,
}

/// Opens a connection. A commit returns when its log is on disk (`synchronous = FULL`); readers and one writer do not
/// block each other (`journal_mode = WAL`).
pub(super) fn connect(database: &Path, mode: Mode) -> Result<Connection, Failure> {
    let create = if mode == Mode::Create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    if mode == Mode::Create {
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    if mode == Mode::Read {
        connection.pragma_update(None, "query_only", true)?;
    }
    Ok(connection)
}
