//! Writing and deleting rows.

use super::{NamedVector, PostgresStore, failure::Failure, fields::write_fields, parameters::limit, text::text_words};
use crate::{
    Error, Result, Row,
    checksum::{row_checksum, to_bytes, vector_checksum},
    payload::{FieldValues, Scalar},
    row::encode_row,
};
use half::f16;
use pgvector::HalfVector;
use postgres::{
    Transaction,
    binary_copy::BinaryCopyInWriter,
    types::{Json, ToSql, Type},
};
use std::collections::{BTreeMap, HashSet};

/// Longest id and longest path of a field in bytes: PostgreSQL has no longer ones in an index.
const MAX_INDEXED: usize = 2000;

/// A row that was checked, with what is stored of it.
struct Checked<'a> {
    row: &'a Row,
    payload: String,
    vectors: Vec<(String, Vec<f16>)>,
    fields: FieldValues,
}

impl<'a> Checked<'a> {
    fn new(store: &PostgresStore, row: &'a Row) -> Result<Self> {
        let vectors = encode_row(&store.config, row)?;
        let payload = serde_json::to_string(&row.payload)
            .map_err(|e| Error::invalid(format!("payload of row `{}`", row.id), e, "a JSON object"))?;
        let checked = Self { row, payload, vectors, fields: FieldValues::of(&row.payload) };
        checked.check_texts()?;
        Ok(checked)
    }

    /// Refuses texts that PostgreSQL cannot hold.
    fn check_texts(&self) -> Result<()> {
        let Row { id, text, version, .. } = self.row;
        let of_row = |what: &str| format!("{what} of row `{id}`");
        let texts = self.fields.values.iter().filter_map(|(path, value)| match value {
            Scalar::Text(text) => Some((path, text)),
            _ => None,
        });
        let fields = texts.map(|(path, text)| (of_row(&format!("field `{path}`")), text.as_str()));
        let paths = self.fields.paths().map(|path| (of_row("name of a field"), path.as_str()));
        let own = [("id", Some(id)), ("text", text.as_ref()), ("version", version.as_ref())];
        let own = own.into_iter().filter_map(|(what, text)| Some((of_row(what), text?.as_str())));
        if let Some((what, _)) = own.chain(fields).chain(paths).find(|(_, text)| text.contains('\0')) {
            return Err(Error::invalid(what, "a NUL character", "none: PostgreSQL cannot store it"));
        }
        let indexed = std::iter::once(("id", id)).chain(self.fields.paths().map(|path| ("name of a field", path)));
        for (what, text) in indexed {
            if text.len() > MAX_INDEXED {
                let expected = format!("at most {MAX_INDEXED} bytes in PostgreSQL");
                return Err(Error::invalid(of_row(what), format!("{} bytes", text.len()), expected));
            }
        }
        Ok(())
    }
}

/// Of several rows with one id the last.
fn last_of_each_id<'a>(rows: Vec<Checked<'a>>) -> Vec<Checked<'a>> {
    let mut seen = HashSet::new();
    let mut last: Vec<Checked<'a>> = rows.into_iter().rev().filter(|row| seen.insert(&row.row.id)).collect();
    last.reverse();
    last
}

impl PostgresStore {
    pub(super) fn upsert_rows(&self, rows: &[Row]) -> Result<()> {
        let checked = rows.iter().map(|row| Checked::new(self, row)).collect::<Result<_>>()?;
        let rows = last_of_each_id(checked);
        if rows.is_empty() {
            return Ok(());
        }
        let texts: Vec<Option<&str>> = rows.iter().map(|row| row.row.text.as_deref()).collect();
        let words = text_words(&texts)?;
        self.write("writing rows", |transaction| {
            let mut changes = Changes::default();
            let ids: Vec<&str> = rows.iter().map(|row| row.row.id.as_str()).collect();
            self.remove(transaction, &ids, &mut changes)?;
            let row_numbers = new_row_numbers(transaction, rows.len())?;
            write_rows(transaction, &row_numbers, &rows, &words, &mut changes)?;
            for vector in self.vectors.values() {
                write_vectors(transaction, vector, &row_numbers, &rows, &mut changes)?;
            }
            write_fields(transaction, &row_numbers, &rows.iter().map(|row| &row.fields).collect::<Vec<_>>())?;
            changes.record(transaction)
        })
    }

    pub(super) fn delete_rows(&self, ids: &[&str]) -> Result<usize> {
        self.write("deleting rows", |transaction| {
            let mut changes = Changes::default();
            let deleted = self.remove(transaction, ids, &mut changes)?;
            changes.record(transaction)?;
            Ok(deleted)
        })
    }

    /// Removes rows and everything that was derived from them; returns how many there were.
    fn remove(&self, transaction: &mut Transaction<'_>, ids: &[&str], changes: &mut Changes) -> Result<usize, Failure> {
        let ids: Vec<&str> = ids.iter().copied().filter(|id| !id.contains('\0')).collect();
        let sql = "DELETE FROM mm_rows WHERE id = ANY($1::text[]) RETURNING number, cardinality(words)";
        let mut row_numbers: Vec<i64> = Vec::new();
        for row in transaction.query(sql, &[&ids])? {
            row_numbers.push(row.try_get(0)?);
            if let Some(words) = row.try_get::<_, Option<i32>>(1)? {
                changes.texts -= 1;
                changes.words -= i64::from(words);
            }
        }
        if row_numbers.is_empty() {
            return Ok(0);
        }
        for vector in self.vectors.values() {
            let sql = format!(
                "WITH gone AS (DELETE FROM {} WHERE number = ANY($1) RETURNING number)
                SELECT count(DISTINCT number) FROM gone",
                vector.table()
            );
            let removed: i64 = transaction.query_one(&sql, &[&row_numbers])?.try_get(0)?;
            *changes.vectors.entry(vector.number).or_default() -= removed;
        }
        for table in ["mm_field_values", "mm_field_points"] {
            transaction.execute(&format!("DELETE FROM {table} WHERE number = ANY($1)"), &[&row_numbers])?;
        }
        Ok(row_numbers.len())
    }
}

