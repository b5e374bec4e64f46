//! Embeddings as Parquet.

use super::{
    row_list::Entry,
    write::{EmbeddingTable, VectorReader},
};
use mm_data::{Manifest, Row};
use parquet::{
    basic::{Compression, LogicalType, Repetition, Type as PhysicalType},
    data_type::{ByteArrayType, DataType, FloatType, Int64Type},
    errors::Result as ParquetResult,
    file::{
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::{parser::parse_message_type, types::Type},
};
use std::{collections::BTreeSet, fs::File, io, path::Path, sync::Arc};

/// Rows of a group of a Parquet file.
pub(crate) const ROW_GROUP_SIZE: usize = 8192;

const PARQUET_SCHEMA: &str = "message embeddings {
    required binary id (UTF8); required int64 row; required binary modality (UTF8); optional int64 value;
    optional binary error (UTF8);
    optional group embedding (LIST) { repeated group list { required float element; } }
}";

/// A Parquet column of optional lists of vectors: values with definition and repetition levels.
#[derive(Default)]
struct EmbeddingColumn {
    values: Vec<f32>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

/// A table with the columns `id`, `row` (the number in the file) and the cells of some rows as texts. The columns are those
/// of all rows: readers expect the same ones in each shard.
pub(super) fn metadata_bytes(manifest: &Manifest, rows: &[usize]) -> ParquetResult<Vec<u8>> {
    let texts = manifest.rows.iter().flat_map(|row| row.cells.texts());
    let columns: BTreeSet<&str> = texts.map(|(column, _)| column).filter(|c| !["id", "row"].contains(c)).collect();
    let rows: Vec<&Row> = rows.iter().map(|row| &manifest.rows[*row]).collect();
    let field = |name: &str, kind, repetition, logical| {
        let field = Type::primitive_type_builder(name, kind).with_repetition(repetition).with_logical_type(logical);
        field.build().map(Arc::new)
    };
    let text = |name: &str, repetition| field(name, PhysicalType::BYTE_ARRAY, repetition, Some(LogicalType::String));
    let number = field("row", PhysicalType::INT64, Repetition::REQUIRED, None)?;
    let mut fields = vec![text("id", Repetition::REQUIRED)?, number];
    for column in &columns {
        fields.push(text(column, Repetition::OPTIONAL)?);
    }
    let schema = Arc::new(Type::group_type_builder("metadata").with_fields(fields).build()?);
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    let mut group = writer.next_row_group()?;
    let mut cells = columns.iter();
    let mut index = 0;
    while let Some(mut column) = group.next_column()? {
        match index {
            0 => write_values::<ByteArrayType>(&mut column, rows.iter().map(|row| row.id.as_str().into()))?,
            1 => write_values::<Int64Type>(&mut column, rows.iter().map(|row| row.number as i64))?,
            _ => {
                let name = cells.next().copied().unwrap_or_default();
                let values = rows.iter().map(|row| row.cells.get(name).map(Into::into));
                write_optional::<ByteArrayType>(&mut column, values)?;
            }
        }
        column.close()?;
        index += 1;
    }
    group.close()?;
    writer.into_inner()
}

impl EmbeddingTable<'_> {
    /// Writes the table as one file.
    pub(super) fn write_parquet(&self, out: &Path) -> ParquetResult<()> {
        let schema = Arc::new(parse_message_type(PARQUET_SCHEMA)?);
        let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
        let mut writer = SerializedFileWriter::new(File::create(out)?, schema, properties)?;
        let (mut entries, mut vectors) = (self.entries(), self.vectors()?);
        loop {
            let rows = entries.by_ref().take(ROW_GROUP_SIZE).collect::<io::Result<Vec<Entry<'_>>>>()?;
            if rows.is_empty() {
                return writer.close().map(drop);
            }
            let mut group = writer.next_row_group()?;
            let mut index = 0;
            while let Some(mut column) = group.next_column()? {
                self.write_column(index, &rows, &mut vectors, &mut column)?;
                column.close()?;
                index += 1;
            }
            group.close()?;
        }
    }

    /// Writes one column of [`PARQUET_SCHEMA`] for some entries.
    fn write_column(
        &self,
        index: usize,
        rows: &[Entry<'_>],
        vectors: &mut VectorReader,
        column: &mut SerializedColumnWriter<'_>,
    ) -> ParquetResult<()> {
        let rows = rows.iter();
        match index {
            0 => write_values::<ByteArrayType>(column, rows.map(|e| e.id.as_str().into())),
            1 => write_values::<Int64Type>(column, rows.map(|e| e.row as i64)),
            2 => write_values::<ByteArrayType>(column, rows.map(|e| e.modality.name().into())),
            3 => write_optional::<Int64Type>(column, rows.map(|e| e.value.map(|value| value as i64))),
            4 => write_optional::<ByteArrayType>(column, rows.map(|e| Some(self.error(e)?.as_str().into()))),
            _ => {
                let has_vector = rows.map(|e| self.has_vector(e));
                let EmbeddingColumn { values, definition, repetition } =
                    embedding_column(has_vector, self.work.state.dim, vectors)?;
                column.typed::<FloatType>().write_batch(&values, Some(&definition), Some(&repetition)).map(drop)
            }
        }
    }
}

/// The vectors of the next entries.
fn embedding_column(
    has_vector: impl Iterator<Item = bool>,
    dim: usize,
    vectors: &mut VectorReader,
) -> io::Result<EmbeddingColumn> {
    let mut column = EmbeddingColumn::default();
    for has_vector in has_vector {
        column.repetition.push(0);
        if let Some(bytes) = vectors.next(has_vector)? {
            let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            column.values.extend(values);
            column.definition.resize(column.definition.len() + dim, 2);
            column.repetition.resize(column.repetition.len() + dim - 1, 1);
        } else {
            column.definition.push(0);
        }
    }
    Ok(column)
}

/// Writes the values of a required column.
pub(crate) fn write_values<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = T::T>,
) -> ParquetResult<()> {
    column.typed::<T>().write_batch(&values.collect::<Vec<_>>(), None, None).map(drop)
}

/// Writes the values of an optional column.
pub(crate) fn write_optional<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = Option<T::T>>,
) -> ParquetResult<()> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&present, Some(&levels), None).map(drop)
}
