//! Embedding of an Arrow IPC stream, for programs that hand over rows and wait for their vectors.

use super::{Embedder, embed_values, options::EmbedOptions, values::ValueVector};
use crate::{Error, Result};
use arrow_array::{
    Array, ArrayRef, RecordBatch,
    builder::{Float32Builder, ListBuilder, StringBuilder},
    cast::AsArray,
};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::take::take;
use mm_core::{EncodedFile, Modality, Source};
use mm_data::{Columns, Manifest, Row};
use std::{
    collections::BTreeMap,
    io::{BufReader, Read, Write},
    sync::{Arc, atomic::AtomicBool},
};

/// What was read and written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StreamSummary {
    /// Record batches.
    pub batches: usize,
    /// Rows.
    pub rows: usize,
    /// Vectors.
    pub vectors: usize,
    /// Values that could not be embedded.
    pub failed: usize,
}

/// Reads record batches, and writes for each one with as many rows: `MODALITY_embedding` (a list of float32; null where
/// the row has no value) and `MODALITY_error` (a string, where the value could not be embedded).
///
/// `columns` names the column of a modality; others are in the column of their own name. Text is a column of strings;
/// other values are bytes (binary), paths of files (strings), or structs `{bytes, path}` as Hugging Face's data sets
/// have them.
///
/// # Errors
/// When `input` is no Arrow IPC stream or lacks a column, `output` cannot be written, or a value cannot be read and
/// [`EmbedOptions::fail_on_error`] is set.
pub fn embed_stream(
    model: &dyn Embedder,
    input: impl Read,
    output: impl Write,
    columns: &BTreeMap<Modality, String>,
    options: &EmbedOptions,
) -> Result<StreamSummary> {
    let reader = StreamReader::try_new(BufReader::new(input), None).map_err(invalid_stream)?;
    let columns = choose_columns(model, &reader.schema(), columns, &options.modalities)?;
    let fields = columns.iter().flat_map(|(modality, _)| {
        let vector = DataType::List(Arc::new(Field::new_list_field(DataType::Float32, false)));
        let error = Field::new(format!("{modality}_error"), DataType::Utf8, true);
        [Field::new(format!("{modality}_embedding"), vector, true), error]
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let unwritten = |e: ArrowError| Error::invalid("output", e, "a stream that can be written");
    let mut writer = StreamWriter::try_new(output, &schema).map_err(unwritten)?;
    // The schema at once: a reader may wait for it before it sends the first rows.
    writer.flush().map_err(unwritten)?;
    let mut summary = StreamSummary::default();
    for batch in reader {
        let batch = batch.map_err(invalid_stream)?;
        let arrays = embed_batch(model, &batch, &columns, options, &mut summary)?;
        let vectors = RecordBatch::try_new(schema.clone(), arrays).map_err(unwritten)?;
        writer.write(&vectors).and_then(|()| writer.flush()).map_err(unwritten)?;
        summary.batches += 1;
        summary.rows += batch.num_rows();
    }
    writer.finish().map_err(unwritten)?;
    Ok(summary)
}

fn invalid_stream(error: ArrowError) -> Error {
    Error::invalid("input", error, "an Arrow IPC stream (pyarrow.ipc.new_stream)")
}

/// The modalities to embed, each with the number of its column.
fn choose_columns(
    model: &dyn Embedder,
    schema: &Schema,
    columns: &BTreeMap<Modality, String>,
    wanted: &[Modality],
) -> Result<Vec<(Modality, usize)>> {
    let of_model = model.modalities();
    let mut found = Vec::new();
    let asked: Vec<&Modality> = wanted.iter().chain(columns.keys()).collect();
    let candidates: Vec<&Modality> = if asked.is_empty() { of_model.iter().collect() } else { asked.clone() };
    for modality in candidates {
        if found.iter().any(|(known, _)| known == modality) {
            continue;
        }
        if !of_model.contains(modality) {
            let known = super::names(&of_model);
            return Err(Error::invalid("modality", modality, format!("one that the model takes ({known})")));
        }
        let name = columns.get(modality).map_or(modality.name(), String::as_str);
        match schema.index_of(name) {
            Ok(index) => {
                check_type(modality, schema.field(index))?;
                found.push((modality.clone(), index));
            }
            Err(_) if asked.is_empty() => {}
            Err(_) => return Err(missing_column(schema, name)),
        }
    }
    if found.is_empty() {
        return Err(missing_column(schema, &super::names(&of_model)));
    }
    Ok(found)
}

fn missing_column(schema: &Schema, name: &str) -> Error {
    let found: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let expected = format!("a column {name}, or one that --column MODALITY=COLUMN names");
    Error::invalid("input", format!("the columns {}", found.join(", ")), expected)
}

/// Refuses a column whose values the modality cannot have.
fn check_type(modality: &Modality, field: &Field) -> Result<()> {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Struct, Utf8, Utf8View};
    let found = match field.data_type() {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let fits = match found {
        Utf8 | LargeUtf8 | Utf8View => true,
        Binary | LargeBinary | BinaryView => *modality != Modality::TEXT,
        Struct(fields) => *modality != Modality::TEXT && fields.iter().any(|f| f.name() == "bytes"),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let expected = if *modality == Modality::TEXT {
        "strings"
    } else {
        "binary values, strings (paths) or structs of bytes and path"
    };
    Err(Error::invalid(format!("column {}", field.name()), field.data_type(), expected))
}

/// A string of an array of strings; `None` for null.
fn text_at(array: &ArrayRef, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        _ => None,
    }
}

/// The bytes of a binary array; `None` for null.
fn bytes_at(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    if array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Binary => Some(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => Some(array.as_binary_view().value(row)),
        _ => None,
    }
}

/// The values of a dictionary array, one for each row; other arrays as they are.
fn unpacked(array: &ArrayRef) -> Result<ArrayRef> {
    match array.as_any_dictionary_opt() {
        Some(dictionary) => take(dictionary.values(), dictionary.keys(), None).map_err(invalid_stream),
        None => Ok(array.clone()),
    }
}

/// The value of a row; `None` for null.
fn source_at(modality: &Modality, array: &ArrayRef, row: usize) -> Option<Source> {
    if let Some(text) = text_at(array, row) {
        return Some(if *modality == Modality::TEXT { text.into() } else { Source::Path(text.into()) });
    }
    if let Some(bytes) = bytes_at(array, row) {
        return Some(EncodedFile::in_memory("value", bytes).into());
    }
    let fields = array.as_struct_opt().filter(|_| !array.is_null(row))?;
    let path = fields.column_by_name("path").and_then(|paths| text_at(paths, row));
    match fields.column_by_name("bytes").and_then(|bytes| bytes_at(bytes, row)) {
        Some(bytes) => Some(EncodedFile::in_memory(path.unwrap_or("value"), bytes).into()),
        None => path.map(|path| Source::Path(path.into())),
    }
}

/// The columns of vectors and errors of a batch.
fn embed_batch(
    model: &dyn Embedder,
    batch: &RecordBatch,
    columns: &[(Modality, usize)],
    options: &EmbedOptions,
    summary: &mut StreamSummary,
) -> Result<Vec<ArrayRef>> {
    let values: Vec<(&Modality, ArrayRef)> = columns
        .iter()
        .map(|(modality, column)| Ok((modality, unpacked(batch.column(*column))?)))
        .collect::<Result<_>>()?;
    let row = |row: usize| {
        let value = |(modality, values): &(&Modality, ArrayRef)| {
            Some(((*modality).clone(), vec![source_at(modality, values, row)?]))
        };
        let id = format!("batch {}, row {}", summary.batches + 1, row + 1);
        Row::new(id, row + 1, values.iter().filter_map(value))
    };
    let rows: Vec<Row> = (0..batch.num_rows()).map(row).collect();
    let all: Vec<usize> = (0..rows.len()).collect();
    let manifest = Manifest { path: "standard input".into(), rows, columns: Columns::default() };
    let modalities: Vec<Modality> = columns.iter().map(|(modality, _)| modality.clone()).collect();
    let found =
        embed_values(model, &manifest, &all, &modalities, options, &AtomicBool::new(false))?.unwrap_or_default();
    let mut by_value: BTreeMap<(usize, Modality), _> = BTreeMap::new();
    for ValueVector { row, modality, vector } in found {
        by_value.insert((row, modality), vector);
    }
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for modality in modalities {
        let field = Field::new_list_field(DataType::Float32, false);
        let mut vectors = ListBuilder::new(Float32Builder::new()).with_field(field);
        let mut errors = StringBuilder::new();
        for row in &all {
            match by_value.remove(&(*row, modality.clone())) {
                Some(Ok(vector)) => {
                    summary.vectors += 1;
                    vectors.values().append_slice(&vector);
                    vectors.append(true);
                    errors.append_null();
                }
                other => {
                    vectors.append(false);
                    summary.failed += usize::from(other.is_some());
                    errors.append_option(other.and_then(std::result::Result::err));
                }
            }
        }
        arrays.extend([Arc::new(vectors.finish()) as ArrayRef, Arc::new(errors.finish())]);
    }
    Ok(arrays)
}
