//! Embeddings as .npy, .safetensors and .parquet files.

use super::{
    options::{Entry, OutputFormat, with_suffix},
    rows::rows_file,
    state::WorkDir,
};
use crate::{Error, Result, error::io_error};
use mm_core::Modality;
use mm_data::Manifest;
use serde_json::json;
use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
};

/// Bytes that are read at once.
const READ_BUFFER: usize = 1 << 20;

/// The header of a safetensors file is padded to a multiple of this many bytes.
const SAFETENSORS_ALIGNMENT: usize = 8;

/// Values with their vectors.
pub(super) struct EmbeddingTable<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) entries: &'a [Entry],
    pub(super) work: &'a WorkDir,
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
    pub(super) fn error(&self, entry: usize) -> Option<String> {
        match &self.entries[entry] {
            absent @ Entry { value: None, .. } => Some(absent.absence()),
            _ => self.work.state.failed.get(&entry).cloned(),
        }
    }

    /// Reads the vectors of entries in order; `None` for an entry without one.
    pub(super) fn read(
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
