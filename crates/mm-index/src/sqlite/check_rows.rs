//! Checksums of rows, and whether filters see the values of their fields: all of them and no others.

use super::{
    failure::Failure,
    read::{id_of_number, row_data},
};
use crate::{
    CheckReport, OnProgress,
    check::{REBUILD, RESTORE},
    payload::{FieldValues, Payload},
};
use rusqlite::{Connection, params};

/// Rows between two reports of progress.
pub(super) const PROGRESS_STEP: usize = 1000;

/// The tables of what filters see.
const TABLES: [&str; 2] = ["field_values", "field_points"];

/// How many different values and places of a row there are in each of [`TABLES`].
struct Fields {
    found: [i64; 2],
    /// Whether these are all that its payload has.
    is_complete: bool,
}

/// Compares rows with their checksums and with the tables of fields.
pub(super) fn check_rows(
    connection: &Connection,
    report: &mut CheckReport,
    on_progress: OnProgress<'_>,
) -> Result<(), Failure> {
    let total: i64 = connection.query_row("SELECT count(*) FROM row_data", [], |row| row.get(0))?;
    let total = usize::try_from(total).unwrap_or(0);
    let mut statement = connection.prepare("SELECT number FROM row_data ORDER BY number")?;
    let mut row_numbers = statement.query([])?;
    let (mut damaged, mut incomplete, mut found) = (Vec::new(), Vec::new(), [0; 2]);
    while let Some(row) = row_numbers.next()? {
        let number: i64 = row.get(0)?;
        if report.rows.is_multiple_of(PROGRESS_STEP) {
            on_progress("rows", report.rows, total);
        }
        report.rows += 1;
        match row_data(connection, number) {
            Ok(Some(row)) => {
                let fields = find_fields(connection, number, &row.payload)?;
                found.iter_mut().zip(fields.found).for_each(|(sum, of_row)| *sum += of_row);
                if !fields.is_complete {
                    incomplete.push(row.id);
                }
            }
            Ok(None) => {}
            Err(failure) if failure.is_damage() => damaged.push(name_of_row(connection, number)),
            Err(other) => return Err(other),
        }
    }
    report.list("row", &damaged, &format!("its checksum is wrong; {RESTORE}"));
    report.list("row", &incomplete, "filters do not see all of its fields; delete the row and write it again");
    for (table, found) in TABLES.into_iter().zip(found) {
        let total: i64 = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        if total > found {
            list_extra_values(connection, table, report)?;
        }
    }
    Ok(())
}

/// A damaged row as a person finds it: by its id, which may be damaged itself, else by its number.
pub(super) fn name_of_row(connection: &Connection, number: i64) -> String {
    id_of_number(connection, number).unwrap_or_else(|_| format!("number {number}"))
}

/// Looks the values of a payload up as filters do.
fn find_fields(connection: &Connection, number: i64, payload: &Payload) -> Result<Fields, Failure> {
    let fields = FieldValues::of(payload);
    let (mut found, mut is_complete) = ([0; 2], true);
    let sql = "SELECT 1 FROM field_values JOIN fields USING (field) WHERE path = ?1 AND value = ?2 AND number = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    for (path, value) in fields.distinct_values() {
        let is_there = statement.exists(params![path, value, number])?;
        found[0] += i64::from(is_there);
        is_complete &= is_there;
    }
    let sql = "SELECT 1 FROM field_points JOIN fields USING (field)
        WHERE path = ?1 AND lat = ?2 AND lon = ?3 AND number = ?4";
    let mut statement = connection.prepare_cached(sql)?;
    for (path, point) in fields.distinct_points() {
        let is_there = statement.exists(params![path, point.lat, point.lon, number])?;
        found[1] += i64::from(is_there);
        is_complete &= is_there;
    }
    Ok(Fields { found, is_complete })
}

/// Lists the rows of which a table of fields has values that they do not have. Damaged rows, which have been listed, do
/// not say what they have.
fn list_extra_values(connection: &Connection, table: &str, report: &mut CheckReport) -> Result<(), Failure> {
    let index = TABLES.iter().position(|name| *name == table).unwrap_or(0);
    let mut statement = connection.prepare(&format!("SELECT number, count(*) FROM {table} GROUP BY number"))?;
    let mut groups = statement.query([])?;
    let (mut without_row, mut with_extra_values) = (Vec::new(), Vec::new());
    while let Some(group) = groups.next()? {
        let (number, count): (i64, i64) = (group.get(0)?, group.get(1)?);
        match row_data(connection, number) {
            Ok(Some(row)) => {
                if find_fields(connection, number, &row.payload)?.found[index] < count {
                    with_extra_values.push(row.id);
                }
            }
            Ok(None) => without_row.push(format!("number {number}")),
            Err(failure) if failure.is_damage() => {}
            Err(other) => return Err(other),
        }
    }
    report.list("row", &with_extra_values, &format!("filters see values that it does not have; {REBUILD}"));
    report.list("fields of row", &without_row, &format!("the row is not there; {REBUILD}"));
    Ok(())
}
