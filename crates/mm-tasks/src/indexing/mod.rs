//! Data sets in a store of mm-index: embedded row by row, and kept as the files change.
//!
//! Each row has a version: what its values and its cells were when it was embedded. A later call embeds only the values
//! that changed, rewrites rows whose cells changed, and deletes those that the data set does not have any more; vectors
//! that it does not embed stay. Since every batch is on disk when the next one begins, an interrupted call is continued by
//! the same call.

mod arrays;
mod clusters;
mod columns;
#[cfg(feature = "parquet")]
mod field_types;
mod former;
mod import;
mod modalities;
mod output_file;
#[cfg(feature = "parquet")]
mod parquet;
mod payload;
mod report;
mod source;
#[cfg(feature = "parquet")]
mod vector_folder;
mod vectors;
mod version;

pub use arrays::ArrayWriter;
pub use clusters::{Assignment, Cluster, ClusterOptions, Clustering, cluster};
#[cfg(feature = "parquet")]
pub use field_types::FieldTypes;
pub use import::{Import, ImportOptions, ImportSummary, ImportedVector, UNNAMED_MODEL};
pub use modalities::{common_modalities, store_config};
pub use output_file::{CompleteFile, OutputFile, replace_together};
#[cfg(feature = "parquet")]
pub use parquet::ParquetRows;
pub use report::{clusters_page, search_page};
pub use source::{DataSource, file_modality};
#[cfg(feature = "parquet")]
pub use vector_folder::VectorFolder;
pub(crate) use version::add_values;

use crate::{
    Error, Result,
    embedding::{Embedder, FailedValue},
};
use mm_core::Modality;
use mm_index::{Model, Row, Store};
use modalities::chosen_modalities;
use payload::PayloadColumns;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};
use vectors::embed_rows;
use version::{Change, Plan, Version};

/// Options for indexing a data set.
#[derive(Debug, Clone, Default)]
pub struct IndexOptions {
    /// The modalities; when empty, those of the store that the model takes. The data set may lack some of them.
    pub modalities: Vec<Modality>,
    /// Whether the first value that cannot be read is an error.
    pub fail_on_error: bool,
    /// Whether rows that an earlier call wrote for the same data set and that it does not have any more are deleted.
    pub delete_missing: bool,
    /// Whether rows that were not written for this data set are replaced where they have the ids of its rows; otherwise
    /// they are an error.
    pub replace: bool,
}

