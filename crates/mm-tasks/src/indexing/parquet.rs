//! Rows of a store as Parquet.
//!
//! A field whose values no other type of a column can hold (lists, objects, values of several types, large integers among
//! other numbers) is a column of texts of the type JSON, one of Parquet's logical types
//! (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#json>), by which an import restores them.

use super::columns::column_of;
use crate::{
    Error, Result,
    embedding::{ROW_GROUP_SIZE, write_optional, write_values},
};
use mm_index::{Payload, Row, Vectors};
use parquet::{
    basic::{Compression, ConvertedType, LogicalType, Repetition, Type as PhysicalType},
    data_type::{BoolType, ByteArrayType, DoubleType, FloatType, Int64Type},
    errors::Result as ParquetResult,
    file::{
        properties::WriterProperties,
        reader::{FileReader as _, SerializedFileReader},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{Type, TypePtr},
};
use serde_json::Value;
use std::{collections::BTreeMap, fs::File, io::Write, path::Path, sync::Arc};

/// The type of a column of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldType {
    Bool,
    Integer,
    /// Of which some are too large to be exact among numbers with a fraction.
    LargeInteger,
    Number,
    Text,
    /// Values as JSON: what no other type holds.
    Json,
}

/// The largest integer that is still exact among numbers with a fraction.
const MAX_EXACT: u64 = 1 << 53;

impl FieldType {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Bool),
            Value::Number(number) => Some(match number.as_i64() {
                Some(integer) if integer.unsigned_abs() > MAX_EXACT => Self::LargeInteger,
                Some(_) => Self::Integer,
                None if number.is_u64() => Self::Json,
                None => Self::Number,
            }),
            Value::String(_) => Some(Self::Text),
            Value::Array(_) | Value::Object(_) => Some(Self::Json),
        }
    }

    /// The type that holds values of both.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Integer | Self::Number, Self::Integer | Self::Number) => Self::Number,
            (Self::Integer | Self::LargeInteger, Self::Integer | Self::LargeInteger) => Self::LargeInteger,
            _ => Self::Json,
        }
    }

    fn physical(self) -> PhysicalType {
        match self {
            Self::Bool => PhysicalType::BOOLEAN,
            Self::Integer | Self::LargeInteger => PhysicalType::INT64,
            Self::Number => PhysicalType::DOUBLE,
            Self::Text | Self::Json => PhysicalType::BYTE_ARRAY,
        }
    }

    fn logical(self) -> Option<LogicalType> {
        match self {
            Self::Text => Some(LogicalType::String),
            Self::Json => Some(LogicalType::Json),
            _ => None,
        }
    }
}

/// The fields of rows, each with the type of its column: texts, numbers, true and false where all values are, else JSON.
#[derive(Debug, Clone, Default)]
pub struct FieldTypes(BTreeMap<String, FieldType>);

impl FieldTypes {
    /// Takes the fields of a row into account.
    pub fn add(&mut self, payload: &Payload) {
        for (name, value) in payload {
            let Some(found) = FieldType::of(value) else { continue };
            match self.0.get_mut(name) {
                Some(known) => *known = known.join(found),
                None => {
                    self.0.insert(name.clone(), found);
                }
            }
        }
    }
}

/// The columns of a Parquet file that are of the type JSON; none of another file.
pub(super) fn json_columns(path: &Path) -> Result<Vec<String>> {
    if path.extension().is_none_or(|extension| extension != "parquet") {
        return Ok(Vec::new());
    }
    let file = File::open(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let open = || SerializedFileReader::new(file);
    let reader = mm_data::catching_panics(open).map_err(|reason| Error::file(path, reason))?;
    let reader = reader.map_err(|e| Error::file(path, format!("not a complete Parquet file: {e}")))?;
    let columns = reader.metadata().file_metadata().schema().get_fields().iter();
    let is_json = |column: &&TypePtr| column.get_basic_info().converted_type() == ConvertedType::JSON;
    Ok(columns.filter(is_json).map(|column| column.name().to_owned()).collect())
}

/// Writes rows as a Parquet file with the columns `id`, `text`, one for each field (`payload_id` for a field `id`), and
/// `embedding`, a list of float32, where a vector is named.
pub struct ParquetRows<'a, W: Write + Send> {
    writer: SerializedFileWriter<W>,
    fields: Vec<(&'a String, FieldType)>,
    vector: Option<&'a str>,
    rows: Vec<Row>,
}

impl<'a, W: Write + Send> ParquetRows<'a, W> {
    /// A file with these fields, and the vectors of a name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(out: W, fields: &'a FieldTypes, vector: Option<&'a str>) -> Result<Self> {
        let fields: Vec<(&String, FieldType)> = fields.0.iter().map(|(name, kind)| (name, *kind)).collect();
        let schema = schema(&fields, vector.is_some()).map_err(unwritten)?;
        let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
        let writer = SerializedFileWriter::new(out, schema, properties).map_err(unwritten)?;
        Ok(Self { writer, fields, vector, rows: Vec::new() })
    }

    /// Adds a row, whose fields are among those given.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, row: Row) -> Result<()> {
        self.rows.push(row);
        if self.rows.len() < ROW_GROUP_SIZE {
            return Ok(());
        }
        self.write_group().map_err(unwritten)
    }

    /// Writes what is left and the end of the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        if !self.rows.is_empty() {
            self.write_group().map_err(unwritten)?;
        }
        self.writer.close().map(drop).map_err(unwritten)
    }

    fn write_group(&mut self) -> ParquetResult<()> {
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        let mut index = 0;
        while let Some(mut column) = group.next_column()? {
            match index {
                0 => write_values::<ByteArrayType>(&mut column, rows.iter().map(|row| row.id.as_str().into()))?,
                1 => {
                    let texts = rows.iter().map(|row| row.text.as_deref().map(Into::into));
                    write_optional::<ByteArrayType>(&mut column, texts)?;
                }
                _ => match (self.fields.get(index - 2), self.vector) {
                    (Some((name, kind)), _) => write_field(&mut column, &rows, name, *kind)?,
                    (None, Some(vector)) => write_vectors(&mut column, &rows, vector)?,
                    (None, None) => {}
                },
            }
            column.close()?;
            index += 1;
        }
        group.close().map(drop)
    }
}

