//! Rows of a store as Parquet.

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
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{Type, TypePtr},
};
use serde_json::Value;
use std::{collections::BTreeMap, io::Write, sync::Arc};

/// The type of a column of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldType {
    Bool,
    Integer,
    Number,
    /// Texts; values of other types as JSON.
    Text,
}

impl FieldType {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Bool),
            Value::Number(number) if number.is_i64() => Some(Self::Integer),
            Value::Number(_) => Some(Self::Number),
            _ => Some(Self::Text),
        }
    }

    /// The type that holds values of both.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Integer | Self::Number, Self::Integer | Self::Number) => Self::Number,
            _ => Self::Text,
        }
    }

    fn physical(self) -> PhysicalType {
        match self {
            Self::Bool => PhysicalType::BOOLEAN,
            Self::Integer => PhysicalType::INT64,
            Self::Number => PhysicalType::DOUBLE,
            Self::Text => PhysicalType::BYTE_ARRAY,
        }
    }
}

/// The fields of rows, each with the type of its column: numbers, true and false where all values are, else texts.
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

/// Columns that are not of a field.
const OWN: [&str; 3] = ["id", "text", "embedding"];

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
        let logical = (kind == FieldType::Text).then_some(LogicalType::String);
        let column = Type::primitive_type_builder(name, kind.physical());
        column.with_repetition(repetition).with_logical_type(logical).build().map(Arc::new)
    };
    let mut columns = vec![
        column("id", FieldType::Text, Repetition::REQUIRED)?,
        column("text", FieldType::Text, Repetition::OPTIONAL)?,
    ];
    for (name, kind) in fields {
        let name = if OWN.contains(&name.as_str()) { format!("payload_{name}") } else { (*name).clone() };
        columns.push(column(&name, *kind, Repetition::OPTIONAL)?);
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
        FieldType::Integer => write_optional::<Int64Type>(column, values.map(|v| v.and_then(Value::as_i64))),
        FieldType::Number => write_optional::<DoubleType>(column, values.map(|v| v.and_then(Value::as_f64))),
        FieldType::Text => {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            write_optional::<ByteArrayType>(column, values.map(|v| v.map(|v| text(v).as_str().into())))
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
