//! Embeddings as .npy, .safetensors and .parquet files.

use super::{
    options::{OutputFormat, with_suffix},
    row_list::{Entry, RowList},
    rows::rows_file,
    state::WorkDir,
};
use crate::{Error, Result, error::io_error};
use mm_core::Modality;
use serde_json::json;
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

/// Bytes that are read at once.
const READ_BUFFER: usize = 1 << 20;

/// The header of a safetensors file is padded to a multiple of this many bytes.
const SAFETENSORS_ALIGNMENT: usize = 8;

/// Values with their vectors.
pub(super) struct EmbeddingTable<'a> {
    pub(super) list: &'a RowList,
    pub(super) modalities: &'a [Modality],
    pub(super) work: &'a WorkDir,
}

/// Reads the vectors of all entries in order.
pub(super) struct VectorReader {
    file: BufReader<File>,
    vector: Vec<u8>,
}

impl VectorReader {
    /// The vector of the next entry; `None` where it has none.
    pub(super) fn next(&mut self, has_vector: bool) -> io::Result<Option<&[u8]>> {
        if !has_vector {
            self.file.seek_relative(self.vector.len() as i64)?;
            return Ok(None);
        }
        self.file.read_exact(&mut self.vector)?;
        Ok(Some(&self.vector))
    }
}

impl EmbeddingTable<'_> {
    /// Writes the table to a file, which is complete or absent, and the rows of the vectors next to it where the format
    /// has none.
    pub(super) fn write(&self, out: &Path, format: OutputFormat) -> Result<()> {
        let partial = with_suffix(out, ".new");
        match format {
            OutputFormat::Npy => self.write_npy(&partial)?,
            OutputFormat::Safetensors => self.write_safetensors(&partial)?,
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

    pub(super) fn entries(&self) -> impl Iterator<Item = io::Result<Entry<'_>>> {
        self.list.entries(self.modalities)
    }

    /// Why an entry has no vector.
    pub(super) fn error(&self, entry: &Entry<'_>) -> Option<String> {
        match entry.value {
            None => Some(entry.absence()),
            Some(_) => self.work.state.failed.get(&entry.index).cloned(),
        }
    }

    /// Whether an entry has a vector.
    pub(super) fn has_vector(&self, entry: &Entry<'_>) -> bool {
        entry.value.is_some() && !self.work.state.failed.contains_key(&entry.index)
    }

    pub(super) fn vectors(&self) -> io::Result<VectorReader> {
        let file = BufReader::with_capacity(READ_BUFFER, File::open(&self.work.vectors_file)?);
        Ok(VectorReader { file, vector: vec![0; self.vector_size()] })
    }

    /// Writes all vectors as float32, NaN for entries without one.
    fn write_vectors(&self, file: &mut impl Write) -> io::Result<()> {
        let nan: Vec<u8> = f32::NAN.to_le_bytes().repeat(self.work.state.dim);
        let mut vectors = self.vectors()?;
        for entry in self.entries() {
            file.write_all(vectors.next(self.has_vector(&entry?))?.unwrap_or(&nan))?;
        }
        Ok(())
    }

    fn write_npy(&self, out: &Path) -> Result<()> {
        let entries: usize = self.modalities.iter().map(|modality| self.list.entries_of(modality)).sum();
        let header = mm_data::npy_header("<f4", &[entries, self.work.state.dim]);
        self.write_file(out, &header)
    }

    /// Writes a header and all vectors.
    fn write_file(&self, out: &Path, header: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create(out)?);
            file.write_all(header)?;
            self.write_vectors(&mut file)?;
            file.flush()
        };
        write().map_err(io_error(out))
    }

    fn write_safetensors(&self, out: &Path) -> Result<()> {
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut start = 0;
        for modality in self.modalities {
            let count = self.list.entries_of(modality);
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

    /// Writes which row and value each vector is of.
    fn write_rows(&self, out: &Path) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create(out)?);
            for entry in self.entries() {
                let entry = entry?;
                let Entry { id, row, modality, value, .. } = &entry;
                let mut line = json!({"id": id, "row": row, "modality": modality, "value": value});
                if let Some(reason) = self.error(&entry) {
                    line["error"] = json!(reason);
                }
                writeln!(file, "{line}")?;
            }
            file.flush()
        };
        write().map_err(io_error(out))
    }
}
