//! Arrow tables: IPC streams, as Hugging Face's `datasets` saves them, and IPC files (Feather 2).

#[cfg(feature = "arrow")]
pub(super) use enabled::read;

#[cfg(not(feature = "arrow"))]
pub(super) fn read(
    path: &std::path::Path,
    _: &mut super::BlobWriter<'_>,
    _: &mut super::Rows<'_>,
) -> crate::Result<()> {
    Err(crate::Error::file(path, "this build does not read Arrow; build mm-data with its `arrow` feature"))
}

#[cfg(feature = "arrow")]
mod enabled {
    use super::super::{Cells, blobs::BlobWriter, class_labels::ClassLabels, rows::Rows};
    use crate::{Error, Result, catching_panics, file_type::sniff};
    use arrow_array::{
        Array, ArrayRef, ArrowNumericType, RecordBatch, StructArray,
        cast::AsArray,
        types::{
            Date32Type, Date64Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
            TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
            UInt8Type, UInt16Type, UInt32Type, UInt64Type,
        },
    };
    use arrow_ipc::reader::{FileReader, StreamReader};
    use arrow_schema::{ArrowError, DataType, Schema, TimeUnit};
    use arrow_select::take::take;
    use serde_json::{Number, Value};
    use std::{
        fs::File,
        io::{BufReader, Read, Seek},
        path::Path,
    };

    /// How an IPC file, and no stream, begins.
    const FILE_MAGIC: &[u8] = b"ARROW1";

    pub(in super::super) fn read(path: &Path, blobs: &mut BlobWriter<'_>, rows: &mut Rows<'_>) -> Result<()> {
        let unread = |e: std::io::Error| Error::file(path, format!("cannot be read: {e}"));
        let damaged = |e: ArrowError| Error::file(path, format!("not a complete Arrow IPC file: {e}"));
        let mut file = BufReader::new(File::open(path).map_err(unread)?);
        let mut magic = Vec::new();
        file.by_ref().take(FILE_MAGIC.len() as u64).read_to_end(&mut magic).map_err(unread)?;
        file.rewind().map_err(unread)?;
        let caught = |reason| Error::file(path, reason);
        if magic == FILE_MAGIC {
            let open = || FileReader::try_new(file, None);
            let reader = catching_panics(open).map_err(caught)?.map_err(damaged)?;
            read_batches(path, &reader.schema(), reader.map(|batch| batch.map_err(damaged)), blobs, rows)
        } else {
            let open = || StreamReader::try_new(file, None);
            let reader = catching_panics(open).map_err(caught)?.map_err(damaged)?;
            read_batches(path, &reader.schema(), reader.map(|batch| batch.map_err(damaged)), blobs, rows)
        }
    }

