//! `mm index optimize`, and what the commands that write rows do of it.

use super::{bytes, print};
use crate::{
    args::store::StoreArgs,
    context::{Context, stop_on_interrupt},
    exit::interrupted,
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_index::{Error, OptimizeOptions, Optimized, SearchSettings, Stats, Store, VectorStats};
use serde_json::json;
use std::{path::Path, sync::atomic::AtomicBool};

/// Rows that a graph lacks at most, and the fraction of its rows: more are added to it. They are compared one by one, and
/// so many take no longer than a store that is just too small for a graph; but a graph is read and written as a whole
/// when rows are added to it. By the fraction this is done about 14 times while a store doubles.
const MAX_FRESH: (usize, f64) = (50_000, 0.05);

#[derive(clap::Args)]
pub(super) struct Optimize {
    #[command(flatten)]
    store: StoreArgs,
    /// Rebuild complete graphs too, and build graphs for stores that are small enough to be searched exactly.
    #[arg(long)]
    rebuild: bool,
}

pub(super) fn optimize(arguments: &Optimize, context: &Context) -> Result<()> {
    let store = arguments.store.open()?;
    let stop = stop_on_interrupt("these rows")?;
    let done = optimize_store(store.as_ref(), arguments.rebuild, &stop)?;
    print(context, json!({"graphs": done.graphs}), || match done.graphs.as_slice() {
        [] => "no graph is needed: searches are exact or the graphs are complete".to_owned(),
        graphs => {
            let line = |g: &mm_index::OptimizedGraph| {
                format!(
                    "graph of {}: {} rows ({} of them as before), {}, {:.1} s",
                    g.vector,
                    g.rows,
                    g.kept,
                    bytes(g.bytes),
                    g.seconds
                )
            };
            graphs.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    });
    Ok(())
}

/// Optimizes with progress; ends as interrupted when it is stopped.
fn optimize_store(store: &dyn Store, rebuild: bool, stop: &AtomicBool) -> Result<Optimized> {
    let mut progress = ItemProgress::new();
    let on_progress = &mut |name: &str, done, total| progress.update(&format!("graph of {name}"), done, total);
    let result = store.optimize(&OptimizeOptions { stop, rebuild }, on_progress);
    progress.finish();
    match result {
        Err(Error::Stopped { done, total }) => {
            interrupted!(
                "{done} of {total} rows of a graph were added; all rows are stored, `mm index optimize` builds the graph again"
            )
        }
        result => Ok(result?),
    }
}

/// Optimizes where there is no graph or one lacks many rows; returns the counts after that. That another process
/// optimizes the store at the moment is no failure, since all rows are stored.
pub(super) fn extend_graphs(store: &dyn Store, stop: &AtomicBool) -> Result<Stats> {
    let stats = store.stats()?;
    if !needs_graphs(&stats) {
        return Ok(stats);
    }
    if let Err(error) = optimize_store(store, false, stop) {
        let Some(path) = optimized_by_another(&error) else { return Err(error) };
        output::note(format!(
            "{}: another process optimizes it at the moment; all rows are stored, and the new ones are compared one by \
             one until `mm index optimize` adds them to the graphs",
            path.display()
        ));
    }
    Ok(store.stats()?)
}

/// The store, where an error says that another process optimizes it. That one writes it for too long is another error.
fn optimized_by_another(error: &anyhow::Error) -> Option<&Path> {
    match error.downcast_ref::<Error>() {
        Some(Error::Busy { path, action: "optimized", .. }) => Some(path.as_path()),
        _ => None,
    }
}

/// Whether a graph lacks many rows or has many deleted ones, or there is none: then the store builds it where that pays.
fn needs_graphs(stats: &Stats) -> bool {
    let has_graph = stats.vectors.iter().any(|vector| vector.graph.is_some());
    let is_due = |vector: &VectorStats| match &vector.graph {
        None => !has_graph || vector.rows >= SearchSettings::default().exact_below,
        Some(graph) => {
            let (count, fraction) = MAX_FRESH;
            let rows = graph.rows as f64;
            graph.fresh > count.min((fraction * rows) as usize)
                || graph.deleted as f64 > SearchSettings::MAX_DELETED_FRACTION * rows
        }
    };
    stats.vectors.iter().filter(|vector| !vector.config.multi).any(is_due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_index::{GraphStats, VectorConfig};

    /// Counts of a named vector: rows; of its graph rows, fresh and deleted ones.
    fn vector(rows: usize, graph: Option<(usize, usize, usize)>) -> VectorStats {
        let graph = graph.map(|(rows, fresh, deleted)| GraphStats { rows, deleted, fresh, bytes: 1 });
        VectorStats { name: "image".into(), config: VectorConfig::cosine(2), rows, graph }
    }

    #[test]
    fn a_store_that_is_written_for_too_long_is_not_taken_for_one_that_is_optimized() {
        let busy = |action| anyhow::Error::from(Error::Busy { path: "s".into(), action, seconds: 0 });
        assert_eq!(optimized_by_another(&busy("optimized")), Some(Path::new("s")));
        assert_eq!(optimized_by_another(&busy("written")), None);
        assert_eq!(optimized_by_another(&anyhow::anyhow!("other")), None);
    }

    #[test]
    fn graphs_are_extended_by_many_rows_at_once() {
        let needs = |vectors: &[VectorStats]| {
            needs_graphs(&Stats { rows: 1, texts: 0, fields: Vec::new(), vectors: vectors.to_vec(), bytes: 1 })
        };
        assert!(needs(&[vector(60_000, None)]) && needs(&[vector(10, None)]));
        for (rows, few, many) in [(60_000, 3_000, 3_001), (1_000_000, 50_000, 50_001), (5_000_000, 50_000, 50_001)] {
            assert!(!needs(&[vector(rows + few, Some((rows, few, 0)))]), "{rows}");
            assert!(needs(&[vector(rows + many, Some((rows, many, 0)))]), "{rows}");
        }
        assert!(!needs(&[vector(800_000, Some((1_000_000, 0, 200_000)))]));
        assert!(needs(&[vector(799_999, Some((1_000_000, 0, 200_001)))]));
        // The graph of one modality is not written again for the few rows of another.
        assert!(!needs(&[vector(1_000_001, Some((1_000_000, 1, 0))), vector(1_000, None)]));
        let mut several = vector(60_000, None);
        several.config.multi = true;
        assert!(!needs(&[several]));
    }
}