/// How the totals of a store change by a write.
#[derive(Default)]
struct Changes {
    /// Rows that have a named vector, by its number.
    vectors: BTreeMap<i64, i64>,
    texts: i64,
    words: i64,
}

impl Changes {
    fn record(&self, transaction: &mut Transaction<'_>) -> Result<(), Failure> {
        for (vector, change) in self.vectors.iter().filter(|(_, change)| **change != 0) {
            transaction.execute("UPDATE mm_vectors SET count = count + $2 WHERE vector = $1", &[vector, change])?;
        }
        if (self.texts, self.words) != (0, 0) {
            let sql = "UPDATE mm_store SET texts = texts + $1, words = words + $2";
            transaction.execute(sql, &[&self.texts, &self.words])?;
        }
        Ok(())
    }
}

/// Row numbers that no row ever had, in ascending order.
fn new_row_numbers(transaction: &mut Transaction<'_>, count: usize) -> Result<Vec<i64>, Failure> {
    let sql = "SELECT nextval('mm_numbers') FROM generate_series(1, $1::bigint)";
    let rows = transaction.query(sql, &[&limit(count)])?;
    let mut row_numbers: Vec<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    row_numbers.sort_unstable();
    Ok(row_numbers)
}

/// Copies rows of a table to the server in one stream.
struct Copy<'a> {
    writer: BinaryCopyInWriter<'a>,
}

impl<'a> Copy<'a> {
    fn new(
        transaction: &'a mut Transaction<'_>,
        table: &str,
        columns: &[(&str, Type)],
    ) -> Result<Self, postgres::Error> {
        let (names, types): (Vec<&str>, Vec<Type>) = columns.iter().cloned().unzip();
        let sql = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", names.join(", "));
        Ok(Self { writer: BinaryCopyInWriter::new(transaction.copy_in(&sql)?, &types) })
    }

    fn row(&mut self, values: &[&(dyn ToSql + Sync)]) -> Result<(), postgres::Error> {
        self.writer.write(values)
    }

    fn finish(self) -> Result<(), postgres::Error> {
        self.writer.finish().map(|_| ())
    }
}

fn write_rows(
    transaction: &mut Transaction<'_>,
    row_numbers: &[i64],
    rows: &[Checked<'_>],
    words: &[Option<Vec<String>>],
    changes: &mut Changes,
) -> Result<(), Failure> {
    let columns = [
        ("number", Type::INT8),
        ("id", Type::TEXT),
        ("payload", Type::JSON),
        ("text", Type::TEXT),
        ("version", Type::TEXT),
        ("words", Type::TEXT_ARRAY),
        ("checksum", Type::INT8),
    ];
    let mut copy = Copy::new(transaction, "mm_rows", &columns)?;
    for ((number, checked), words) in row_numbers.iter().zip(rows).zip(words) {
        let Row { id, payload, text, version, .. } = checked.row;
        let checksum = row_checksum(*number, id, &checked.payload, text.as_deref(), version.as_deref());
        let checksum = i64::from(checksum);
        copy.row(&[number, id, &Json(payload), text, version, words, &checksum])?;
        if let Some(words) = words {
            changes.texts += 1;
            changes.words += words.len() as i64;
        }
    }
    Ok(copy.finish()?)
}

/// The checksum of one of the vectors of a row.
pub(super) fn part_checksum(vector: i64, number: i64, part: usize, parts: usize, values: &[f16]) -> i64 {
    let mut bytes = [part, parts].map(|n| (n as u64).to_le_bytes()).concat();
    bytes.extend(to_bytes(values));
    i64::from(vector_checksum(vector, number, &bytes))
}

fn write_vectors(
    transaction: &mut Transaction<'_>,
    vector: &NamedVector,
    row_numbers: &[i64],
    rows: &[Checked<'_>],
    changes: &mut Changes,
) -> Result<(), Failure> {
    let stored = |row: &'_ Checked<'_>| row.vectors.iter().position(|(name, _)| *name == vector.name);
    let with_vector: Vec<(i64, &Vec<f16>)> = row_numbers
        .iter()
        .zip(rows)
        .filter_map(|(number, row)| Some((*number, &row.vectors[stored(row)?].1)))
        .collect();
    if with_vector.is_empty() {
        return Ok(());
    }
    let statement = transaction.prepare("SELECT NULL::halfvec")?;
    let halfvec = statement.columns().first().map_or(Type::UNKNOWN, |column| column.type_().clone());
    let columns = [("number", Type::INT8), ("part", Type::INT4), ("data", halfvec), ("checksum", Type::INT8)];
    let mut copy = Copy::new(transaction, &vector.table(), &columns)?;
    for (number, values) in &with_vector {
        let parts = values.len() / vector.config.dim;
        for (part, values) in values.chunks_exact(vector.config.dim).enumerate() {
            let checksum = part_checksum(vector.number, *number, part, parts, values);
            copy.row(&[number, &(part as i32), &HalfVector::from(values.to_vec()), &checksum])?;
        }
    }
    copy.finish()?;
    *changes.vectors.entry(vector.number).or_default() += with_vector.len() as i64;
    Ok(())
}
