//! Vectors that were computed before, into a store of mm-index: arrays and tables of `mm embed` and `mm index export`,
//! and the folders of `mm embed --shards` and clip-retrieval
//! (<https://github.com/rom1504/clip-retrieval>).

mod numbered;
mod record;
mod records;
mod scan;
mod source;
#[cfg(all(test, feature = "parquet"))]
mod tests;

use super::payload::PayloadColumns;
use crate::{Error, Result};
use mm_index::{Distance, Model, Payload, Quantization, Row, Store, StoreConfig, VectorConfig, Vectors};
use record::Record;
use records::for_each_record;
use scan::Scan;
use serde_json::Value;
use source::{Part, parts};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

/// Rows that are written together.
const BATCH: usize = 4096;

/// The name of a model of which only the fingerprint is known.
pub const UNNAMED_MODEL: &str = "unknown";

/// How files of vectors are read.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name of vectors whose files do not state it.
    pub modality: Option<String>,
    /// The column of ids; when absent the first of `id`, `key`, `image_path` and `path` that a row has, else its number
    /// behind `id_prefix`.
    pub id_column: Option<String>,
    /// What the ids of rows begin with that no column names; when absent the name of the file, `emb_0/` of `emb_0.npy`. In
    /// a folder the name of the shard follows it.
    pub id_prefix: Option<String>,
    /// Whether rows that no column names are written where the store has other vectors of these ids; otherwise they are
    /// an error.
    pub replace: bool,
    /// The table that describes the rows of one array, if not the one next to it (`vectors.rows.jsonl`).
    pub metadata: Option<PathBuf>,
}

/// Named vectors of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedVector {
    /// Width.
    pub dim: usize,
    /// Whether a row has several.
    pub multi: bool,
    /// Fingerprint of the model that made them, where files state it.
    pub model: Option<String>,
    /// Whether some are of files that do not state which model made them.
    pub of_unknown: bool,
}

/// The result of an import: numbers of rows, and of vectors that the files state are missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Rows that are new.
    pub added: usize,
    /// Rows that were there before: they have the new vectors, fields and text besides what they had.
    pub changed: usize,
    /// Missing vectors.
    pub missing: usize,
}

/// Files of vectors that were read once and can be imported.
#[derive(Debug)]
pub struct Import {
    parts: Vec<Part>,
    options: ImportOptions,
    columns: PayloadColumns,
    /// Vectors by name.
    pub vectors: BTreeMap<String, ImportedVector>,
    /// The first row with a vector of zeros, by name.
    zeros: BTreeMap<String, String>,
    /// Number of rows.
    pub rows: usize,
    /// Whether some rows are named by their number.
    has_numbers: bool,
}

impl ImportedVector {
    /// The model that made them, where files state it; its name is not known.
    pub fn model(&self) -> Option<Model> {
        self.model.clone().map(|fingerprint| Model { name: UNNAMED_MODEL.to_owned(), fingerprint })
    }
}

impl Import {
    /// Reads files completely, so that what does not fit together is found before anything is written.
    /// `on_progress(rows)` is called now and then.
    ///
    /// # Errors
    /// Names the file: unreadable, arrays and tables of different lengths, vectors of different widths or models, an id
    /// twice. [`Error::Stopped`] when it was stopped.
    pub fn open(
        sources: &[PathBuf],
        options: ImportOptions,
        stop: &AtomicBool,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        if options.metadata.is_some() && sources.len() != 1 {
            return Err(Error::invalid("metadata", format!("one table for {} sources", sources.len()), "one array"));
        }
        let mut all = Vec::new();
        for source in sources {
            all.extend(parts(source, &options)?);
        }
        let Scan { columns, vectors, zeros, rows, has_numbers, .. } = Scan::of(&all, &options, stop, on_progress)?;
        if vectors.is_empty() {
            return Err(Error::invalid("vectors", format!("none in {rows} rows"), "at least one"));
        }
        Ok(Self { parts: all, options, columns, vectors, zeros, rows, has_numbers })
    }

    /// The named vectors of a store for the files, compared by cosine, made by this model, else by the one that all files
    /// of a vector name.
    pub fn store_config(&self, quantization: Quantization, model: Option<&Model>) -> StoreConfig {
        self.vectors.iter().fold(StoreConfig::default(), |config, (name, vector)| {
            let (dim, multi) = (vector.dim, vector.multi);
            let model = model.cloned().or_else(|| vector.model().filter(|_| !vector.of_unknown));
            config.with(name, VectorConfig { multi, quantization, model, ..VectorConfig::cosine(dim) })
        })
    }

