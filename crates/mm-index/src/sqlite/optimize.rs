//! Building graphs, and putting them in place so that a crash at any time leaves the old one or the new one.

use super::{
    NamedVector, SqliteStore,
    connection::{Mode, connect},
    failure::Failure,
    graph::{Graph, hash_file, scale_for},
    graph_record::{GraphRecord, graph_file, graph_record, latest_generation},
    read::read_blob,
    stats::{count, count_after},
    tail::read_after,
};
use crate::{Error, OnProgress, OptimizeOptions, Optimized, OptimizedGraph, Quantization, Result, SearchSettings};
use half::f16;
use rayon::prelude::*;
use rusqlite::params;
use std::{
    fs::{File, TryLockError},
    sync::atomic::Ordering,
    time::Instant,
};

/// Rows that are read before they are added to a graph together.
const BATCH: usize = 4096;

/// The file that one process at a time holds while it builds graphs.
const LOCK: &str = "optimize.lock";

impl SqliteStore {
    pub(super) fn optimize_all(&self, options: &OptimizeOptions<'_>, on_progress: OnProgress<'_>) -> Result<Optimized> {
        let _lock = self.lock_graphs()?;
        self.remove_partial_files();
        let mut done = Optimized::default();
        for vector in self.vectors.values().filter(|vector| !vector.config.multi) {
            done.graphs.extend(self.optimize_vector(vector, options, on_progress)?);
        }
        self.merge_words(options.stop)?;
        let database = self.database();
        let tidied = connect(&database, Mode::Write).and_then(|connection| {
            connection.execute_batch("PRAGMA optimize")?;
            // The log is emptied where no reader needs it; otherwise that happens later.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(())
        });
        tidied.map_err(|failure: Failure| failure.at(&database, "writing the log back"))?;
        Ok(done)
    }

    /// Keeps other processes from building graphs.
    fn lock_graphs(&self) -> Result<File> {
        let path = self.graphs().join(LOCK);
        let failed = |e| Error::file(&path, format!("cannot be written: {e}"));
        std::fs::create_dir_all(self.graphs()).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                Err(Error::Busy { path: self.folder.clone(), action: "optimized", seconds: 0 })
            }
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }

    fn optimize_vector(
        &self,
        vector: &NamedVector,
        options: &OptimizeOptions<'_>,
        on_progress: OnProgress<'_>,
    ) -> Result<Option<OptimizedGraph>> {
        let started = Instant::now();
        let plan = self.read("reading counts", |connection| self.plan(connection, vector, options.rebuild))?;
        let Some(plan) = plan else { return Ok(None) };
        let (graph, kept) = self.start(vector, &plan)?;
        let mut progress = |done| on_progress(&vector.name, done, plan.rows);
        self.fill(vector, &graph, &plan, kept, options, &mut progress)?;
        let scale = plan.scale;
        let generation = plan.generation;
        let file = graph_file(vector, generation);
        let (bytes, blake3) = self.put_in_place(vector, &graph, &file)?;
        let record = GraphRecord {
            generation,
            file,
            through: plan.through,
            count: graph.len(),
            bytes,
            blake3,
            quantization: vector.config.quantization,
            scale,
        };
        if let Err(error) = self.record(vector, &record) {
            // Nothing would ever read it, or delete it before the next graph is recorded.
            let _ = std::fs::remove_file(self.graphs().join(&record.file));
            return Err(error);
        }
        self.remove_old_files(vector, &record.file);
        let seconds = started.elapsed().as_secs_f64();
        Ok(Some(OptimizedGraph { vector: vector.name.clone(), rows: record.count, kept, bytes, seconds }))
    }
}

/// What is to be done for a named vector.
struct Plan {
    generation: i64,
    /// The highest number that goes into the graph.
    through: i64,
    /// Number of rows that have the vector.
    rows: usize,
    scale: f32,
    /// The graph that is extended.
    base: Option<GraphRecord>,
}