fn unwritten(error: parquet::errors::ParquetError) -> Error {
    Error::invalid("Parquet file", error, "one that can be written")
}

fn schema(fields: &[(&String, FieldType)], has_vectors: bool) -> ParquetResult<TypePtr> {
    let column = |name: &str, kind: FieldType, repetition| {
        let column = Type::primitive_type_builder(name, kind.physical());
        column.with_repetition(repetition).with_logical_type(kind.logical()).build().map(Arc::new)
    };
    let mut columns = vec![
        column("id", FieldType::Text, Repetition::REQUIRED)?,
        column("text", FieldType::Text, Repetition::OPTIONAL)?,
    ];
    for (name, kind) in fields {
        columns.push(column(&column_of(name), *kind, Repetition::OPTIONAL)?);
    }
    if has_vectors {
        let element = Type::primitive_type_builder("element", PhysicalType::FLOAT);
        let element = Arc::new(element.with_repetition(Repetition::REQUIRED).build()?);
        let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
        let list = Arc::new(list.with_fields(vec![element]).build()?);
        let group = Type::group_type_builder("embedding").with_repetition(Repetition::OPTIONAL);
        let group = group.with_logical_type(Some(LogicalType::List)).with_converted_type(ConvertedType::LIST);
        columns.push(Arc::new(group.with_fields(vec![list]).build()?));
    }
    Type::group_type_builder("rows").with_fields(columns).build().map(Arc::new)
}

fn write_field(
    column: &mut SerializedColumnWriter<'_>,
    rows: &[Row],
    name: &str,
    kind: FieldType,
) -> ParquetResult<()> {
    let values = rows.iter().map(|row| row.payload.get(name).filter(|value| !value.is_null()));
    match kind {
        FieldType::Bool => write_optional::<BoolType>(column, values.map(|v| v.and_then(Value::as_bool))),
        FieldType::Integer | FieldType::LargeInteger => {
            write_optional::<Int64Type>(column, values.map(|v| v.and_then(Value::as_i64)))
        }
        FieldType::Number => write_optional::<DoubleType>(column, values.map(|v| v.and_then(Value::as_f64))),
        FieldType::Text => {
            write_optional::<ByteArrayType>(column, values.map(|v| v.and_then(Value::as_str).map(Into::into)))
        }
        FieldType::Json => {
            write_optional::<ByteArrayType>(column, values.map(|v| v.map(|v| v.to_string().as_str().into())))
        }
    }
}

/// Lists with definition and repetition levels; null where a row has no vector.
fn write_vectors(column: &mut SerializedColumnWriter<'_>, rows: &[Row], name: &str) -> ParquetResult<()> {
    let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        repetition.push(0);
        match row.vectors.get(name) {
            Some(Vectors::Single(vector)) if !vector.is_empty() => {
                values.extend_from_slice(vector);
                definition.resize(definition.len() + vector.len(), 2);
                repetition.resize(repetition.len() + vector.len() - 1, 1);
            }
            _ => definition.push(0),
        }
    }
    column.typed::<FloatType>().write_batch(&values, Some(&definition), Some(&repetition)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_that_no_column_type_holds_are_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        let large = (1_i64 << 53) + 1;
        let payloads = [
            json!({"tags": ["a", "b"], "size": 1, "mixed": "x", "big": large, "sum": large, "kind": "a", "id": 1.5}),
            json!({"tags": null, "size": 1.5, "mixed": 2, "big": 3, "sum": 0.5, "kind": "b", "id": u64::MAX}),
        ];
        let rows = payloads.iter().enumerate().map(|(number, payload)| {
            let Value::Object(payload) = payload.clone() else { panic!("{payload} is no object") };
            Row { payload, ..Row::new(number.to_string()) }
        });
        let mut fields = FieldTypes::default();
        rows.clone().for_each(|row| fields.add(&row.payload));
        let mut file = ParquetRows::new(File::create(&path).unwrap(), &fields, None).unwrap();
        rows.for_each(|row| file.add(row).unwrap());
        file.finish().unwrap();
        assert_eq!(json_columns(&path).unwrap(), ["payload_id", "mixed", "sum", "tags"]);
        assert_eq!(json_columns(&folder.path().join("rows.csv")).unwrap(), [""; 0]);
        let mut found = Vec::new();
        mm_data::Table::for_each_row(&path, |cells| {
            found.push(cells);
            Ok::<(), mm_data::Error>(())
        })
        .unwrap();
        // Each as its JSON, texts in quotes.
        let cell = |row: usize, column: &str| found[row].get(column).cloned().unwrap_or_default();
        assert_eq!(cell(0, "tags"), json!("[\"a\",\"b\"]"));
        assert_eq!((cell(1, "tags"), cell(0, "mixed"), cell(1, "mixed")), (Value::Null, json!("\"x\""), json!("2")));
        assert_eq!(
            (cell(0, "sum"), cell(0, "big"), cell(1, "size")),
            (json!(large.to_string()), json!(large), json!(1.5))
        );
        assert_eq!((cell(0, "kind"), cell(1, "payload_id")), (json!("a"), json!(u64::MAX.to_string())));
    }
}
