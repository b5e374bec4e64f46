//! Building graphs, while searches and writes go on.
//!
//! Source: *Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs*
//! (Malkov, Yashunin, 2016), by pgvector.

use super::{
    NamedVector, PostgresStore,
    connection::connect,
    failure::Failure,
    schema::vector_table,
    stats::{count, deleted, graph_index},
};
use crate::{Distance, Error, OnProgress, OptimizeOptions, Optimized, OptimizedGraph, Result, SearchSettings};
use postgres::{Client, error::SqlState};
use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

/// Largest width of 16-bit vectors in a graph of pgvector.
const MAX_GRAPH_DIM: usize = 4_000;

/// The first number of the advisory lock of a process that builds graphs: "mmiy".
const OPTIMIZE_LOCK: i32 = 0x6d6d_6979;

/// Time between two queries for the progress of the server.
const LOOK: Duration = Duration::from_millis(50);

/// Time between two requests to stop building: each is a connection of its own.
const CANCEL: Duration = Duration::from_secs(1);

/// Tables besides those of the vectors.
const TABLES: [&str; 6] = ["mm_store", "mm_vectors", "mm_rows", "mm_fields", "mm_field_values", "mm_field_points"];

impl PostgresStore {
    pub(super) fn optimize_all(&self, options: &OptimizeOptions<'_>, on_progress: OnProgress<'_>) -> Result<Optimized> {
        let mut run = || {
            let mut client = connect(&self.address)?;
            // A graph takes longer than a search may.
            client.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0")?;
            self.lock_graphs(&mut client)?;
            let mut done = Optimized::default();
            for vector in self.vectors.values().filter(|v| !v.config.multi && v.config.dim <= MAX_GRAPH_DIM) {
                let (graph, returned) = self.optimize_vector(client, vector, options, on_progress)?;
                client = returned;
                done.graphs.extend(graph);
            }
            let vectors = self.vectors.values().map(|vector| vector_table(vector.number));
            for table in TABLES.map(str::to_owned).into_iter().chain(vectors) {
                if options.stop.load(Ordering::Relaxed) {
                    break;
                }
                // Frees the space of deleted rows, merges the lists of words, and counts what the planner asks for.
                client.batch_execute(&format!("VACUUM (ANALYZE) {table}"))?;
            }
            Ok(done)
        };
        run().map_err(|failure: Failure| failure.at(&self.address, "optimizing"))
    }

    /// Keeps other processes from building graphs, as long as the connection lives.
    fn lock_graphs(&self, client: &mut Client) -> Result<(), Failure> {
        let sql = "SELECT pg_try_advisory_lock($1, $2)";
        if client.query_one(sql, &[&OPTIMIZE_LOCK, &self.address.lock_number()])?.try_get(0)? {
            return Ok(());
        }
        Err(Error::Busy { path: (&self.address.shown).into(), action: "optimized", seconds: 0 }.into())
    }

