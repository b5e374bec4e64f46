//! `mm merge`: an adapter and its model become one folder.

use crate::{Context, output};
use anyhow::Result;
use mm_repr::locate;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The adapter's folder (adapter_config.json), or a run that learned one.
    #[arg(long, value_name = "DIR|RUN")]
    model: PathBuf,
    /// The folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let folder = locate(&arguments.model, Path::new("."));
    let folder = mm_tasks::finetuning::learned(&folder).unwrap_or(folder);
    let tensors = mm_repr::merge(&folder, &arguments.out)?;
    if context.json {
        output::line(json!({"out": arguments.out, "tensors": tensors}));
    } else {
        output::line(format!("{}: {tensors} tensors", arguments.out.display()));
    }
    Ok(())
}
