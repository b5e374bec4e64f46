//! Rows of a store as Parquet.
//!
//! A field whose values no other type of a column can hold (lists, objects, values of several types, large integers among
//! other numbers) is a column of texts of the type JSON, one of Parquet's logical types
//! (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#json>), by which an import restores them. The
//! file's metadata state the layout of its columns ([`Layout`]): import takes a column `caption` for a field where the
//! layout has `text`, and texts of digits for texts.

use super::{
    columns::{Layout, StatedColumns},
    field_types::{FieldType, FieldTypes},
};
use crate::{
    Error, Result,
    embedding::{ROW_GROUP_SIZE, write_optional, write_values},
};
use mm_index::{Row, Vectors};
use parquet::{
    basic::{Compression, ConvertedType, LogicalType, Repetition, Type as PhysicalType},
    data_type::{BoolType, ByteArrayType, DoubleType, FloatType, Int64Type},
    errors::Result as ParquetResult,
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        reader::{FileReader as _, SerializedFileReader},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{Type, TypePtr},
};
use serde_json::Value;
use std::{fs::File, io::Write, path::Path, sync::Arc};

/// The key of the layout in the metadata of a file.
const LAYOUT: &str = "mm.layout";

/// What a Parquet file states of its columns; nothing of another file.
pub(super) fn stated_columns(path: &Path) -> Result<StatedColumns> {
    if path.extension().is_none_or(|extension| extension != "parquet") {
        return Ok(StatedColumns::default());
    }
    let file = File::open(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let open = || SerializedFileReader::new(file);
    let reader = mm_data::catching_panics(open).map_err(|reason| Error::file(path, reason))?;
    let reader = reader.map_err(|e| Error::file(path, format!("not a complete Parquet file: {e}")))?;
    let metadata = reader.metadata().file_metadata();
    let is_json = |column: &&TypePtr| column.get_basic_info().converted_type() == ConvertedType::JSON;
    let json = metadata.schema().get_fields().iter().filter(is_json).map(|column| column.name().to_owned()).collect();
    let stated = metadata.key_value_metadata().and_then(|pairs| pairs.iter().find(|pair| pair.key == LAYOUT));
    let layout = stated.and_then(|pair| Layout::named(pair.value.as_deref()?));
    Ok(StatedColumns { json, layout })
}

/// Writes rows as a Parquet file with the columns `id`, `text`, one for each field (`payload_id` for a field `id`), and
/// `embedding`, a list of float32, where a vector is named.
pub struct ParquetRows<'a, W: Write + Send> {
    writer: SerializedFileWriter<W>,
    layout: Layout,
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
        Self::with_layout(out, fields, vector, Layout::Rows)
    }

    /// A file with these fields next to arrays of vectors, with the columns of clip-retrieval.
    pub(super) fn next_to_arrays(out: W, fields: &'a FieldTypes) -> Result<Self> {
        Self::with_layout(out, fields, None, Layout::ClipRetrieval)
    }

    fn with_layout(out: W, fields: &'a FieldTypes, vector: Option<&'a str>, layout: Layout) -> Result<Self> {
        let fields: Vec<(&String, FieldType)> = fields.columns().collect();
        let schema = schema(layout, &fields, vector.is_some()).map_err(unwritten)?;
        let stated = vec![KeyValue::new(LAYOUT.to_owned(), layout.name().to_owned())];
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        let properties = Arc::new(properties.set_key_value_metadata(Some(stated)).build());
        let writer = SerializedFileWriter::new(out, schema, properties).map_err(unwritten)?;
        Ok(Self { writer, layout, fields, vector, rows: Vec::new() })
    }

    /// Adds a row, whose fields are among those given.
    ///
    /// # Errors
    /// When it has another field, or one whose column has no place for its value, or it cannot be written.
    pub fn add(&mut self, mut row: Row) -> Result<()> {
        if let Some((name, _)) = row.payload.iter().find(|(name, value)| !self.holds(name, value)) {
            let field = format!("row `{}`: field `{name}`", row.id);
            let found = "a value that was not there when the types of the columns were read";
            let refused = Error::invalid(field, found, "the same rows until the end of an export");
            return Err(refused.with_hint("the store was written during the export; repeat it"));
        }
        // Other vectors are not written, and would be kept until the group is complete.
        row.vectors.retain(|name, _| self.vector == Some(name.as_str()));
        self.rows.push(row);
        if self.rows.len() < ROW_GROUP_SIZE {
            return Ok(());
        }
        self.write_group().map_err(unwritten)
    }

    /// Whether a field has a column with a place for the value; a value that is null needs none.
    fn holds(&self, field: &str, value: &Value) -> bool {
        // They are sorted by name.
        let found = self.fields.binary_search_by(|(name, _)| name.as_str().cmp(field));
        value.is_null() || found.is_ok_and(|index| self.fields[index].1.holds(value))
    }

    /// Writes what is left and the end of the file, and returns what was written to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<W> {
        if !self.rows.is_empty() {
            self.write_group().map_err(unwritten)?;
        }
        self.writer.into_inner().map_err(unwritten)
    }

    fn write_group(&mut self) -> ParquetResult<()> {
        let rows = std::mem::take(&mut self.rows);
        let described = described(self.layout).len();
        let mut group = self.writer.next_row_group()?;
        let mut index = 0;
        while let Some(mut column) = group.next_column()? {
            match index {
                0 => write_values::<ByteArrayType>(&mut column, rows.iter().map(|row| row.id.as_str().into()))?,
                _ if index < described => {
                    let value: fn(&Row) -> Option<&str> = if index == 1 { text } else { image_path };
                    write_optional::<ByteArrayType>(&mut column, rows.iter().map(|row| value(row).map(Into::into)))?;
                }
                _ => match (self.fields.get(index - described), self.vector) {
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

/// The columns before those of the fields.
fn described(layout: Layout) -> &'static [&'static str] {
    match layout {
        Layout::Rows => &["id", "text"],
        Layout::ClipRetrieval => &["id", "caption", "image_path"],
    }
}

fn text(row: &Row) -> Option<&str> {
    row.text.as_deref()
}

/// The path or URL of the image of a row: that of an import, of a manifest, or of a file of a folder.
fn image_path(row: &Row) -> Option<&str> {
    let field = |name: &str| row.payload.get(name).and_then(Value::as_str);
    let of_file = || field("path").filter(|_| field("modality") == Some("image"));
    field("image_path").or_else(|| field("image")).or_else(of_file)
}

fn unwritten(error: parquet::errors::ParquetError) -> Error {
    Error::invalid("Parquet file", error, "one that can be written")
}

fn schema(layout: Layout, fields: &[(&String, FieldType)], has_vectors: bool) -> ParquetResult<TypePtr> {
    let column = |name: &str, kind: FieldType, repetition| {
        let column = Type::primitive_type_builder(name, kind.physical());
        column.with_repetition(repetition).with_logical_type(kind.logical()).build().map(Arc::new)
    };
    let mut columns = Vec::new();
    for name in described(layout) {
        let repetition = if *name == "id" { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        columns.push(column(name, FieldType::Text, repetition)?);
    }
    for (name, kind) in fields {
        columns.push(column(&layout.column_of(name), *kind, Repetition::OPTIONAL)?);
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

    fn row(id: &str, payload: &Value) -> Row {
        Row { payload: payload.as_object().unwrap().clone(), ..Row::new(id) }
    }

    #[test]
    fn values_that_came_during_an_export_are_refused() {
        let mut fields = FieldTypes::default();
        fields.add(&row("a", &json!({"size": 1, "score": 0.5, "kind": "x", "any": []})).payload);
        let mut file = ParquetRows::new(Vec::<u8>::new(), &fields, None).unwrap();
        file.add(row("a", &json!({"size": 2, "score": 3, "kind": null, "any": "x", "other": null}))).unwrap();
        for changed in [json!({"size": "1"}), json!({"kind": 1}), json!({"size": 0.5}), json!({"year": 1999})] {
            let refused = file.add(row("b", &changed)).unwrap_err().to_string();
            assert!(refused.contains("row `b`: field `") && refused.contains("repeat it"), "{refused}");
        }
        assert_eq!(file.rows.len(), 1);
    }

    #[test]
    fn only_vectors_that_are_written_are_kept() {
        let fields = FieldTypes::default();
        for (vector, kept) in [(None, vec![]), (Some("text"), vec!["text"])] {
            let mut file = ParquetRows::new(Vec::<u8>::new(), &fields, vector).unwrap();
            let row = Row::new("a").with_vector("image", vec![1.0]).with_vector("text", vec![1.0]);
            file.add(row).unwrap();
            assert_eq!(file.rows[0].vectors.keys().collect::<Vec<_>>(), kept);
        }
    }

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
        let stated = stated_columns(&path).unwrap();
        assert_eq!((stated.layout, stated.json.join(" ")), (Some(Layout::Rows), "payload_id mixed sum tags".into()));
        assert_eq!(stated_columns(&folder.path().join("rows.csv")).unwrap(), StatedColumns::default());
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