    /// Builds the graph of a named vector where there is none or it is worn; returns the connection too.
    fn optimize_vector(
        &self,
        mut client: Client,
        vector: &NamedVector,
        options: &OptimizeOptions<'_>,
        on_progress: OnProgress<'_>,
    ) -> Result<(Option<OptimizedGraph>, Client), Failure> {
        let started = Instant::now();
        let rows = count(&mut client, vector)?;
        let before = graph_index(&mut client, vector)?.map(|graph| graph.name);
        drop_others(&mut client, vector, before.as_deref())?;
        let is_worn = deleted(&mut client, vector)? as f64 > SearchSettings::MAX_DELETED_FRACTION * rows as f64;
        let is_due = if before.is_some() { is_worn } else { rows >= self.settings.exact_below };
        if rows == 0 || !(is_due || options.rebuild) {
            return Ok((None, client));
        }
        if options.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped { done: 0, total: rows }.into());
        }
        let (built, mut client) = self.build(client, vector, rows, options, on_progress);
        let built = built.and_then(|name| {
            drop_others(&mut client, vector, Some(&name))?;
            Ok(graph_index(&mut client, vector)?.map_or(0, |graph| graph.bytes))
        });
        let bytes = match built {
            Ok(bytes) => bytes,
            Err(failure) => {
                // What is unfinished is not used by searches, and is deleted now or by the next call.
                drop_others(&mut client, vector, before.as_deref()).ok();
                return Err(failure);
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let graph = OptimizedGraph { vector: vector.name.clone(), rows, kept: 0, bytes, seconds };
        Ok((Some(graph), client))
    }

    /// Builds a graph next to the present one; returns its name.
    fn build(
        &self,
        mut client: Client,
        vector: &NamedVector,
        rows: usize,
        options: &OptimizeOptions<'_>,
        on_progress: OnProgress<'_>,
    ) -> (Result<String, Failure>, Client) {
        let name = match free_name(&mut client, vector) {
            Ok(name) => name,
            Err(failure) => return (Err(failure), client),
        };
        let connector = match self.address.tls.connector() {
            Ok(connector) => connector,
            Err(reason) => return (Err(Error::file(&self.address.shown, reason).into()), client),
        };
        let sql = self.create_index(vector, rows, &name);
        let cancel = client.cancel_token();
        let worker = thread::spawn(move || {
            let result = client.batch_execute(&sql);
            (result, client)
        });
        let mut done = 0;
        let mut cancelled: Option<Instant> = None;
        while !worker.is_finished() {
            thread::sleep(LOOK);
            done = self.progress(vector).unwrap_or(done).min(rows);
            on_progress(&vector.name, done, rows);
            let is_due = cancelled.is_none_or(|last| last.elapsed() >= CANCEL);
            if is_due && options.stop.load(Ordering::Relaxed) {
                cancelled = Some(Instant::now());
                // What the server does not receive is asked again.
                cancel.cancel_query(connector.clone()).ok();
            }
        }
        let (result, client) = match worker.join() {
            Ok(joined) => joined,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let result = result.map(|()| name).map_err(|error| match error.code() {
            Some(code) if cancelled.is_some() && *code == SqlState::QUERY_CANCELED => {
                Error::Stopped { done, total: rows }.into()
            }
            _ => error.into(),
        });
        (result, client)
    }

    fn create_index(&self, vector: &NamedVector, rows: usize, name: &str) -> String {
        let class = match vector.config.distance {
            Distance::Cosine | Distance::Dot => "halfvec_ip_ops",
            Distance::Euclidean => "halfvec_l2_ops",
        };
        // The ranges that pgvector takes.
        let m = self.settings.links(rows).clamp(2, 100);
        let expansion = self.settings.expansion_add.clamp((2 * m).max(4), 1000);
        format!(
            "CREATE INDEX CONCURRENTLY {name} ON {} USING hnsw (data {class})
            WITH (m = {m}, ef_construction = {expansion})",
            vector.table()
        )
    }

    /// How many rows are in the graph that is being built.
    fn progress(&self, vector: &NamedVector) -> Option<usize> {
        let sql = "SELECT tuples_done FROM pg_stat_progress_create_index WHERE relid = $1::text::regclass";
        let found =
            self.read("reading the progress", |transaction| Ok(transaction.query_opt(sql, &[&vector.table()])?));
        let done: i64 = found.ok()??.try_get(0).ok()?;
        usize::try_from(done).ok()
    }
}

/// How the names of the graphs of a named vector begin.
fn prefix(vector: &NamedVector) -> String {
    format!("{}_graph_", vector.table())
}

/// The names of all graphs of a named vector, unfinished ones too.
fn graph_names(client: &mut Client, vector: &NamedVector) -> Result<Vec<String>, Failure> {
    let sql = "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = $1::text::regclass AND starts_with(c.relname::text, $2)";
    let rows = client.query(sql, &[&vector.table(), &prefix(vector)])?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// A name that no graph of a named vector has.
fn free_name(client: &mut Client, vector: &NamedVector) -> Result<String, Failure> {
    let names = graph_names(client, vector)?;
    let numbers = names.iter().filter_map(|name| name.strip_prefix(&prefix(vector))?.parse::<u64>().ok());
    Ok(format!("{}{}", prefix(vector), numbers.max().unwrap_or(0) + 1))
}

/// Deletes the graphs of a named vector except for one: older ones, and what an interrupted call left.
fn drop_others(client: &mut Client, vector: &NamedVector, kept: Option<&str>) -> Result<(), Failure> {
    for name in graph_names(client, vector)?.into_iter().filter(|name| Some(name.as_str()) != kept) {
        client.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"))?;
    }
    Ok(())
}
