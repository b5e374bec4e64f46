//! Checksums of rows, the values of their fields, and their words.

use super::{failure::Failure, fields::StoredValue, parameters::limit, read::read_rows, text::text_words};
use crate::{CheckReport, OnProgress, check::RESTORE, payload::FieldValues, search::RowData};
use postgres::Transaction;
use std::collections::{HashMap, HashSet};

/// Rows that are read at once.
pub(super) const PAGE: usize = 1000;

/// What all rows have together.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) texts: i64,
    pub(super) words: i64,
}

/// A value or a position of a field, as text.
type Seen = HashMap<i64, HashSet<String>>;

/// Compares rows with their checksums, and with what filters and searches see of them.
pub(super) fn check_rows(
    transaction: &mut Transaction<'_>,
    report: &mut CheckReport,
    on_progress: OnProgress<'_>,
) -> Result<Rows, Failure> {
    let total: i64 = transaction.query_one("SELECT count(*) FROM mm_rows", &[])?.try_get(0)?;
    let (mut rows, mut last) = (Rows::default(), 0i64);
    let (mut damaged, mut incomplete, mut wordless) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        on_progress("rows", report.rows, usize::try_from(total).unwrap_or(0));
        let page = read_rows(transaction, "number > $1 ORDER BY number LIMIT $2", &[&last, &limit(PAGE)])?;
        let Some((number, _)) = page.last() else { break };
        last = *number;
        report.rows += page.len();
        let mut intact: Vec<(i64, RowData)> = Vec::with_capacity(page.len());
        for (number, row) in page {
            match row {
                Ok(row) => intact.push((number, row)),
                Err(Failure::Damaged(_)) => damaged.push(number),
                Err(other) => return Err(other),
            }
        }
        let row_numbers: Vec<i64> = intact.iter().map(|(number, _)| *number).collect();
        let mut seen = seen_fields(transaction, &row_numbers)?;
        for (number, row) in &intact {
            if seen.remove(number).unwrap_or_default() != expected_fields(&FieldValues::of(&row.payload)) {
                incomplete.push(row.id.clone());
            }
        }
        check_words(transaction, &intact, &row_numbers, &mut rows, &mut wordless)?;
    }
    let damaged = names_of_rows(transaction, &damaged)?;
    report.list("row", &damaged, &format!("its checksum is wrong; {RESTORE}"));
    report.list("row", &incomplete, "filters do not see its fields as they are; delete the row and write it again");
    report.list("row", &wordless, "searches do not see its words as they are; delete the row and write it again");
    Ok(rows)
}

/// Damaged rows as a person finds them: by their ids, which may be damaged themselves, else by their numbers.
pub(super) fn names_of_rows(transaction: &mut Transaction<'_>, row_numbers: &[i64]) -> Result<Vec<String>, Failure> {
    let sql = "SELECT number, id FROM mm_rows WHERE number = ANY($1)";
    let rows = transaction.query(sql, &[&row_numbers])?;
    let ids: HashMap<i64, String> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Failure>>()?;
    let name = |number: &i64| ids.get(number).cloned().unwrap_or_else(|| format!("number {number}"));
    Ok(row_numbers.iter().map(name).collect())
}

/// The values and positions that the tables of fields have of rows.
fn seen_fields(transaction: &mut Transaction<'_>, row_numbers: &[i64]) -> Result<Seen, Failure> {
    let mut seen = Seen::new();
    let sql = "SELECT number, path, number_value::text, text_value, bool_value FROM mm_field_values
        JOIN mm_fields USING (field) WHERE number = ANY($1)";
    for row in transaction.query(sql, &[&row_numbers])? {
        let (path, number, text, bool): (&str, Option<String>, Option<&str>, Option<bool>) =
            (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        seen.entry(row.try_get(0)?).or_default().insert(described(path, &StoredValue { number, text, bool }));
    }
    let sql = "SELECT number, path, lat, lon FROM mm_field_points JOIN mm_fields USING (field) WHERE number = ANY($1)";
    for row in transaction.query(sql, &[&row_numbers])? {
        let (path, lat, lon): (&str, f64, f64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        seen.entry(row.try_get(0)?).or_default().insert(format!("{path} at {lat:?} {lon:?}"));
    }
    Ok(seen)
}

fn described(path: &str, value: &StoredValue<'_>) -> String {
    match value {
        StoredValue { number: Some(number), .. } => format!("{path} number {number}"),
        StoredValue { text: Some(text), .. } => format!("{path} text {text}"),
        StoredValue { bool, .. } => format!("{path} bool {bool:?}"),
    }
}

fn expected_fields(fields: &FieldValues) -> HashSet<String> {
    let values = fields.values.iter().map(|(path, value)| described(path, &StoredValue::of(value)));
    let points = fields.points.iter().map(|(path, point)| format!("{path} at {:?} {:?}", point.lat, point.lon));
    values.chain(points).collect()
}

/// Compares the words of rows with their texts, and counts them.
fn check_words(
    transaction: &mut Transaction<'_>,
    rows: &[(i64, RowData)],
    row_numbers: &[i64],
    totals: &mut Rows,
    wordless: &mut Vec<String>,
) -> Result<(), Failure> {
    let texts: Vec<Option<&str>> = rows.iter().map(|(_, row)| row.text.as_deref()).collect();
    let expected = text_words(&texts)?;
    let found = transaction.query("SELECT number, words FROM mm_rows WHERE number = ANY($1)", &[&row_numbers])?;
    let found: HashMap<i64, Option<Vec<String>>> =
        found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, postgres::Error>>()?;
    for ((number, row), words) in rows.iter().zip(&expected) {
        if let Some(words) = words {
            totals.texts += 1;
            totals.words += words.len() as i64;
        }
        if found.get(number) != Some(words) {
            wordless.push(row.id.clone());
        }
    }
    Ok(())
}
