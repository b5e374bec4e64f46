//! Parquet tables.

#[cfg(feature = "parquet")]
pub(super) use enabled::read;

#[cfg(not(feature = "parquet"))]
pub(super) fn read(
    path: &std::path::Path,
    _: &mut super::BlobWriter<'_>,
    _: &mut super::Rows<'_>,
) -> crate::Result<()> {
    Err(crate::Error::file(path, "this build does not read Parquet; build mm-data with its `parquet` feature"))
}

#[cfg(feature = "parquet")]
mod enabled {
    use super::super::{Cells, blobs::BlobWriter, class_labels::ClassLabels, rows::Rows};
    use crate::{Error, Result, catching_panics, file_type::sniff};
    use parquet::{
        errors::Result as ParquetResult,
        file::reader::{ChunkReader, FileReader, Length, SerializedFileReader},
        record::{Field, Row},
    };
    use serde_json::Value;
    use std::{
        fs::File,
        io::{BufReader, ErrorKind, Read, Result as IoResult},
        path::Path,
    };

    /// A file whose end is an error: headers that claim more than there is are otherwise skipped item by item, billions
    /// of them (parquet 60).
    struct Table(File);

    /// The bytes of a [`Table`] from an offset on.
    struct Bounded(BufReader<File>);

    impl Read for Bounded {
        fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
            match self.0.read(buffer)? {
                0 if !buffer.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
                count => Ok(count),
            }
        }
    }

    impl Length for Table {
        fn len(&self) -> u64 {
            Length::len(&self.0)
        }
    }

    impl ChunkReader for Table {
        type T = Bounded;

        fn get_read(&self, start: u64) -> ParquetResult<Bounded> {
            self.0.get_read(start).map(Bounded)
        }

        fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
            self.0.get_bytes(start, length)
        }
    }

    fn bad(path: &Path) -> impl Fn(parquet::errors::ParquetError) -> Error {
        move |e| Error::file(path, format!("not a complete Parquet file: {e}"))
    }

    /// The names of classes that the file states.
    fn class_labels(reader: &SerializedFileReader<Table>) -> ClassLabels {
        let metadata = reader.metadata().file_metadata().key_value_metadata();
        let stated = metadata.and_then(|pairs| pairs.iter().find(|pair| pair.key == ClassLabels::KEY));
        ClassLabels::read(stated.and_then(|pair| pair.value.as_deref()))
    }

    /// A file and its columns.
    fn open(path: &Path) -> Result<(SerializedFileReader<Table>, Vec<String>)> {
        let file = File::open(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
        let reader = SerializedFileReader::new(Table(file)).map_err(bad(path))?;
        let fields = reader.metadata().file_metadata().schema_descr().root_schema().get_fields();
        let columns: Vec<String> = fields.iter().map(|f| f.name().to_owned()).collect();
        if let Some(twice) = columns.iter().enumerate().find_map(|(n, c)| columns[..n].contains(c).then_some(c)) {
            return Err(Error::file(path, format!("found two columns `{twice}`, expected different names")));
        }
        Ok((reader, columns))
    }

    /// Reads the rows in order; of the file, the pages that are being read are in memory.
    pub(in super::super) fn read(path: &Path, blobs: &mut BlobWriter<'_>, rows: &mut Rows<'_>) -> Result<()> {
        let caught = |reason| Error::file(path, reason);
        let (reader, columns) = catching_panics(|| open(path)).map_err(caught)??;
        columns.iter().for_each(|column| rows.declare(column));
        let labels = class_labels(&reader);
        let mut found = catching_panics(|| reader.get_row_iter(None)).map_err(caught)?.map_err(bad(path))?;
        let mut next = |blobs: &mut BlobWriter<'_>| found.next().map(|row| cells(&row.map_err(bad(path))?, blobs));
        while let Some(cells) = catching_panics(|| next(blobs)).map_err(caught)? {
            let mut cells = cells?;
            labels.name(&mut cells);
            rows.push(cells, blobs)?;
        }
        Ok(())
    }

    fn cells(row: &Row, blobs: &mut BlobWriter<'_>) -> Result<Cells> {
        row.get_column_iter().map(|(name, field)| Ok((name.clone(), value(field, blobs)?))).collect()
    }

    /// A value as JSON; bytes become references to encoded files, texts without a type become texts.
    fn value(field: &Field, blobs: &mut BlobWriter<'_>) -> Result<Value> {
        Ok(match field {
            Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
                Ok(text) if sniff(bytes.data()).is_none() && !text.contains('\0') => Value::String(text.to_owned()),
                _ => blobs.add(bytes.data(), None)?,
            },
            Field::Str(text) => {
                let inline = blobs.add_inline(text).map_err(Error::Config)?;
                inline.unwrap_or_else(|| Value::String(text.clone()))
            }
            Field::Group(row) => group(row, blobs)?,
            Field::ListInternal(list) => {
                Value::Array(list.elements().iter().map(|f| value(f, blobs)).collect::<Result<_>>()?)
            }
            other => other.to_json_value(),
        })
    }

    /// A struct; that of Hugging Face's images and recordings, `{bytes, path}`, becomes a reference or a path.
    fn group(row: &Row, blobs: &mut BlobWriter<'_>) -> Result<Value> {
        let find = |name: &str| row.get_column_iter().find(|(n, _)| *n == name).map(|(_, f)| f);
        let Some(bytes) = find("bytes") else { return Ok(Value::Object(cells(row, blobs)?)) };
        let path = match find("path") {
            Some(Field::Str(path)) => Some(path.as_str()),
            _ => None,
        };
        Ok(match bytes {
            Field::Bytes(bytes) => blobs.add(bytes.data(), path)?,
            Field::Null => path.map_or(Value::Null, Value::from),
            _ => Value::Object(cells(row, blobs)?),
        })
    }
}
