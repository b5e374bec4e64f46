//! Connections to the database.

use super::failure::{BUSY_TIMEOUT, Failure};
use crate::Error;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags};
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

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
    if mode != Mode::Create && connection.is_readonly(MAIN_DB)? && !is_readable(&connection)? {
        return connect_unchanging(database);
    }
    configure(&connection, database, mode)?;
    Ok(connection)
}

/// Whether the database can be read: where nobody may write, the files by which readers and writers agree are missing.
fn is_readable(connection: &Connection) -> Result<bool, Failure> {
    match connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
        Err(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)) => {
            Ok(false)
        }
        result => Ok(result.map(|()| true)?),
    }
}

/// Opens a database that this process may not write and that no process writes, without the files by which they agree.
fn connect_unchanging(database: &Path) -> Result<Connection, Failure> {
    let log = log_file(database);
    if std::fs::metadata(&log).is_ok_and(|file| file.len() > 0) {
        let reason = "holds writes that only a process with write permission for the folder can read; open the store \
            once with that permission (`mm index stats`)";
        return Err(Error::file(log, reason).into());
    }
    let path = std::path::absolute(database).unwrap_or_else(|_| database.to_owned());
    let escape = |c: char| match c {
        '%' | '?' | '#' => format!("%{:02X}", c as u32),
        c => c.to_string(),
    };
    let path: String = path.to_string_lossy().chars().map(escape).collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)?;
    configure(&connection, database, Mode::Read)?;
    Ok(connection)
}

/// The log of a database, whose writes are not in the database yet.
fn log_file(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// What tells whether a database that this process may not write has been written since: a connection that expects that
/// nobody does is made anew then. None where the process may write.
pub(super) fn unchanging_state(connection: &Connection, database: &Path) -> Result<Option<FileState>, Failure> {
    if !connection.is_readonly(MAIN_DB)? {
        return Ok(None);
    }
    let file = std::fs::metadata(database).ok();
    let log = std::fs::metadata(log_file(database)).ok();
    let of = |file: Option<std::fs::Metadata>| file.map(|file| (file.len(), file.modified().ok()));
    Ok(Some([of(file), of(log)]))
}

/// Size and time of change of the database and of its log, where there is one.
pub(super) type FileState = [Option<(u64, Option<SystemTime>)>; 2];

fn configure(connection: &Connection, database: &Path, mode: Mode) -> Result<(), Failure> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    if mode == Mode::Create {
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
        let found: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if found != "wal" {
            let reason = format!(
                "found the journal mode `{found}`, expected `wal`: SQLite cannot share its log here, as on network file \
                systems (NFS, SMB); create the store on a local disk"
            );
            return Err(Error::file(database, reason).into());
        }
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    if mode == Mode::Read {
        connection.pragma_update(None, "query_only", true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_may_write_is_read_without_its_log() {
        let folder = tempfile::tempdir().unwrap();
        // The path is not the one that a URI would make of it.
        let database = folder.path().join("a?b#c%20.sqlite");
        let writer = connect(&database, Mode::Create).unwrap();
        writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        let message = connect_unchanging(&database).map(drop).unwrap_err().at(&database, "opening").to_string();
        assert!(message.contains("-wal: holds writes") && message.contains("mm index stats"), "{message}");
        drop(writer);
        let reader = connect_unchanging(&database).unwrap();
        let count = |reader: &Connection| reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(count(&reader).unwrap(), 1);
        let before = unchanging_state(&reader, &database).unwrap();
        assert!(before.is_some() && before == unchanging_state(&reader, &database).unwrap());
        // It was written in spite of it: the connection is not used again.
        let writer = connect(&database, Mode::Write).unwrap();
        writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        assert!(before != unchanging_state(&reader, &database).unwrap());
        drop(writer);
        assert!(before != unchanging_state(&reader, &database).unwrap());
        let failure = Failure::from(reader.execute("INSERT INTO t VALUES (3)", []).unwrap_err());
        assert!(failure.at(&database, "writing rows").to_string().contains("expected write permission"));
        assert_eq!(unchanging_state(&connect(&database, Mode::Read).unwrap(), &database).unwrap(), None);
    }

    #[test]
    fn a_place_where_the_log_cannot_be_shared_is_refused() {
        // A database in memory has no log.
        let connection = Connection::open_in_memory().unwrap();
        let failure = configure(&connection, Path::new("a.sqlite"), Mode::Create).unwrap_err();
        let message = failure.at(Path::new("a.sqlite"), "creating the store").to_string();
        assert!(message.contains("found the journal mode `memory`, expected `wal`"), "{message}");
        assert!(message.contains("network file systems"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_without_write_permission_is_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("index.sqlite");
        connect(&database, Mode::Create)
            .unwrap()
            .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
            .unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(&database, 0o444);
        set(folder.path(), 0o555);
        let may_write = std::fs::write(folder.path().join("probe"), "").is_ok();
        let found = connect(&database, Mode::Read).map(|reader| is_readable(&reader).unwrap());
        set(folder.path(), 0o755);
        assert!(found.unwrap());
        if may_write {
            eprintln!("skipped: this user (root) may write everywhere");
        }
    }
}
