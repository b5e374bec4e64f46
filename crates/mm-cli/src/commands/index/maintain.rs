//! `mm index delete`, `stats` and `check`.

use super::{bytes, print};
use crate::{args::store::StoreArgs, context::Context, exit::usage, output, progress::ItemProgress};
use anyhow::{Result, bail};
use mm_index::Filter;
use serde_json::json;

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
    // What could not be looked at is known to whoever reads no JSON too.
    report.notes.iter().for_each(output::note);
    if let Some(first) = report.problems.first() {
        let count = report.problems.len();
        bail!("{}: {count} problems, the first: {}: {}", arguments.store.shown().display(), first.what, first.reason);
    }
    if !context.json {
        output::line(format!("{} rows, no problem", report.rows));
    }
    Ok(())
}
