//! `mm prepare`: the manifest of a known data set.

use crate::{args::output_path::local_path, context::Context, exit::usage, output};
use anyhow::Result;
use mm_data::datasets::DatasetReader;
use serde_json::json;
use std::path::PathBuf;

/// Write the manifest of a known data set from its unpacked folder
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm prepare --list\n  mm prepare --dataset tuxpaint-stamps --data ~/.cache/mm/data/tuxpaint-stamps --out stamps.jsonl"
)]
pub(crate) struct Arguments {
    /// Name of the data set.
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    dataset: Option<String>,
    /// Folder that its package was unpacked to.
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,
    /// Manifest to write.
    #[arg(long, value_name = "FILE", default_value = "manifest.jsonl", value_parser = local_path())]
    out: PathBuf,
    /// List the known data sets.
    #[arg(long, conflicts_with_all = ["dataset", "data", "out"])]
    list: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.list {
        for DatasetReader { name, description, .. } in context.datasets.iter() {
            if context.json {
                output::line(json!({"name": name, "description": description}))
            } else {
                output::line(format!("{name}: {description}"))
            }
        }
        return Ok(());
    }
    let Some(dataset) = &arguments.dataset else { usage!("--dataset: expected the name of a data set, or --list") };
    let rows = (context.datasets.get(dataset)?.prepare)(&arguments.data, &arguments.out)?;
    if context.json {
        output::line(json!({"out": output::path(&arguments.out), "rows": rows}));
    } else {
        output::line(format!("{}: {rows} rows", arguments.out.display()));
    }
    Ok(())
}
