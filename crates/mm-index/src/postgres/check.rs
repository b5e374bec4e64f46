//! Reading everything, and comparing it.

use super::{
    NamedVector, PostgresStore,
    check_rows::{PAGE, Rows, check_rows, names_of_rows},
    failure::Failure,
    parameters::limit,
    read::{PARTS, group_parts},
    stats::{count, graph_index},
};
use crate::{
    CheckReport, OnProgress,
    check::{REBUILD, RESTORE},
};
use postgres::Transaction;

impl PostgresStore {
    pub(super) fn check_all(
        &self,
        transaction: &mut Transaction<'_>,
        report: &mut CheckReport,
        on_progress: OnProgress<'_>,
    ) -> Result<(), Failure> {
        check_server(transaction, report)?;
        let rows = check_rows(transaction, report, on_progress)?;
        check_totals(transaction, &rows, report)?;
        check_owners(transaction, "mm_field_values", "values of fields", report)?;
        check_owners(transaction, "mm_field_points", "places of fields", report)?;
        for vector in self.vectors.values() {
            check_vectors(transaction, vector, report, on_progress)?;
            check_graph(transaction, vector, report)?;
        }
        Ok(())
    }
}

/// Whether the server's disk keeps what it acknowledges.
fn check_server(transaction: &mut Transaction<'_>, report: &mut CheckReport) -> Result<(), Failure> {
    for setting in ["fsync", "full_page_writes"] {
        let value: String = transaction.query_one(&format!("SHOW {setting}"), &[])?.try_get(0)?;
        if value != "on" {
            let reason =
                format!("{setting} is {value}: a power cut may lose or damage rows that were acknowledged; set it on");
            report.add("server", reason, false);
        }
    }
    Ok(())
}

/// The totals of which BM25 is computed.
fn check_totals(transaction: &mut Transaction<'_>, rows: &Rows, report: &mut CheckReport) -> Result<(), Failure> {
    let row = transaction.query_one("SELECT texts, words FROM mm_store", &[])?;
    let (texts, words): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if (texts, words) != (rows.texts, rows.words) {
        let reason = format!(
            "found the totals of {texts} texts and {words} words, expected {} and {}; build the store again",
            rows.texts, rows.words
        );
        report.add("words", reason, false);
    }
    Ok(())
}

/// Checksums and count of the vectors of a name, and whether each belongs to a row.
fn check_vectors(
    transaction: &mut Transaction<'_>,
    vector: &NamedVector,
    report: &mut CheckReport,
    on_progress: OnProgress<'_>,
) -> Result<(), Failure> {
    let expected = count(transaction, vector)?;
    let table = vector.table();
    let (mut found, mut damaged, mut last) = (0, Vec::new(), 0i64);
    loop {
        on_progress(&vector.name, found, expected);
        let sql = format!(
            "SELECT {PARTS} FROM {table} JOIN (
                SELECT DISTINCT number FROM {table} WHERE number > $1 ORDER BY number LIMIT $2
            ) AS page USING (number) ORDER BY number, part"
        );
        let page = group_parts(vector, &transaction.query(&sql, &[&last, &limit(PAGE)])?)?;
        let Some((number, _)) = page.last() else { break };
        last = *number;
        found += page.len();
        for (number, values) in page {
            match values {
                Ok(_) => {}
                Err(Failure::Damaged(_)) => damaged.push(number),
                Err(other) => return Err(other),
            }
        }
    }
    let what = format!("vector `{}` of row", vector.name);
    let damaged = names_of_rows(transaction, &damaged)?;
    report.list(&what, &damaged, &format!("its checksum is wrong; {RESTORE}"));
    if found != expected {
        let reason = format!("found {found} rows, expected {expected}; {REBUILD}");
        report.add(format!("vector `{}`", vector.name), reason, false);
    }
    check_owners(transaction, &table, &format!("vector `{}`", vector.name), report)
}

/// Whether everything in a table belongs to a row.
fn check_owners(
    transaction: &mut Transaction<'_>,
    table: &str,
    what: &str,
    report: &mut CheckReport,
) -> Result<(), Failure> {
    let sql = format!(
        "SELECT count(DISTINCT number) FROM {table} x WHERE NOT EXISTS (SELECT 1 FROM mm_rows r WHERE r.number = x.number)"
    );
    let without_row: i64 = transaction.query_one(&sql, &[])?.try_get(0)?;
    if without_row > 0 {
        report.add(what, format!("{without_row} are of rows that are not there; {REBUILD}"), false);
    }
    Ok(())
}

fn check_graph(
    transaction: &mut Transaction<'_>,
    vector: &NamedVector,
    report: &mut CheckReport,
) -> Result<(), Failure> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am a ON a.oid = c.relam WHERE i.indrelid = $1::text::regclass AND a.amname = 'hnsw')";
    let is_there: bool = transaction.query_one(sql, &[&vector.table()])?.try_get(0)?;
    if is_there && graph_index(transaction, vector)?.is_none() {
        let reason = "is unfinished; searches are exact until `mm index optimize` builds it again";
        report.add(format!("graph of vector `{}`", vector.name), reason, true);
    }
    Ok(())
}
