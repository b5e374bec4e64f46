//! Rows as they are stored, checked by their checksums.

use super::{NamedVector, PostgresStore, failure::Failure, parameters::limit, write::part_checksum};
use crate::{Cursor, Page, Row, check::LIST, checksum::row_checksum, row::decode, search::RowData};
use half::f16;
use pgvector::HalfVector;
use postgres::{Transaction, types::ToSql};
use std::collections::HashMap;

/// The columns of a row, of which [`row_data`] makes one.
const COLUMNS: &str = "number, id, payload::text, text, version, checksum";

/// A row of [`COLUMNS`] with its number; a wrong checksum is an error.
fn row_data(row: &postgres::Row) -> Result<(i64, RowData), Failure> {
    let number: i64 = row.try_get(0)?;
    let (id, payload, text, version): (String, String, Option<String>, Option<String>) =
        (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    let damaged = || Failure::Damaged(format!("row number {number}"));
    let checksum = row_checksum(number, &id, &payload, text.as_deref(), version.as_deref());
    if i64::from(checksum) != row.try_get::<_, i64>(5)? {
        return Err(damaged());
    }
    let payload = serde_json::from_str(&payload).map_err(|_| damaged())?;
    Ok((number, RowData { id, payload, text, version }))
}

/// Rows without their vectors that meet a condition on `mm_rows`; what follows it may order and limit them.
pub(super) fn read_rows(
    transaction: &mut Transaction<'_>,
    condition: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<(i64, Result<RowData, Failure>)>, Failure> {
    let rows = transaction.query(&format!("SELECT {COLUMNS} FROM mm_rows WHERE {condition}"), parameters)?;
    let read = |row: &postgres::Row| Ok((row.try_get(0)?, row_data(row).map(|(_, data)| data)));
    rows.iter().map(read).collect()
}

/// What it means that the tables that are searched name a row that is not there.
pub(super) fn absent(number: i64) -> Failure {
    Failure::Damaged(format!("row number {number} was found but is not there; {LIST}"))
}

/// The rows of these row numbers.
pub(super) fn rows_by_number(
    transaction: &mut Transaction<'_>,
    row_numbers: &[i64],
) -> Result<HashMap<i64, RowData>, Failure> {
    let rows = read_rows(transaction, "number = ANY($1)", &[&row_numbers])?;
    rows.into_iter().map(|(number, row)| Ok((number, row?))).collect()
}

/// The columns of the table of a named vector, of which [`group_parts`] makes the vectors of rows.
pub(super) const PARTS: &str = "number, part, data, checksum";

/// The vectors of rows, from their parts in the order of rows and parts; a wrong checksum is an error of this row.
pub(super) fn group_parts(
    vector: &NamedVector,
    rows: &[postgres::Row],
) -> Result<Vec<(i64, Result<Vec<f16>, Failure>)>, Failure> {
    let mut grouped = Vec::new();
    for parts in rows.chunk_by(same_number) {
        let Some(first) = parts.first() else { continue };
        let number: i64 = first.try_get(0)?;
        grouped.push((number, join_parts(vector, number, parts)));
    }
    Ok(grouped)
}

fn same_number(a: &postgres::Row, b: &postgres::Row) -> bool {
    matches!((a.try_get::<_, i64>(0), b.try_get::<_, i64>(0)), (Ok(a), Ok(b)) if a == b)
}

fn join_parts(vector: &NamedVector, number: i64, parts: &[postgres::Row]) -> Result<Vec<f16>, Failure> {
    let mut values = Vec::with_capacity(parts.len() * vector.config.dim);
    for (index, part) in parts.iter().enumerate() {
        let stored: Vec<f16> = part.try_get::<_, HalfVector>(2)?.into();
        let checksum = part_checksum(vector.number, number, index, parts.len(), &stored);
        let is_whole = part.try_get::<_, i32>(1)? == index as i32 && stored.len() == vector.config.dim;
        if !is_whole || checksum != part.try_get::<_, i64>(3)? {
            return Err(Failure::Damaged(format!("vector `{}` of row number {number}", vector.name)));
        }
        values.extend(stored);
    }
    Ok(values)
}

/// The stored vectors of rows, without those of rows that lack them.
pub(super) fn vectors_by_number(
    transaction: &mut Transaction<'_>,
    vector: &NamedVector,
    row_numbers: &[i64],
) -> Result<Vec<(i64, Vec<f16>)>, Failure> {
    let sql = format!("SELECT {PARTS} FROM {} WHERE number = ANY($1) ORDER BY number, part", vector.table());
    let grouped = group_parts(vector, &transaction.query(&sql, &[&row_numbers])?)?;
    grouped.into_iter().map(|(number, values)| Ok((number, values?))).collect()
}

/// The number of the row of an id.
pub(super) fn number_of_id(transaction: &mut Transaction<'_>, id: &str) -> Result<Option<i64>, Failure> {
    // PostgreSQL has no texts with this character, and takes none.
    if id.contains('\0') {
        return Ok(None);
    }
    let found = transaction.query_opt("SELECT number FROM mm_rows WHERE id = $1", &[&id])?;
    Ok(found.map(|row| row.try_get(0)).transpose()?)
}

/// Id and version of every row.
pub(super) fn versions(transaction: &mut Transaction<'_>) -> Result<Vec<(String, Option<String>)>, Failure> {
    let rows = transaction.query("SELECT id, version FROM mm_rows ORDER BY number", &[])?;
    Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, postgres::Error>>()?)
}

impl PostgresStore {
    /// Rows with their vectors.
    fn with_vectors(
        &self,
        transaction: &mut Transaction<'_>,
        rows: Vec<(i64, Result<RowData, Failure>)>,
    ) -> Result<Vec<(i64, Row)>, Failure> {
        let mut complete = Vec::with_capacity(rows.len());
        for (number, row) in rows {
            let RowData { id, payload, text, version } = row?;
            complete.push((number, Row { id, payload, text, version, ..Row::default() }));
        }
        let row_numbers: Vec<i64> = complete.iter().map(|(number, _)| *number).collect();
        for (name, vector) in &self.vectors {
            let mut stored: HashMap<i64, Vec<f16>> =
                vectors_by_number(transaction, vector, &row_numbers)?.into_iter().collect();
            for (number, row) in &mut complete {
                if let Some(values) = stored.remove(number) {
                    row.vectors.insert(name.clone(), decode(&vector.config, &values));
                }
            }
        }
        Ok(complete)
    }

    pub(super) fn rows_of_ids(
        &self,
        transaction: &mut Transaction<'_>,
        ids: &[&str],
    ) -> Result<Vec<Option<Row>>, Failure> {
        let known: Vec<&str> = ids.iter().copied().filter(|id| !id.contains('\0')).collect();
        let rows = read_rows(transaction, "id = ANY($1::text[])", &[&known])?;
        let rows = self.with_vectors(transaction, rows)?;
        let by_id: HashMap<&str, &Row> = rows.iter().map(|(_, row)| (row.id.as_str(), row)).collect();
        Ok(ids.iter().map(|id| by_id.get(id).map(|row| (*row).clone())).collect())
    }

    pub(super) fn read_page(
        &self,
        transaction: &mut Transaction<'_>,
        after: Option<Cursor>,
        limit_rows: usize,
    ) -> Result<Page, Failure> {
        let Cursor(after) = after.unwrap_or(Cursor(0));
        let condition = "number > $1 ORDER BY number LIMIT $2";
        let rows = read_rows(transaction, condition, &[&after, &limit(limit_rows.max(1))])?;
        let rows = self.with_vectors(transaction, rows)?;
        let next = rows.last().map(|(number, _)| Cursor(*number));
        Ok(Page { rows: rows.into_iter().map(|(_, row)| row).collect(), next })
    }
}
