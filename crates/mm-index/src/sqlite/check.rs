//! Reading everything, and comparing it.

use super::{
    NamedVector, SqliteStore,
    failure::Failure,
    graph::hash_file,
    graph_record::graph_record,
    read::{id_of_number, read_blob, row_data},
    stats::count,
    tail::read_after,
};
use crate::{
    CheckReport, OnProgress, Result,
    check::RESTORE,
    payload::{FieldValues, Payload},
};
use rusqlite::{Connection, params};

/// Rows between two reports of progress.
const PROGRESS_STEP: usize = 1000;

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
        let words = self.write("checking the words", |connection| {
            // With a rank, the words are compared with the texts.
            connection.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)", [])?;
            Ok(())
        });
        if let Err(error) = words {
            report.add("words", format!("{error}; build the store again"), false);
        }
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
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for line in lines.into_iter().filter(|line| line != "ok") {
        report.add("database", format!("{line}; restore a copy of the store"), false);
    }
    Ok(())
}

/// Checksums of the rows, and the values of their fields.
fn check_rows(connection: &Connection, report: &mut CheckReport, on_progress: OnProgress<'_>) -> Result<(), Failure> {
    let total: i64 = connection.query_row("SELECT count(*) FROM row_data", [], |row| row.get(0))?;
    let total = usize::try_from(total).unwrap_or(0);
    let mut statement = connection.prepare("SELECT number FROM row_data ORDER BY number")?;
    let mut row_numbers = statement.query([])?;
    let (mut damaged, mut incomplete) = (Vec::new(), Vec::new());
    while let Some(row) = row_numbers.next()? {
        let number: i64 = row.get(0)?;
        if report.rows.is_multiple_of(PROGRESS_STEP) {
            on_progress("rows", report.rows, total);
        }
        report.rows += 1;
        match row_data(connection, number) {
            Ok(Some(row)) if has_fields(connection, number, &row.payload)? => {}
            Ok(Some(row)) => incomplete.push(row.id),
            Ok(None) => {}
            Err(Failure::Damaged(_)) => damaged.push(name_of_row(connection, number)),
            Err(other) => return Err(other),
        }
    }
    report.list("row", &damaged, &format!("its checksum is wrong; {RESTORE}"));
    report.list("row", &incomplete, "filters do not see all of its fields; delete the row and write it again");
    Ok(())
}

/// A damaged row as a person finds it: by its id, which may be damaged itself, else by its number.
fn name_of_row(connection: &Connection, number: i64) -> String {
    id_of_number(connection, number).unwrap_or_else(|_| format!("number {number}"))
}

/// Whether filters see all values of a payload.
fn has_fields(connection: &Connection, number: i64, payload: &Payload) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM field_values JOIN fields USING (field) WHERE path = ?1 AND value = ?2 AND number = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let fields = FieldValues::of(payload);
    for (path, value) in &fields.values {
        if !statement.exists(params![path, value, number])? {
            return Ok(false);
        }
    }
    let sql = "SELECT 1 FROM field_points JOIN fields USING (field)
        WHERE path = ?1 AND lat = ?2 AND lon = ?3 AND number = ?4";
    let mut statement = connection.prepare_cached(sql)?;
    for (path, point) in &fields.points {
        if !statement.exists(params![path, point.lat, point.lon, number])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Checksums and count of the vectors of a name.
fn check_vectors(
    connection: &Connection,
    vector: &NamedVector,
    report: &mut CheckReport,
    on_progress: OnProgress<'_>,
) -> Result<(), Failure> {
    let expected = count(connection, vector)?;
    let (mut found, mut damaged, mut values) = (0, Vec::new(), Vec::new());
    read_after(connection, vector, 0, |number, blob| {
        if found % PROGRESS_STEP == 0 {
            on_progress(&vector.name, found, expected);
        }
        found += 1;
        values.clear();
        match read_blob(vector, number, blob, &mut values) {
            Ok(()) => {}
            Err(Failure::Damaged(_)) => damaged.push(name_of_row(connection, number)),
            Err(other) => return Err(other),
        }
        Ok(true)
    })?;
    let what = format!("vector `{}` of row", vector.name);
    report.list(&what, &damaged, &format!("its checksum is wrong; {RESTORE}"));
    if found != expected {
        let reason = format!("found {found} rows, expected {expected}; restore a copy of the store");
        report.add(format!("vector `{}`", vector.name), reason, false);
    }
    Ok(())
}