impl SqliteStore {
    /// None where the graph is complete, or the rows are too few for one.
    fn plan(
        &self,
        connection: &rusqlite::Connection,
        vector: &NamedVector,
        rebuild: bool,
    ) -> Result<Option<Plan>, Failure> {
        let rows = count(connection, vector)?;
        let record = graph_record(connection, vector)?;
        if rows == 0 || (rows < self.settings.exact_below && !rebuild) {
            return Ok(None);
        }
        let table = super::schema::vector_table(vector.number);
        let through = connection.query_row(&format!("SELECT max(number) FROM {table}"), [], |row| row.get(0))?;
        let generation = latest_generation(connection, vector, &self.graphs())? + 1;
        let base = match record {
            Some(record) if !rebuild && record.quantization == vector.config.quantization => {
                let fresh = count_after(connection, vector, record.through)?;
                let deleted = (record.count + fresh).saturating_sub(rows);
                let is_worn = deleted as f64 > SearchSettings::MAX_DELETED_FRACTION * record.count as f64;
                let is_sound = hash_file(&self.graphs().join(&record.file)).is_ok_and(|hash| hash == record.blake3);
                if fresh == 0 && !is_worn && is_sound {
                    return Ok(None);
                }
                // A graph that has outgrown its number of links is built again.
                let is_wide = self.settings.links(record.count) >= self.settings.links(rows);
                (!is_worn && is_sound && is_wide).then_some(record)
            }
            _ => None,
        };
        let scale = match &base {
            Some(record) => record.scale,
            None => Self::scale(connection, vector)?,
        };
        Ok(Some(Plan { generation, through, rows, scale, base }))
    }

    /// The scale of 8-bit values: the greatest absolute value of all rows.
    fn scale(connection: &rusqlite::Connection, vector: &NamedVector) -> Result<f32, Failure> {
        if vector.config.quantization == Quantization::F16 {
            return Ok(scale_for(Quantization::F16, 0.0));
        }
        let (mut largest, mut values) = (0f32, Vec::new());
        read_after(connection, vector, 0, |number, blob| {
            values.clear();
            read_blob(vector, number, blob, &mut values)?;
            largest = values.iter().map(|v| v.to_f32().abs()).fold(largest, f32::max);
            Ok(true)
        })?;
        Ok(scale_for(vector.config.quantization, largest))
    }

    /// The graph to add rows to, and how many are in it.
    fn start(&self, vector: &NamedVector, plan: &Plan) -> Result<(Graph, usize)> {
        let named = |reason| Error::Graph { vector: vector.name.clone(), reason };
        let graph = match &plan.base {
            Some(record) => record.load(&self.graphs(), vector, self),
            None => Graph::new(&vector.config, &self.settings, plan.rows, plan.scale),
        };
        let graph = graph.map_err(named)?;
        let kept = graph.len();
        graph.reserve(kept + plan.rows, rayon::current_num_threads()).map_err(named)?;
        Ok((graph, kept))
    }

    /// Adds the rows that a graph lacks. Each batch is a state of the database of its own, so that writers are not kept
    /// from emptying the log; rows never change under their numbers.
    fn fill(
        &self,
        vector: &NamedVector,
        graph: &Graph,
        plan: &Plan,
        kept: usize,
        options: &OptimizeOptions<'_>,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let mut last = plan.base.as_ref().map_or(0, |record| record.through);
        let mut done = kept;
        loop {
            on_progress(done.min(plan.rows));
            if options.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped { done, total: plan.rows });
            }
            let batch = self.read("reading vectors", |connection| {
                let mut batch: Vec<(i64, Vec<f16>)> = Vec::with_capacity(BATCH);
                read_after(connection, vector, last, |number, blob| {
                    if number > plan.through {
                        return Ok(false);
                    }
                    let mut values = Vec::with_capacity(vector.config.dim);
                    read_blob(vector, number, blob, &mut values)?;
                    batch.push((number, values));
                    Ok(batch.len() < BATCH)
                })?;
                Ok(batch)
            })?;
            let Some((number, _)) = batch.last() else { return Ok(()) };
            last = *number;
            done += batch.len();
            let added: Result<(), String> =
                batch.par_iter().try_for_each(|(number, values)| graph.add(*number, values));
            added.map_err(|reason| Error::Graph { vector: vector.name.clone(), reason })?;
        }
    }

    /// Makes a graph the one that is searched.
    fn record(&self, vector: &NamedVector, record: &GraphRecord) -> Result<()> {
        let quantization = serde_json::to_string(&record.quantization)
            .map_err(|e| Error::Graph { vector: vector.name.clone(), reason: e.to_string() })?;
        self.write("recording a graph", |connection| {
            let sql = "INSERT OR REPLACE INTO graphs
                (vector, generation, file, through, count, bytes, blake3, quantization, scale, checksum)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
            let GraphRecord { generation, file, through, count, bytes, blake3, scale, .. } = record;
            let (count, bytes, scale) = (*count as i64, *bytes as i64, f64::from(*scale));
            let checksum = record.checksum(vector);
            let values =
                params![vector.number, generation, file, through, count, bytes, blake3, quantization, scale, checksum];
            connection.execute(sql, values)?;
            Ok(())
        })
    }
}
