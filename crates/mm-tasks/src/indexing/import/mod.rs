//! Vectors that were computed before, into a store of mm-index: arrays and tables of `mm embed` and `mm index export`,
//! and the folders of `mm embed --shards` and clip-retrieval
//! (<https://github.com/rom1504/clip-retrieval>).

mod records;
mod source;

use super::payload::PayloadColumns;
use crate::{Error, Result};
use mm_index::{Distance, Model, Payload, Quantization, Row, Store, StoreConfig, VectorConfig, Vectors};
use records::{Record, for_each_record};
use serde_json::Value;
use source::{Part, parts};
use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// Rows that are written together.
const BATCH: usize = 4096;

/// How files of vectors are read.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name of vectors whose files do not say it.
    pub modality: Option<String>,
    /// The column of ids; when absent the first of `id`, `key`, `image_path` and `path` that a row has, else its number.
    pub id_column: Option<String>,
    /// The table that describes the rows of one array, if not the one next to it (`vectors.rows.jsonl`).
    pub metadata: Option<PathBuf>,
}

/// Named vectors of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedVector {
    /// Width.
    pub dim: usize,
    /// Whether a row has several.
    pub multi: bool,
}

/// The result of an import: numbers of rows, and of vectors that the files say are missing.
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
    /// Fingerprints of the models that the files name as their origin.
    pub models: Vec<String>,
}

impl Import {
    /// Reads files completely, so that what does not fit together is found before anything is written.
    /// `on_progress(rows)` is called now and then.
    ///
    /// # Errors
    /// Names the file: unreadable, arrays and tables of different lengths, vectors of different widths, an id twice.
    /// [`Error::Stopped`] when it was stopped.
    pub fn open(
        sources: &[PathBuf],
        options: ImportOptions,
        stop: &AtomicBool,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        if options.metadata.is_some() && sources.len() != 1 {
            return Err(Error::invalid("metadata", format!("one table for {} sources", sources.len()), "one array"));
        }
        let (mut all, mut models) = (Vec::new(), Vec::new());
        for source in sources {
            let (found, model) = parts(source, options.metadata.as_deref())?;
            all.extend(found);
            models.extend(model);
        }
        let columns = PayloadColumns::default();
        let mut import =
            Self { parts: all, options, columns, vectors: BTreeMap::new(), zeros: BTreeMap::new(), rows: 0, models };
        for (index, part) in import.parts.clone().iter().enumerate() {
            import.scan(index, part, stop, on_progress)?;
        }
        if import.vectors.is_empty() {
            return Err(Error::invalid("vectors", format!("none in {} rows", import.rows), "at least one"));
        }
        Ok(import)
    }

    /// Takes a part into account.
    fn scan(&mut self, index: usize, part: &Part, stop: &AtomicBool, on_progress: &mut dyn FnMut(usize)) -> Result<()> {
        let (options, total) = (self.options.clone(), self.parts.len());
        let (mut ids, mut texts) = (HashSet::new(), Vec::new());
        for_each_record(part, &options, &mut |record| {
            if stop.load(Ordering::Relaxed) {
                let what = "reading the files".into();
                return Err(Error::Stopped { what, done: index, total, hint: "nothing was written" });
            }
            // 16 bytes of a hash instead of the text: there may be many rows.
            let hash: [u8; 16] = blake3::hash(record.id.as_bytes()).as_bytes()[..16].try_into().unwrap_or_default();
            if !ids.insert(hash) {
                let reason = format!("found the id `{}` in two places, expected one row for each id", record.id);
                return Err(Error::file(part.path(), format!("{reason}; another column may hold them (--id)")));
            }
            self.add_vectors(&record, part.path())?;
            texts.extend(record.payload.into_iter().filter_map(|(column, value)| match value {
                Value::String(text) => Some((column, text)),
                _ => None,
            }));
            self.rows += 1;
            if self.rows.is_multiple_of(BATCH) {
                self.infer_columns(&mut texts);
                on_progress(self.rows);
            }
            Ok(())
        })?;
        self.infer_columns(&mut texts);
        Ok(())
    }

    fn infer_columns(&mut self, texts: &mut Vec<(String, String)>) {
        let cells = texts.iter().map(|(column, text)| (column.as_str(), text.as_str()));
        self.columns.join(PayloadColumns::infer_cells(cells));
        texts.clear();
    }

    fn add_vectors(&mut self, record: &Record, path: &Path) -> Result<()> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, vector) in &record.vectors {
            if let Some(value) = vector.iter().find(|value| !value.is_finite()) {
                let reason = format!("row `{}`: found {value} in {name}, expected finite numbers", record.id);
                return Err(Error::file(path, reason));
            }
            if vector.iter().all(|value| *value == 0.0) {
                self.zeros.entry(name.clone()).or_insert_with(|| record.id.clone());
            }
            let new = ImportedVector { dim: vector.len(), multi: false };
            let known = self.vectors.entry(name.clone()).or_insert(new);
            if known.dim != vector.len() {
                let reason =
                    format!("row `{}`: found {} values of {name}, expected {}", record.id, vector.len(), known.dim);
                return Err(Error::file(path, reason));
            }
            let count = counts.entry(name).or_default();
            *count += 1;
            known.multi |= *count > 1;
        }
        Ok(())
    }

    /// The named vectors of a store for the files, compared by cosine.
    pub fn store_config(&self, quantization: Quantization, model: Option<&Model>) -> StoreConfig {
        self.vectors.iter().fold(StoreConfig::default(), |config, (name, vector)| {
            let ImportedVector { dim, multi } = *vector;
            let model = model.cloned();
            config.with(name, VectorConfig { multi, quantization, model, ..VectorConfig::cosine(dim) })
        })
    }

    /// Writes the rows, a batch at a time; what a row has already and the files do not have stays. Called again, it
    /// writes the same rows again. `on_progress(done, rows)` is called after each batch.
    ///
    /// # Errors
    /// When the store lacks the vectors or has them in another width, or cannot be written. [`Error::Stopped`] when it
    /// was stopped; the batches until then are written.
    pub fn write(
        &self,
        store: &dyn Store,
        stop: &AtomicBool,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<ImportSummary> {
        self.check(store.config())?;
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
    /// When the store lacks them or has them in another width, or a vector has no direction although cosines are compared.
    pub fn check(&self, config: &StoreConfig) -> Result<()> {
        for (name, vector) in &self.vectors {
            let known = config.vector(name)?;
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
        let field = |(column, value): (String, Value)| match value {
            Value::String(text) => (column.clone(), self.columns.value(&column, &text)),
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