    fn read_batches(
        path: &Path,
        schema: &Schema,
        mut batches: impl Iterator<Item = Result<RecordBatch>>,
        blobs: &mut BlobWriter<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<()> {
        let labels = ClassLabels::read(schema.metadata().get(ClassLabels::KEY).map(String::as_str));
        schema.fields().iter().for_each(|field| rows.declare(field.name()));
        let caught = |reason| Error::file(path, reason);
        while let Some(batch) = catching_panics(|| batches.next()).map_err(caught)? {
            read_batch(path, schema, &labels, &batch?, blobs, rows)?;
        }
        Ok(())
    }

    fn read_batch(
        path: &Path,
        schema: &Schema,
        labels: &ClassLabels,
        batch: &RecordBatch,
        blobs: &mut BlobWriter<'_>,
        rows: &mut Rows<'_>,
    ) -> Result<()> {
        // The keys of a dictionary are looked up once, not for each row.
        let unpacked = |column: &ArrayRef| match column.as_any_dictionary_opt() {
            Some(dictionary) => take(dictionary.values(), dictionary.keys(), None),
            None => Ok(column.clone()),
        };
        let caught = |reason| Error::file(path, reason);
        let columns = || batch.columns().iter().map(unpacked).collect::<Result<Vec<_>, _>>();
        let columns = catching_panics(columns).map_err(caught)?.map_err(|e| Error::file(path, e))?;
        for row in 0..batch.num_rows() {
            let number = rows.len() + 1;
            let cells = || {
                let cells = schema.fields().iter().zip(&columns).map(|(field, column)| {
                    let invalid = |reason| format!("column `{}`, row {number}: {reason}", field.name());
                    Ok((field.name().clone(), value(column, row, blobs).map_err(invalid)?))
                });
                cells.collect::<Result<Cells, String>>()
            };
            let mut cells = catching_panics(cells).flatten().map_err(caught)?;
            labels.name(&mut cells);
            rows.push(cells, blobs)?;
        }
        Ok(())
    }

    /// A value of an array as JSON; bytes become references to encoded files.
    fn value(array: &dyn Array, row: usize, blobs: &mut BlobWriter<'_>) -> Result<Value, String> {
        if array.is_null(row) {
            return Ok(Value::Null);
        }
        let list = |items: &dyn Array, blobs: &mut BlobWriter<'_>| {
            (0..items.len()).map(|item| value(items, item, blobs)).collect::<Result<Vec<_>, _>>().map(Value::Array)
        };
        match array.data_type() {
            DataType::Null => Ok(Value::Null),
            DataType::Utf8 => text(array.as_string::<i32>().value(row), blobs),
            DataType::LargeUtf8 => text(array.as_string::<i64>().value(row), blobs),
            DataType::Utf8View => text(array.as_string_view().value(row), blobs),
            DataType::Binary => bytes(array.as_binary::<i32>().value(row), None, blobs),
            DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row), None, blobs),
            DataType::BinaryView => bytes(array.as_binary_view().value(row), None, blobs),
            DataType::List(_) => list(&array.as_list::<i32>().value(row), blobs),
            DataType::LargeList(_) => list(&array.as_list::<i64>().value(row), blobs),
            DataType::FixedSizeList(_, _) => list(&array.as_fixed_size_list().value(row), blobs),
            DataType::Struct(_) => object(array.as_struct(), row, blobs),
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                value(dictionary.values(), dictionary.normalized_keys()[row], blobs)
            }
            _ => scalar(array, row),
        }
    }

    /// A number, a boolean or a time.
    fn scalar(array: &dyn Array, row: usize) -> Result<Value, String> {
        Ok(match array.data_type() {
            DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
            DataType::Int8 => integer::<Int8Type>(array, row),
            DataType::Int16 => integer::<Int16Type>(array, row),
            DataType::Int32 => integer::<Int32Type>(array, row),
            DataType::Int64 => integer::<Int64Type>(array, row),
            DataType::UInt8 => integer::<UInt8Type>(array, row),
            DataType::UInt16 => integer::<UInt16Type>(array, row),
            DataType::UInt32 => integer::<UInt32Type>(array, row),
            DataType::UInt64 => integer::<UInt64Type>(array, row),
            DataType::Float16 => float(array.as_primitive::<Float16Type>().value(row).to_f64()),
            DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(row))),
            DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Date32 => date(array.as_primitive::<Date32Type>().value_as_date(row)),
            DataType::Date64 => date(array.as_primitive::<Date64Type>().value_as_date(row)),
            DataType::Timestamp(unit, _) => time(array, row, *unit),
            other => {
                let expected = "numbers, booleans, texts, bytes, dates, times, lists or structs";
                return Err(format!("found the type {other}, expected {expected}"));
            }
        })
    }

    fn integer<T: ArrowNumericType>(array: &dyn Array, row: usize) -> Value
    where
        T::Native: Into<Number>,
    {
        Value::Number(array.as_primitive::<T>().value(row).into())
    }

    /// NaN and infinities are missing values, as in JSON.
    fn float(value: f64) -> Value {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }

    fn date(value: Option<impl ToString>) -> Value {
        value.map_or(Value::Null, |value| Value::String(value.to_string()))
    }

    /// A time in UTC, written as those of Parquet tables.
    fn time(array: &dyn Array, row: usize, unit: TimeUnit) -> Value {
        let (time, format) = match unit {
            TimeUnit::Second => {
                (array.as_primitive::<TimestampSecondType>().value_as_datetime(row), "%Y-%m-%d %H:%M:%S +00:00")
            }
            TimeUnit::Millisecond => (
                array.as_primitive::<TimestampMillisecondType>().value_as_datetime(row),
                "%Y-%m-%d %H:%M:%S%.3f +00:00",
            ),
            TimeUnit::Microsecond => (
                array.as_primitive::<TimestampMicrosecondType>().value_as_datetime(row),
                "%Y-%m-%d %H:%M:%S%.6f +00:00",
            ),
            TimeUnit::Nanosecond => {
                (array.as_primitive::<TimestampNanosecondType>().value_as_datetime(row), "%Y-%m-%d %H:%M:%S%.9f +00:00")
            }
        };
        date(time.map(|time| time.format(format)))
    }

    fn text(text: &str, blobs: &mut BlobWriter<'_>) -> Result<Value, String> {
        Ok(blobs.add_inline(text)?.unwrap_or_else(|| Value::String(text.to_owned())))
    }

    /// Bytes that are a text, else a reference to an encoded file.
    fn bytes(bytes: &[u8], name: Option<&str>, blobs: &mut BlobWriter<'_>) -> Result<Value, String> {
        match std::str::from_utf8(bytes) {
            Ok(text) if name.is_none() && sniff(bytes).is_none() && !text.contains('\0') => {
                Ok(Value::String(text.to_owned()))
            }
            _ => blobs.add(bytes, name).map_err(|e| e.to_string()),
        }
    }

    /// A struct; that of Hugging Face's images and recordings, `{bytes, path}`, becomes a reference or a path.
    fn object(array: &StructArray, row: usize, blobs: &mut BlobWriter<'_>) -> Result<Value, String> {
        let filled = |name: &str| array.column_by_name(name).filter(|column| column.is_valid(row));
        let path = filled("path").and_then(|column| column.as_string_opt::<i32>()).map(|column| column.value(row));
        if let Some(column) = array.column_by_name("bytes") {
            match column.data_type() {
                DataType::Binary | DataType::LargeBinary if column.is_valid(row) => {
                    let content = binary(column, row).unwrap_or_default();
                    return blobs.add(content, path).map_err(|e| e.to_string());
                }
                DataType::Binary | DataType::LargeBinary | DataType::Null => {
                    return Ok(path.map_or(Value::Null, Value::from));
                }
                _ => {}
            }
        }
        let mut cells = Cells::new();
        for (field, column) in array.fields().iter().zip(array.columns()) {
            cells.insert(field.name().clone(), value(column, row, blobs)?);
        }
        Ok(Value::Object(cells))
    }

    /// The bytes of a row of a binary array.
    fn binary(array: &dyn Array, row: usize) -> Option<&[u8]> {
        let small = array.as_binary_opt::<i32>().map(|bytes| bytes.value(row));
        small.or_else(|| array.as_binary_opt::<i64>().map(|bytes| bytes.value(row)))
    }
}
