//! Embeddings as .npy, .safetensors and .parquet files.

use super::{
    options::{Entry, OutputFormat, io_error, with_suffix},
    rows::rows_file,
    state::WorkDir,
};
use crate::{Error, Result};
use mm_core::Modality;
use mm_data::Manifest;
use parquet::{
    basic::Compression,
    data_type::{ByteArrayType, DataType, FloatType, Int64Type},
    errors::{ParquetError, Result as ParquetResult},
    file::{
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::parser::parse_message_type,
};
use serde_json::json;
use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
    sync::Arc,
};

/// Rows of a group of a Parquet file.
const ROW_GROUP_SIZE: usize = 8192;

/// Bytes that are read at once.
const READ_BUFFER: usize = 1 << 20;

/// The header of a safetensors file is padded to a multiple of this many bytes.
const SAFETENSORS_ALIGNMENT: usize = 8;

const PARQUET_SCHEMA: &str = "message embeddings {
    required binary id (UTF8); required int64 row; required binary modality (UTF8); optional int64 value;
    optional binary error (UTF8);
    optional group embedding (LIST) { repeated group list { required float element; } }
}";

/// Values with their vectors.
pub(super) struct EmbeddingTable<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) entries: &'a [Entry],
    pub(super) work: &'a WorkDir,
}

/// A Parquet column of optional lists of vectors: values with definition and repetition levels.
#[derive(Default)]
struct EmbeddingColumn {
    values: Vec<f32>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl EmbeddingTable<'_> {
    /// Writes the table to a file, which is complete or absent, and the rows of the vectors next to it where the format
    /// has none.
    pub(super) fn write(&self, out: &Path, format: OutputFormat, modalities: &[Modality]) -> Result<()> {
        let partial = with_suffix(out, ".new");
        match format {
            OutputFormat::Npy => self.write_npy(&partial)?,
            OutputFormat::Safetensors => self.write_safetensors(&partial, modalities)?,
            OutputFormat::Parquet => self.write_parquet(&partial).map_err(|e| Error::file(out, e))?,
        }
        std::fs::rename(&partial, out).map_err(io_error(out))?;
        if format != OutputFormat::Parquet {
            self.write_rows(&rows_file(out))?;
        }
        Ok(())
    }

    /// Bytes of a vector.
    fn vector_size(&self) -> usize {
        self.work.state.dim * size_of::<f32>()
    }

    /// Why an entry has no vector.
    fn error(&self, entry: usize) -> Option<String> {
        match &self.entries[entry] {
            absent @ Entry { value: None, .. } => Some(absent.absence()),
            _ => self.work.state.failed.get(&entry).cloned(),
        }
    }

    /// Reads the vectors of entries in order; `None` for an entry without one.
    fn read(
        &self,
        range: Range<usize>,
        each: &mut dyn FnMut(Option<&[u8]>) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let size = self.vector_size();
        let mut reader = BufReader::with_capacity(READ_BUFFER, File::open(&self.work.vectors_file)?);
        reader.seek(SeekFrom::Start((range.start * size) as u64))?;
        let mut vector = vec![0u8; size];
        for entry in range {
            if self.error(entry).is_some() {
                reader.seek_relative(size as i64)?;
                each(None)?;
            } else {
                reader.read_exact(&mut vector)?;
                each(Some(&vector))?;
            }
        }
        Ok(())
    }

    /// Writes all vectors as float32, NaN for entries without one.
    fn write_vectors(&self, file: &mut impl Write) -> std::io::Result<()> {
        let nan: Vec<u8> = f32::NAN.to_le_bytes().repeat(self.work.state.dim);
        self.read(0..self.entries.len(), &mut |vector| file.write_all(vector.unwrap_or(&nan)))
    }

    fn write_npy(&self, out: &Path) -> Result<()> {
        let header = mm_data::npy_header("<f4", &[self.entries.len(), self.work.state.dim]);
        self.write_file(out, &header)
    }

