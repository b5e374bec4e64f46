//! `mm index`: rows that are kept and searched.

mod build;
mod clusters;
mod duplicates;
mod export;
mod import;
mod maintain;
mod optimize;

pub(super) use build::load_model_of;

use crate::{context::Context, output};
use anyhow::{Result, bail};
use mm_index::Store;

/// Index a data set for search by vectors, words and fields, and keep the index up to date
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm index build photos --model openai/clip-vit-base-patch32 --store photos.index\n  mm search --store photos.index --text \"a red bird\" --filter 'bytes > 100000'\n  mm index build photos.jsonl --model runs/first --store photos.index --quantization i8\n  mm index import embeddings --store photos.index --model openai/clip-vit-base-patch32\n  mm index duplicates --store photos.index --threshold 0.97\n  mm index clusters --store photos.index --k 20 --report clusters.html\n\nAn interrupted command is continued by the same command; sizes, guarantees and filters: docs/search.md"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a store from a folder or a manifest, or bring it up to date: new, changed and deleted rows.
    Build(Box<build::Build>),
    /// Add the rows of another folder or manifest; nothing is deleted.
    Add(Box<build::Add>),
    /// Write vectors that were computed before: of `mm embed`, clip-retrieval or another program.
    Import(import::ImportArgs),
    /// Delete rows by id or by filter.
    Delete(maintain::Delete),
    /// Show counts and sizes.
    Stats(maintain::Stats),
    /// Build the graphs that make searches fast, and merge the lists of words.
    Optimize(optimize::Optimize),
    /// Verify the store: read everything and compare checksums, counts and graphs.
    Check(maintain::Check),
    /// Write rows (.jsonl, .parquet), the vectors of a modality (.npy), or a folder of arrays and a table.
    Export(export::Export),
    /// Find groups of rows that are nearly the same.
    Duplicates(duplicates::Duplicates),
    /// Group the rows into clusters of similar ones (k-means).
    Clusters(clusters::Clusters),
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    match &arguments.command {
        Command::Build(build) => build::build(build, context),
        Command::Add(add) => build::add(add, context),
        Command::Import(import) => import::import(import, context),
        Command::Delete(delete) => maintain::delete(delete, context),
        Command::Stats(stats) => maintain::stats(stats, context),
        Command::Optimize(optimize) => optimize::optimize(optimize, context),
        Command::Check(check) => maintain::check(check, context),
        Command::Export(export) => export::export(export, context),
        Command::Duplicates(duplicates) => duplicates::duplicates(duplicates, context),
        Command::Clusters(clusters) => clusters::clusters(clusters, context),
    }
}

/// A number of bytes for a person.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The named vector that is meant: the one that is given, else the store's only one.
fn chosen_vector(store: &dyn Store, modality: Option<&str>) -> Result<String> {
    let names: Vec<&str> = store.config().vectors.keys().map(String::as_str).collect();
    match (modality, names.as_slice()) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, _) => {
            bail!("--modality: not given, expected one of those of the store: {}", names.join(", "))
        }
    }
}

/// Prints one JSON object, or else text.
fn print(context: &Context, json: serde_json::Value, text: impl FnOnce() -> String) {
    if context.json { output::line(json) } else { output::line(text()) }
}
