//! What every engine offers.

use crate::{Answer, Filter, Query, Result, Row, StoreConfig};
use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// Rows with vectors, payload and text, kept and found.
///
/// Every method may be called from several threads. What [`Store::upsert`] and [`Store::delete`] return for is on disk,
/// whole, and seen by every later query of any process; a query sees the rows as they were at one moment.
pub trait Store: Send + Sync {
    /// The named vectors.
    fn config(&self) -> &StoreConfig;

    /// Writes rows, all or none; a row replaces that of the same id. Of several with one id, the last counts.
    ///
    /// # Errors
    /// When a row does not fit the store (named with its id), or the disk is full.
    fn upsert(&self, rows: &[Row]) -> Result<()>;

    /// Deletes the rows of these ids, all or none; returns how many there were.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn delete(&self, ids: &[&str]) -> Result<usize>;

    /// The rows of these ids; none for an id that there is not. Vectors are as stored: rounded to 16 bits, and of unit
    /// length for cosine.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, ids: &[&str]) -> Result<Vec<Option<Row>>>;

    /// The rows in the order in which they were written, `limit` at a time. Rows that are written between two calls may
    /// come too; each row comes at most once as it is, and rows that stay come once.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn page(&self, after: Option<Cursor>, limit: usize) -> Result<Page>;

    /// Id and [`Row::version`] of every row.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn versions(&self) -> Result<Vec<(String, Option<String>)>>;

    /// The ids of the first `limit` rows that a filter selects, in the order in which they were written; `usize::MAX` for
    /// all.
    ///
    /// # Errors
    /// When the filter names an unknown field, or the store cannot be read.
    fn select(&self, filter: &Filter, limit: usize) -> Result<Vec<String>>;

    /// Searches.
    ///
    /// # Errors
    /// When the query does not fit the store (another width, NaN, unknown vector or field), or it cannot be read.
    fn query(&self, query: &Query) -> Result<Answer>;

    /// Builds what makes searches fast: graphs of the named vectors, merged word lists. Searches and writes go on
    /// meanwhile. `on_progress` receives the named vector, and how many of how many of its rows are done.
    ///
    /// # Errors
    /// When it is stopped, another process does the same, or files cannot be written. The store stays as it was.
    fn optimize(&self, options: &OptimizeOptions<'_>, on_progress: OnProgress<'_>) -> Result<Optimized>;

    /// Counts and sizes.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn stats(&self) -> Result<Stats>;

    /// Reads everything and compares it: checksums of rows, vectors and graphs, counts, the search structures.
    ///
    /// # Errors
    /// When the store cannot be read at all; what is damaged is in the report.
    fn check(&self, on_progress: OnProgress<'_>) -> Result<CheckReport>;
}

/// Receives a name, and how many of how many are done.
pub type OnProgress<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// How [`Store::optimize`] works.
#[derive(Debug, Clone, Copy)]
pub struct OptimizeOptions<'a> {
    /// Ends it early when set.
    pub stop: &'a AtomicBool,
    /// Builds graphs anew even where the present ones are complete, and for stores that are small enough to be searched
    /// exactly.
    pub rebuild: bool,
}

/// What [`Store::optimize`] did.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Optimized {
    /// The graphs that were written.
    pub graphs: Vec<OptimizedGraph>,
}

/// A graph that was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimizedGraph {
    /// The named vector.
    pub vector: String,
    /// Number of rows in it.
    pub rows: usize,
    /// How many of these were already in the previous one.
    pub kept: usize,
    /// Size of its file.
    pub bytes: u64,
    /// Wall time.
    pub seconds: f64,
}

/// A place in the order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub(crate) i64);

/// Some rows, and where the next ones are.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Rows.
    pub rows: Vec<Row>,
    /// Where to go on; none at the end.
    pub next: Option<Cursor>,
}

/// Counts and sizes of a store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Number of rows.
    pub rows: usize,
    /// Number of rows with a text.
    pub texts: usize,
    /// The paths of the fields that filters know.
    pub fields: Vec<String>,
    /// The named vectors.
    pub vectors: Vec<VectorStats>,
    /// Size of all files.
    pub bytes: u64,
}

/// Counts of a named vector.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VectorStats {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub config: crate::VectorConfig,
    /// Number of rows that have it.
    pub rows: usize,
    /// Its graph.
    pub graph: Option<GraphStats>,
}

/// Counts of a graph.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GraphStats {
    /// Number of rows in it, deleted ones included.
    pub rows: usize,
    /// How many of these were deleted since.
    pub deleted: usize,
    /// Number of rows that were written since and are compared one by one.
    pub fresh: usize,
    /// Size of its file.
    pub bytes: u64,
}

/// What [`Store::check`] found.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct CheckReport {
    /// Number of rows that were read.
    pub rows: usize,
    /// What is damaged; empty for a sound store.
    pub problems: Vec<CheckProblem>,
    /// What was not checked, and why.
    pub notes: Vec<String>,
}

/// Something that is damaged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckProblem {
    /// The part of the store.
    pub what: String,
    /// What is wrong and what to do.
    pub reason: String,
    /// Whether [`Store::optimize`] mends it: no row is affected, results are right meanwhile.
    pub repairable: bool,
}