    /// Writes the rows, a batch at a time; what a row has already and the files do not have stays. Called again, it
    /// writes the same rows again. `on_progress(done, rows)` is called after each batch.
    ///
    /// # Errors
    /// When the store lacks the vectors or has them in another width, has other vectors of rows that no column names
    /// (unless [`ImportOptions::replace`]), or cannot be written. [`Error::Stopped`] when it was stopped; the batches until
    /// then are written.
    pub fn write(
        &self,
        store: &dyn Store,
        stop: &AtomicBool,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ImportSummary> {
        self.check(store.config())?;
        if !self.options.replace {
            self.check_numbered(store, stop)?;
        }
        let mut summary = ImportSummary::default();
        let (mut batch, mut done) = (Vec::with_capacity(BATCH), 0);
        for part in &self.parts {
            for_each_record(part, &self.options, &mut |record| {
                if stop.load(Ordering::Relaxed) {
                    let (what, hint) = ("importing rows".into(), "the same command writes them again and continues");
                    return Err(Error::Stopped { what, done, total: self.rows, hint });
                }
                summary.missing += record.missing;
                batch.push(self.row(record, store.config())?);
                if batch.len() == BATCH {
                    done += write_batch(store, &mut batch, &mut summary)?;
                    on_progress(done, self.rows);
                }
                Ok(())
            })?;
            // Another part may have the same rows, which are joined with what is written.
            done += write_batch(store, &mut batch, &mut summary)?;
            on_progress(done, self.rows);
        }
        Ok(summary)
    }

    /// Compares the vectors of the files with those of a store.
    ///
    /// # Errors
    /// When the store lacks them, has them in another width or of another model, or a vector has no direction although
    /// cosines are compared.
    pub fn check(&self, config: &StoreConfig) -> Result<()> {
        for (name, vector) in &self.vectors {
            let known = config.vector(name)?;
            if let Some(model) = vector.model() {
                config.check_model(name, &model)?;
            }
            if known.dim != vector.dim {
                let (found, expected) = (format!("{} values", vector.dim), format!("{} as in the store", known.dim));
                return Err(Error::invalid(format!("vectors `{name}`"), found, expected));
            }
            if let Some(row) = self.zeros.get(name).filter(|_| known.distance == Distance::Cosine) {
                let expected = "a vector other than zero, which has no direction for cosine; leave it out";
                return Err(Error::invalid(format!("row `{row}`: {name}"), "a vector of zeros", expected));
            }
            if vector.multi && !known.multi {
                let expected = "one: the store was made for one vector a row; make a new one for several";
                return Err(Error::invalid(format!("vectors `{name}`"), "several in a row", expected));
            }
        }
        Ok(())
    }

    fn row(&self, record: Record, config: &StoreConfig) -> Result<Row> {
        let is_typed = record.is_typed;
        let field = |(column, value): (String, Value)| match value {
            Value::String(text) if !is_typed => (column.clone(), self.columns.value(&column, &text)),
            other => (column, other),
        };
        let payload: Payload = record.payload.into_iter().map(field).collect();
        let mut by_name: BTreeMap<String, Vec<Vec<f32>>> = BTreeMap::new();
        for (name, vector) in record.vectors {
            by_name.entry(name).or_default().push(vector);
        }
        let mut row = Row { id: record.id, payload, text: record.text, ..Row::default() };
        for (name, mut list) in by_name {
            let vectors = match list.pop() {
                Some(vector) if !config.vector(&name)?.multi => Vectors::Single(vector),
                last => {
                    list.extend(last);
                    Vectors::Multi(list)
                }
            };
            row.vectors.insert(name, vectors);
        }
        Ok(row)
    }
}

/// Writes rows, each with what the store has of it already; returns how many.
fn write_batch(store: &dyn Store, batch: &mut Vec<Row>, summary: &mut ImportSummary) -> Result<usize> {
    let ids: Vec<&str> = batch.iter().map(|row| row.id.as_str()).collect();
    let known = store.get(&ids)?;
    for (row, known) in batch.iter_mut().zip(known) {
        let Some(known) = known else {
            summary.added += 1;
            continue;
        };
        summary.changed += 1;
        let new = std::mem::replace(row, known);
        row.vectors.extend(new.vectors);
        row.payload.extend(new.payload);
        row.text = new.text.or(row.text.take());
    }
    store.upsert(batch)?;
    let written = batch.len();
    batch.clear();
    Ok(written)
}
