//! `mm index delete`, `stats`, `optimize` and `check`.

use super::{bytes, print};
use crate::{
    args::store::StoreArgs,
    context::{Context, stop_on_interrupt},
    exit::{interrupted, usage},
    output,
    progress::ItemProgress,
};
use anyhow::{Result, bail};
use mm_index::{Error, Filter, OptimizeOptions, Optimized, Store};
use serde_json::json;
use std::sync::atomic::AtomicBool;

#[derive(clap::Args)]
pub(super) struct Delete {
    #[command(flatten)]
    store: StoreArgs,
    /// Id of a row; may be repeated.
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// Delete the rows that meet this condition, for instance 'year < 2000'.
    #[arg(long, value_name = "CONDITION", conflicts_with = "id")]
    filter: Option<String>,
}

pub(super) fn delete(arguments: &Delete, context: &Context) -> Result<()> {
    if arguments.id.is_empty() && arguments.filter.is_none() {
        usage!("nothing to delete; give --id or --filter");
    }
    let store = arguments.store.open()?;
    let mut ids = arguments.id.clone();
    if let Some(filter) = &arguments.filter {
        ids.extend(store.select(&Filter::parse(filter)?, usize::MAX)?);
    }
    let deleted = store.delete(&ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    let rows = store.stats()?.rows;
    print(context, json!({"deleted": deleted, "rows": rows}), || format!("{deleted} rows deleted, {rows} left"));
    Ok(())
}

#[derive(clap::Args)]
pub(super) struct Stats {
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn stats(arguments: &Stats, context: &Context) -> Result<()> {
    let stats = arguments.store.open()?.stats()?;
    if context.json {
        output::line(serde_json::to_value(&stats)?);
        return Ok(());
    }
    output::line(format!("{} rows, {} with a text, {}", stats.rows, stats.texts, bytes(stats.bytes)));
    output::line(format!("fields: {}", if stats.fields.is_empty() { "none".into() } else { stats.fields.join(", ") }));
    for vector in &stats.vectors {
        let model = vector.config.model.as_ref().map_or("unknown model", |model| model.name.as_str());
        let several = if vector.config.multi { ", several a row" } else { "" };
        output::line(format!(
            "vector {}: {} rows, width {}{several}, {model}",
            vector.name, vector.rows, vector.config.dim
        ));
        if let Some(graph) = &vector.graph {
            output::line(format!(
                "  graph: {} rows, of which {} are deleted; {} new rows are not in it yet; {}",
                graph.rows,
                graph.deleted,
                graph.fresh,
                bytes(graph.bytes)
            ));
        }
    }
    Ok(())
}

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
pub(super) fn optimize_store(store: &dyn Store, rebuild: bool, stop: &AtomicBool) -> Result<Optimized> {
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

#[derive(clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn check(arguments: &Check, context: &Context) -> Result<()> {
    let store = arguments.store.open()?;
    let mut progress = ItemProgress::new();
    let report = store.check(&mut |name, done, total| progress.update(&format!("checking {name}"), done, total))?;
    progress.finish();
    if context.json {
        output::line(serde_json::to_value(&report)?);
    } else {
        report.problems.iter().for_each(|problem| output::line(format!("{}: {}", problem.what, problem.reason)));
    }
    if let Some(first) = report.problems.first() {
        let count = report.problems.len();
        bail!("{}: {count} problems, the first: {}: {}", arguments.store.shown().display(), first.what, first.reason);
    }
    if !context.json {
        output::line(format!("{} rows, no problem", report.rows));
    }
    Ok(())
}