/// The result of indexing: numbers of rows by what was done with them.
#[derive(Debug, Clone, Default)]
pub struct IndexSummary {
    /// Rows that are new.
    pub added: usize,
    /// Rows that were embedded again or rewritten, since their values, their cells or their data set changed.
    pub changed: usize,
    /// Rows that are as they were.
    pub unchanged: usize,
    /// Rows that the data set does not have any more.
    pub deleted: usize,
    /// Of the rows that were embedded, those without any vector: words and filters alone find them.
    pub without_vectors: usize,
    /// Values that could not be read: their rows lack this vector and are tried again by the next call. Files that no
    /// id can name have no row.
    pub failed: Vec<FailedValue>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// Brings a store up to date with a data set. `on_progress(done, total)` counts the rows that are written.
///
/// # Errors
/// When the store is of another model or lacks a modality, another data set has rows with the same ids and these are not
/// to be replaced, a row has several values where the store holds one, or a value cannot be read and that is an error.
pub fn update(
    store: &dyn Store,
    model: &dyn Embedder,
    data: &DataSource,
    options: &IndexOptions,
    stop: &AtomicBool,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<IndexSummary> {
    let modalities = chosen_modalities(store, model, &data.manifest, &options.modalities)?;
    let model_id = Model { name: "the one given".into(), fingerprint: model.fingerprint()? };
    for modality in &modalities {
        store.config().check_model(modality.name(), &model_id)?;
    }
    if let Some(file) = data.without_id.first().filter(|_| options.fail_on_error) {
        return Err(Error::file(&file.id, file.reason.clone()));
    }
    let columns = PayloadColumns::infer(&data.manifest);
    let stored: HashMap<String, Option<String>> = store.versions()?.into_iter().collect();
    let is_of_store = |modality: &Modality| store.config().vectors.contains_key(modality.name());
    let of_store: Vec<Modality> = model.modalities().into_iter().filter(is_of_store).collect();
    let reversed: Vec<Modality> = of_store.iter().rev().cloned().collect();
    let orders = [modalities.as_slice(), of_store.as_slice(), reversed.as_slice()];
    let update =
        Update { store, model, data, modalities: &modalities, orders, columns: &columns, options, stop, stored };
    let mut summary = IndexSummary { failed: data.without_id.clone(), ..IndexSummary::default() };
    if !options.replace {
        update.check_ids()?;
    }
    if options.delete_missing {
        summary.deleted = update.delete_missing()?;
    }
    let (mut embedded, mut rewritten, mut of_embedded) = (Vec::new(), Vec::new(), BTreeSet::new());
    for row in 0..data.manifest.rows.len() {
        let plan = update.plan(row);
        match plan.change {
            Change::None => summary.unchanged += 1,
            Change::Cells => rewritten.push(row),
            Change::Values => {
                embedded.push(row);
                of_embedded.extend(plan.embedded);
            }
        }
    }
    update.rewrite(&rewritten, &mut summary)?;
    update.embed(&embedded, vectors::batch_size(&of_embedded), &mut summary, on_progress)?;
    Ok(summary)
}

/// One call of [`update`].
struct Update<'a> {
    store: &'a dyn Store,
    model: &'a dyn Embedder,
    data: &'a DataSource,
    modalities: &'a [Modality],
    /// The orders in which former versions may have been made: that of the call, that of the model, and the reverse of
    /// it, since a former version may be of a call that named two modalities the other way round.
    orders: [&'a [Modality]; 3],
    columns: &'a PayloadColumns,
    options: &'a IndexOptions,
    stop: &'a AtomicBool,
    /// The versions of the rows by their ids.
    stored: HashMap<String, Option<String>>,
}

impl Update<'_> {
    /// What is to be done with a row.
    fn plan(&self, row: usize) -> Plan {
        let row = &self.data.manifest.rows[row];
        let stored = self.stored.get(&row.id).and_then(|version| version.as_deref());
        let renewed = stored.and_then(|stored| former::renewed(stored, row, &self.orders));
        let version = Version::of(&self.data.key, row, self.modalities, self.columns);
        version.plan(renewed.as_deref().or(stored), self.modalities)
    }

    /// Whether a stored row was written for this data set.
    fn is_of_this(&self, version: Option<&str>) -> bool {
        version.is_some_and(|version| Version::is_of(version, &self.data.key))
    }

    /// Refuses ids that rows of another data set have.
    fn check_ids(&self) -> Result<()> {
        let ids = self.data.manifest.rows.iter().map(|row| row.id.as_str());
        let mut taken =
            ids.filter(|id| self.stored.get(*id).is_some_and(|version| !self.is_of_this(version.as_deref())));
        let Some(first) = taken.next() else { return Ok(()) };
        let found = format!("{} that other data in this store have, the first: `{first}`", 1 + taken.count());
        let expected = "ids of its own; index it into another store, or replace those rows (--replace)";
        Err(Error::invalid(format!("ids of {}", self.data.manifest.path.display()), found, expected))
    }

    /// Deletes the rows of this data set that it does not have any more.
    fn delete_missing(&self) -> Result<usize> {
        let present: HashSet<&str> = self.data.manifest.rows.iter().map(|row| row.id.as_str()).collect();
        let is_missing = |(id, version): &(&String, &Option<String>)| {
            self.is_of_this(version.as_deref()) && !present.contains(id.as_str())
        };
        let missing: Vec<&str> = self.stored.iter().filter(is_missing).map(|(id, _)| id.as_str()).collect();
        if missing.is_empty() {
            return Ok(0);
        }
        Ok(self.store.delete(&missing)?)
    }

    /// Writes rows again whose cells alone changed, with the vectors that they have.
    fn rewrite(&self, rows: &[usize], summary: &mut IndexSummary) -> Result<()> {
        const BATCH: usize = 1000;
        for batch in rows.chunks(BATCH) {
            let ids: Vec<&str> = batch.iter().map(|row| self.data.manifest.rows[*row].id.as_str()).collect();
            let mut changed = Vec::with_capacity(batch.len());
            for (row, stored) in batch.iter().zip(self.store.get(&ids)?) {
                let mut plan = self.plan(*row);
                // A row that another process deleted in the meantime, or whose file changed, comes with the next call.
                let Some(stored) = stored.filter(|_| plan.change == Change::Cells) else { continue };
                plan.leave_out_missing(&stored.vectors);
                changed.push(Row { vectors: stored.vectors, ..self.row(*row, &plan.version) });
            }
            summary.changed += changed.len();
            self.store.upsert(&changed)?;
        }
        Ok(())
    }

    /// A row without vectors.
    fn row(&self, row: usize, version: &Version) -> Row {
        let source = &self.data.manifest.rows[row];
        Row {
            id: source.id.clone(),
            vectors: BTreeMap::new(),
            payload: self.columns.payload(source),
            text: payload::text(source),
            version: Some(version.to_string()),
        }
    }

    /// Embeds and writes rows, a batch at a time.
    fn embed(
        &self,
        rows: &[usize],
        batch_size: usize,
        summary: &mut IndexSummary,
        on_progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let mut done = 0;
        for batch in rows.chunks(batch_size) {
            on_progress(done, rows.len());
            let is_stopped = self.stop.load(Ordering::Relaxed);
            let embedded = if is_stopped { None } else { embed_rows(self, batch)? };
            let Some((written, failed)) = embedded else {
                summary.stopped = true;
                return Ok(());
            };
            self.store.upsert(&written)?;
            let known = written.iter().filter(|row| self.stored.contains_key(&row.id)).count();
            summary.changed += known;
            summary.added += written.len() - known;
            summary.without_vectors += written.iter().filter(|row| row.vectors.is_empty()).count();
            summary.failed.extend(failed);
            done += batch.len();
        }
        on_progress(done, rows.len());
        Ok(())
    }
}
