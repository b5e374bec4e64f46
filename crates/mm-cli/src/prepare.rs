//! `mm prepare`: the manifest of a known data set.

use crate::{Context, output};
use anyhow::Result;
use mm_data::datasets::{DATASETS, prepare};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data set; `list` names those that are known.
    name: String,
    /// The folder that its package unpacked to.
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The manifest to write.
    #[arg(long, value_name = "FILE", default_value = "manifest.jsonl")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.name == "list" {
        for (name, about) in DATASETS {
            if context.json {
                output::line(json!({"name": name, "about": about}))
            } else {
                output::line(format!("{name}: {about}"))
            }
        }
        return Ok(());
    }
    let rows = prepare(&arguments.name, &arguments.folder, &arguments.out)?;
    if context.json {
        output::line(json!({"manifest": arguments.out, "rows": rows}));
    } else {
        output::line(format!("{}: {rows} rows", arguments.out.display()));
    }
    Ok(())
}