    /// Writes a header and all vectors.
    fn write_file(&self, out: &Path, header: &[u8]) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(out)?);
            file.write_all(header)?;
            self.write_vectors(&mut file)?;
            file.flush()
        };
        write().map_err(io_error(out))
    }

    fn write_safetensors(&self, out: &Path, modalities: &[Modality]) -> Result<()> {
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut start = 0;
        for modality in modalities {
            let count = self.entries.iter().filter(|e| e.modality == *modality).count();
            let end = start + count * self.vector_size();
            let tensor = json!({"dtype": "F32", "shape": [count, self.work.state.dim], "data_offsets": [start, end]});
            header.insert(modality.to_string(), tensor);
            start = end;
        }
        let mut header = serde_json::Value::from(header).to_string();
        while header.len() % SAFETENSORS_ALIGNMENT != 0 {
            header.push(' ');
        }
        let length = (header.len() as u64).to_le_bytes();
        self.write_file(out, &[&length, header.as_bytes()].concat())
    }

    fn write_parquet(&self, out: &Path) -> ParquetResult<()> {
        let schema = Arc::new(parse_message_type(PARQUET_SCHEMA)?);
        let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
        let mut writer = SerializedFileWriter::new(File::create(out)?, schema, properties)?;
        for start in (0..self.entries.len()).step_by(ROW_GROUP_SIZE) {
            let range = start..(start + ROW_GROUP_SIZE).min(self.entries.len());
            let mut group = writer.next_row_group()?;
            let mut index = 0;
            while let Some(mut column) = group.next_column()? {
                self.write_column(index, range.clone(), &mut column)?;
                column.close()?;
                index += 1;
            }
            group.close()?;
        }
        writer.close().map(drop)
    }

    /// Writes one column of [`PARQUET_SCHEMA`] for some entries.
    fn write_column(
        &self,
        index: usize,
        range: Range<usize>,
        column: &mut SerializedColumnWriter<'_>,
    ) -> ParquetResult<()> {
        let entries = &self.entries[range.clone()];
        let row = |entry: &Entry| &self.manifest.rows[entry.row];
        match index {
            0 => write_values::<ByteArrayType>(column, entries.iter().map(|e| row(e).id.as_str().into())),
            1 => write_values::<Int64Type>(column, entries.iter().map(|e| row(e).number as i64)),
            2 => write_values::<ByteArrayType>(column, entries.iter().map(|e| e.modality.name().into())),
            3 => write_optional::<Int64Type>(column, entries.iter().map(|e| e.value.map(|value| value as i64))),
            4 => write_optional::<ByteArrayType>(column, range.map(|e| Some(self.error(e)?.as_str().into()))),
            _ => {
                let EmbeddingColumn { values, definition, repetition } = self.embedding_column(range)?;
                column.typed::<FloatType>().write_batch(&values, Some(&definition), Some(&repetition)).map(drop)
            }
        }
    }

    fn embedding_column(&self, range: Range<usize>) -> ParquetResult<EmbeddingColumn> {
        let (dim, mut column) = (self.work.state.dim, EmbeddingColumn::default());
        let read = self.read(range, &mut |vector| {
            column.repetition.push(0);
            if let Some(bytes) = vector {
                let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                column.values.extend(values);
                column.definition.resize(column.definition.len() + dim, 2);
                column.repetition.resize(column.repetition.len() + dim - 1, 1);
            } else {
                column.definition.push(0);
            }
            Ok(())
        });
        read.map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(column)
    }

    /// Writes which row and value each vector is of.
    fn write_rows(&self, out: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(out)?);
            for (index, Entry { row, value, modality }) in self.entries.iter().enumerate() {
                let row = &self.manifest.rows[*row];
                let mut line = json!({"id": row.id, "row": row.number, "modality": modality, "value": value});
                if let Some(reason) = self.error(index) {
                    line["error"] = json!(reason);
                }
                writeln!(file, "{line}")?;
            }
            file.flush()
        };
        write().map_err(io_error(out))
    }
}

fn write_values<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = T::T>,
) -> ParquetResult<()> {
    column.typed::<T>().write_batch(&values.collect::<Vec<_>>(), None, None).map(drop)
}

fn write_optional<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = Option<T::T>>,
) -> ParquetResult<()> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&present, Some(&levels), None).map(drop)
}
