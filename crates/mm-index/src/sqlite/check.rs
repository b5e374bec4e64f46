//! Reading everything, and comparing it.

use super::{
    NamedVector, SqliteStore,
    check_rows::{PROGRESS_STEP, check_rows, name_of_row},
    failure::Failure,
    graph::hash_file,
    graph_record::graph_record,
    read::{is_in, read_blob},
    stats::count,
    tail::read_after,
};
use crate::{
    CheckReport, OnProgress, Result,
    check::{REBUILD, RESTORE},
};
use rusqlite::Connection;

impl SqliteStore {
    pub(super) fn check_all(&self, on_progress: OnProgress<'_>) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        self.read("checking the store", |connection| {
            check_database(connection, &mut report)?;
            check_rows(connection, &mut report, on_progress)?;
            for vector in self.vectors.values() {
                check_vectors(connection, vector, &mut report, on_progress)?;
                self.check_graph(connection, vector, &mut report)?;
            }
            Ok(())
        })?;
        self.check_words(&mut report);
        Ok(report)
    }

    fn check_graph(
        &self,
        connection: &Connection,
        vector: &NamedVector,
        report: &mut CheckReport,
    ) -> Result<(), Failure> {
        let sql = "SELECT 1 FROM graphs WHERE vector = ?1";
        let what = format!("graph of vector `{}`", vector.name);
        let mend = "searches are exact until `mm index optimize` builds it again";
        let Some(record) = graph_record(connection, vector)? else {
            if connection.prepare(sql)?.exists([vector.number])? {
                report.add(what, format!("its record is damaged; {mend}"), true);
            }
            return Ok(());
        };
        let reason = match hash_file(&self.graphs().join(&record.file)) {
            Ok(hash) if hash == record.blake3 => return Ok(()),
            Ok(_) => "is damaged (its hash is not the recorded one)".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        report.add(what, format!("{} {reason}; {mend}", record.file), true);
        Ok(())
    }
}

/// The pages of the database.
fn check_database(connection: &Connection, report: &mut CheckReport) -> Result<(), Failure> {
    // FTS5 compares the index of words with the list of its parts that the connection read last, which is an old one where
    // another connection has merged them since. A query reads it again; what is wrong with it is found below.
    let refreshed = connection.prepare("SELECT 1 FROM words WHERE words MATCH 'a' LIMIT 1");
    drop(refreshed.and_then(|mut query| query.exists([])));
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for line in lines.into_iter().filter(|line| line != "ok") {
        report.add("database", format!("{line}; restore a copy of the store"), false);
    }
    Ok(())
}

/// Checksums and count of the vectors of a name, and whether each belongs to a row.
fn check_vectors(
    connection: &Connection,
    vector: &NamedVector,
    report: &mut CheckReport,
    on_progress: OnProgress<'_>,
) -> Result<(), Failure> {
    let expected = count(connection, vector)?;
    let (mut found, mut damaged, mut without_row, mut values) = (0, Vec::new(), Vec::new(), Vec::new());
    read_after(connection, vector, 0, |number, blob| {
        if found % PROGRESS_STEP == 0 {
            on_progress(&vector.name, found, expected);
        }
        found += 1;
        values.clear();
        match read_blob(vector, number, blob, &mut values) {
            Ok(()) => {}
            Err(failure) if failure.is_damage() => damaged.push(name_of_row(connection, number)),
            Err(other) => return Err(other),
        }
        if !is_in(connection, "row_data", number)? {
            without_row.push(format!("number {number}"));
        }
        Ok(true)
    })?;
    let what = format!("vector `{}` of row", vector.name);
    report.list(&what, &damaged, &format!("its checksum is wrong; {RESTORE}"));
    report.list(&what, &without_row, &format!("the row is not there; {REBUILD}"));
    if found != expected {
        let reason = format!("found {found} rows, expected {expected}; {REBUILD}");
        report.add(format!("vector `{}`", vector.name), reason, false);
    }
    Ok(())
}
