//! Rows as they are stored, checked by their checksums.

use super::{NamedVector, SqliteStore, failure::Failure, schema::vector_table};
use crate::{
    Cursor, Filter, Page, Row,
    check::LIST,
    checksum::{row_checksum, to_bytes, vector_checksum},
    row::decode,
    search::{RowData, check_filter},
};
use half::f16;
use rusqlite::{Connection, OptionalExtension as _, params};

/// Bytes of the checksum behind stored vectors.
const CHECKSUM: usize = size_of::<u32>();

/// Vectors as they are stored: little-endian 16-bit floats, and a checksum.
pub(super) fn to_blob(vector: i64, number: i64, values: &[f16]) -> Vec<u8> {
    let mut bytes = to_bytes(values);
    let checksum = vector_checksum(vector, number, &bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// Appends stored vectors to `values`.
pub(super) fn read_blob(vector: &NamedVector, number: i64, blob: &[u8], values: &mut Vec<f16>) -> Result<(), Failure> {
    let damaged = || Failure::Damaged(format!("vector `{}` of row number {number}", vector.name));
    let (bytes, checksum) = blob.split_at_checked(blob.len().wrapping_sub(CHECKSUM)).ok_or_else(damaged)?;
    let is_whole = !bytes.is_empty() && bytes.len() % (vector.config.dim * size_of::<f16>()) == 0;
    if !is_whole || vector_checksum(vector.number, number, bytes).to_le_bytes() != checksum {
        return Err(damaged());
    }
    values.extend(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])));
    Ok(())
}

/// The stored vectors of a row; false where it has none.
pub(super) fn read_vectors(
    connection: &Connection,
    vector: &NamedVector,
    number: i64,
    values: &mut Vec<f16>,
) -> Result<bool, Failure> {
    let table = vector_table(vector.number);
    let mut statement = connection.prepare_cached(&format!("SELECT data FROM {table} WHERE number = ?1"))?;
    let mut rows = statement.query([number])?;
    let Some(row) = rows.next()? else { return Ok(false) };
    let blob = row.get_ref(0)?.as_blob().map_err(|e| Failure::Damaged(e.to_string()))?;
    read_blob(vector, number, blob, values)?;
    Ok(true)
}

/// The number of a row.
pub(super) fn number_of_id(connection: &Connection, id: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT number FROM row_data WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()
}

/// The id of a row.
pub(super) fn id_of_number(connection: &Connection, number: i64) -> rusqlite::Result<String> {
    connection.prepare_cached("SELECT id FROM row_data WHERE number = ?1")?.query_row([number], |row| row.get(0))
}

/// A row by its number, without its vectors.
pub(super) fn row_data(connection: &Connection, number: i64) -> Result<Option<RowData>, Failure> {
    let sql = "SELECT id, payload, text, version, checksum FROM row_data WHERE number = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([number])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (id, payload, text, version): (String, String, Option<String>, Option<String>) =
        (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let damaged = || Failure::Damaged(format!("row number {number}"));
    if i64::from(row_checksum(number, &id, &payload, text.as_deref(), version.as_deref())) != row.get::<_, i64>(4)? {
        return Err(damaged());
    }
    let payload = serde_json::from_str(&payload).map_err(|_| damaged())?;
    Ok(Some(RowData { id, payload, text, version }))
}

/// What it means that the tables that are searched name a row that is not there.
pub(super) fn absent(number: i64) -> Failure {
    Failure::Damaged(format!("row number {number} was found but is not there; {LIST}"))
}

/// The id of a row that a filter selects, by comparing the row with it.
pub(super) fn selected_id(connection: &Connection, number: i64, filter: &Filter) -> Result<String, Failure> {
    let row = row_data(connection, number)?.ok_or_else(|| absent(number))?;
    check_filter(filter, &row).map_err(Failure::Damaged)?;
    Ok(row.id)
}

/// Whether there is a row of a number in a table.
pub(super) fn is_in(connection: &Connection, table: &str, number: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached(&format!("SELECT 1 FROM {table} WHERE number = ?1"))?.exists([number])
}

/// Id and version of every row.
pub(super) fn versions(connection: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut statement = connection.prepare("SELECT id, version FROM row_data ORDER BY number")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

impl SqliteStore {
    /// A row by its number.
    fn row(&self, connection: &Connection, number: i64) -> Result<Option<Row>, Failure> {
        let Some(RowData { id, payload, text, version }) = row_data(connection, number)? else { return Ok(None) };
        let mut row = Row { id, payload, text, version, ..Row::default() };
        let mut values = Vec::new();
        for (name, vector) in &self.vectors {
            values.clear();
            if read_vectors(connection, vector, number, &mut values)? {
                row.vectors.insert(name.clone(), decode(&vector.config, &values));
            }
        }
        Ok(Some(row))
    }

    pub(super) fn row_of_id(&self, connection: &Connection, id: &str) -> Result<Option<Row>, Failure> {
        match number_of_id(connection, id)? {
            Some(number) => self.row(connection, number),
            None => Ok(None),
        }
    }

    pub(super) fn read_page(
        &self,
        connection: &Connection,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Failure> {
        let Cursor(after) = after.unwrap_or(Cursor(0));
        let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
        let sql = "SELECT number FROM row_data WHERE number > ?1 ORDER BY number LIMIT ?2";
        let row_numbers: Vec<i64> = connection
            .prepare_cached(sql)?
            .query_map(params![after, limit], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut rows = Vec::with_capacity(row_numbers.len());
        for number in &row_numbers {
            rows.extend(self.row(connection, *number)?);
        }
        Ok(Page { rows, next: row_numbers.last().map(|last| Cursor(*last)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VectorConfig;

    #[test]
    fn damaged_vectors_are_found() {
        let vector = NamedVector::new(1, "a".into(), VectorConfig::cosine(2));
        let stored = [f16::from_f32(0.6), f16::from_f32(0.8)];
        let blob = to_blob(1, 7, &stored);
        let read = |number: i64, blob: &[u8]| {
            let mut values = Vec::new();
            read_blob(&vector, number, blob, &mut values).map(|()| values)
        };
        assert_eq!(read(7, &blob).unwrap(), stored);
        assert!(read(8, &blob).is_err(), "of another row");
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(7, &flipped).is_err(), "bit {bit}");
        }
        for length in 0..blob.len() {
            assert!(read(7, &blob[..length]).is_err(), "{length} bytes");
        }
    }
}
