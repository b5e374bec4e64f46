//! Writing and deleting rows.

use super::{
    SqliteStore,
    failure::Failure,
    read::{number_of_id, row_data, to_blob},
    schema::vector_table,
    text,
};
use crate::{
    Error, Result, Row,
    checksum::row_checksum,
    payload::{FieldValues, Scalar},
    row::encode_row,
    search::RowData,
};
use half::f16;
use rusqlite::{
    Connection, params,
    types::{ToSqlOutput, Value},
};
use std::collections::HashMap;

/// A value as it is stored: booleans are blobs, since SQLite has no type for them and orders blobs behind numbers and
/// texts.
impl rusqlite::ToSql for Scalar {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Bool(value) => ToSqlOutput::Owned(Value::Blob(vec![u8::from(*value)])),
            Self::Integer(value) => ToSqlOutput::from(*value),
            Self::Float(value) => ToSqlOutput::from(*value),
            Self::Text(text) => ToSqlOutput::from(text.as_str()),
        })
    }
}

/// A row that was checked, with its vectors as they are stored.
struct Checked<'a> {
    row: &'a Row,
    payload: String,
    vectors: Vec<(String, Vec<f16>)>,
}

impl SqliteStore {
    pub(super) fn upsert_rows(&self, rows: &[Row]) -> Result<()> {
        let check = |row| -> Result<Checked<'_>> {
            let vectors = encode_row(&self.config, row)?;
            let payload = serde_json::to_string(&row.payload)
                .map_err(|e| Error::invalid(format!("payload of row `{}`", row.id), e, "a JSON object"))?;
            Ok(Checked { row, payload, vectors })
        };
        let rows: Vec<Checked<'_>> = rows.iter().map(check).collect::<Result<_>>()?;
        if rows.is_empty() {
            return Ok(());
        }
        self.write("writing rows", |connection| {
            let mut writer = Writer::new(self, connection);
            for row in &rows {
                if let Some(number) = number_of_id(connection, &row.row.id)? {
                    writer.remove(number)?;
                }
                writer.insert(row)?;
            }
            writer.finish()
        })
    }

    pub(super) fn delete_rows(&self, ids: &[&str]) -> Result<usize> {
        self.write("deleting rows", |connection| {
            let mut writer = Writer::new(self, connection);
            let mut deleted = 0;
            for id in ids {
                if let Some(number) = number_of_id(connection, id)? {
                    writer.remove(number)?;
                    deleted += 1;
                }
            }
            writer.finish()?;
            Ok(deleted)
        })
    }
}

/// Changes of one transaction.
struct Writer<'a> {
    store: &'a SqliteStore,
    connection: &'a Connection,
    /// How the number of rows of each named vector changes.
    counts: HashMap<i64, i64>,
    /// Numbers of fields by their paths.
    fields: HashMap<String, i64>,
    /// Whether the index has words of a row whose text is unknown.
    has_stale_words: bool,
    /// Removed rows of which it is unknown what the tables of fields have.
    unknown_fields: Vec<i64>,
}

impl<'a> Writer<'a> {
    fn new(store: &'a SqliteStore, connection: &'a Connection) -> Self {
        Self {
            store,
            connection,
            counts: HashMap::new(),
            fields: HashMap::new(),
            has_stale_words: false,
            unknown_fields: Vec::new(),
        }
    }

    fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(parameters)
    }

    fn insert(&mut self, checked: &Checked<'_>) -> Result<(), Failure> {
        let Row { id, payload, text, version, .. } = checked.row;
        let sql = "INSERT INTO row_data (id, payload, text, version, checksum) VALUES (?1, ?2, ?3, ?4, 0)";
        self.execute(sql, params![id, checked.payload, text, version])?;
        let number = self.connection.last_insert_rowid();
        let checksum = row_checksum(number, id, &checked.payload, text.as_deref(), version.as_deref());
        self.execute("UPDATE row_data SET checksum = ?2 WHERE number = ?1", params![number, checksum])?;
        for (name, values) in &checked.vectors {
            let vector = self.store.named(name)?;
            let sql = format!("INSERT INTO {} (number, data) VALUES (?1, ?2)", vector_table(vector.number));
            self.execute(&sql, params![number, to_blob(vector.number, number, values)])?;
            *self.counts.entry(vector.number).or_default() += 1;
        }
        let fields = FieldValues::of(payload);
        for (path, value) in &fields.values {
            let field = self.field(path)?;
            let sql = "INSERT OR IGNORE INTO field_values (field, value, number) VALUES (?1, ?2, ?3)";
            self.execute(sql, params![field, value, number])?;
        }
        for (path, point) in &fields.points {
            let field = self.field(path)?;
            let sql = "INSERT OR IGNORE INTO field_points (field, lat, lon, number) VALUES (?1, ?2, ?3, ?4)";
            self.execute(sql, params![field, point.lat, point.lon, number])?;
        }
        for path in &fields.empty {
            self.field(path)?;
        }
        if let Some(text) = text {
            self.execute("INSERT INTO words (rowid, text) VALUES (?1, ?2)", params![number, text])?;
        }
        Ok(())
    }

    /// The number of a field, which is given one where it has none.
    fn field(&mut self, path: &str) -> rusqlite::Result<i64> {
        if let Some(field) = self.fields.get(path) {
            return Ok(*field);
        }
        self.execute("INSERT OR IGNORE INTO fields (path) VALUES (?1)", [path])?;
        let mut statement = self.connection.prepare_cached("SELECT field FROM fields WHERE path = ?1")?;
        let field = statement.query_row([path], |row| row.get(0))?;
        self.fields.insert(path.to_owned(), field);
        Ok(field)
    }

    /// Removes a row and everything that was derived from it.
    fn remove(&mut self, number: i64) -> Result<(), Failure> {
        match row_data(self.connection, number) {
            Ok(Some(row)) => self.remove_derived(number, &row)?,
            Ok(None) => return Ok(()),
            // A damaged row does not say what was derived from it.
            Err(failure) if failure.is_damage() => {
                self.unknown_fields.push(number);
                self.has_stale_words |= self.has_words(number)?;
            }
            Err(failure) => return Err(failure),
        }
        for vector in self.store.vectors.values() {
            let sql = format!("DELETE FROM {} WHERE number = ?1", vector_table(vector.number));
            let removed = self.execute(&sql, [number])?;
            *self.counts.entry(vector.number).or_default() -= removed as i64;
        }
        self.execute("DELETE FROM row_data WHERE number = ?1", [number])?;
        Ok(())
    }

    /// Removes the fields and the words of a row that is as it was written.
    fn remove_derived(&mut self, number: i64, row: &RowData) -> Result<(), Failure> {
        if !self.remove_fields(number, &FieldValues::of(&row.payload))? {
            self.unknown_fields.push(number);
        }
        if let Some(text) = &row.text {
            let sql = "INSERT INTO words (words, rowid, text) VALUES ('delete', ?1, ?2)";
            self.execute(sql, params![number, text])?;
        }
        Ok(())
    }

    /// Removes the values of a row from the tables of fields. False where one was not there: it may be there as another.
    fn remove_fields(&mut self, number: i64, fields: &FieldValues) -> Result<bool, Failure> {
        let mut found_all = true;
        for (path, value) in fields.distinct_values() {
            let field = self.field(path)?;
            let sql = "DELETE FROM field_values WHERE field = ?1 AND value = ?2 AND number = ?3";
            found_all &= self.execute(sql, params![field, value, number])? > 0;
        }
        for (path, point) in fields.distinct_points() {
            let field = self.field(path)?;
            let sql = "DELETE FROM field_points WHERE field = ?1 AND lat = ?2 AND lon = ?3 AND number = ?4";
            found_all &= self.execute(sql, params![field, point.lat, point.lon, number])? > 0;
        }
        Ok(found_all)
    }

    /// Whether the index has words of a row: FTS5 keeps the number of words of each.
    fn has_words(&self, number: i64) -> rusqlite::Result<bool> {
        self.connection.prepare_cached("SELECT 1 FROM words_docsize WHERE id = ?1")?.exists([number])
    }

    /// Removes whatever the tables of fields have of rows, by reading them once: they are not in the order of rows.
    fn remove_unknown_fields(&self) -> Result<(), Failure> {
        if self.unknown_fields.is_empty() {
            return Ok(());
        }
        // A list in JSON.
        let row_numbers = format!("{:?}", self.unknown_fields);
        for table in ["field_values", "field_points"] {
            let sql = format!("DELETE FROM {table} WHERE number IN (SELECT value FROM json_each(?1))");
            self.execute(&sql, [&row_numbers])?;
        }
        Ok(())
    }

    /// Records the numbers of rows, and removes what is left of damaged ones.
    fn finish(&self) -> Result<(), Failure> {
        self.remove_unknown_fields()?;
        if self.has_stale_words {
            text::rebuild(self.connection)?;
        }
        for (vector, change) in self.counts.iter().filter(|(_, change)| **change != 0) {
            self.execute("UPDATE vectors SET count = count + ?2 WHERE vector = ?1", params![vector, change])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Query, Store as _, StoreConfig, VectorConfig};

    #[test]
    fn the_words_are_indexed_anew_only_where_a_damaged_row_had_some() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::create(folder.path(), &StoreConfig::new("v", VectorConfig::cosine(2))).unwrap();
        let row = |n: usize| Row::new(format!("{n}")).with_text(format!("word{n}")).with_field("n", n);
        store.upsert(&(0..50).map(row).collect::<Vec<_>>()).unwrap();
        store.upsert(&[Row::new("no text").with_field("n", 1)]).unwrap();
        let changes_of_deleting = |id: &str| {
            let damage = format!("UPDATE row_data SET checksum = checksum + 1 WHERE id = '{id}'");
            store.write("damaging", |connection| Ok(connection.execute(&damage, [])?)).unwrap();
            let changes = || store.writer.lock().unwrap().total_changes();
            let before = changes();
            assert_eq!(store.delete(&[id]).unwrap(), 1);
            changes() - before
        };
        assert!(changes_of_deleting("no text") < 20);
        assert!(changes_of_deleting("7") >= 49);
        assert_eq!(store.query(&Query::text("word7")).unwrap().hits.len(), 0);
        assert_eq!(store.query(&Query::text("word8")).unwrap().hits.len(), 1);
        assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, []);
    }
}
