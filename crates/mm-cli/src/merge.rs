//! `mm merge`: an adapter and its model become one folder.

use crate::{Context, output, speak};
use anyhow::Result;
use serde_json::json;
use std::path::PathBuf;

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
    let tensors = mm_repr::merge_adapter(&speak::folder(&arguments.model), &arguments.out)?;
    if context.json {
        output::line(json!({"out": arguments.out, "tensors": tensors}));
    } else {
        output::line(format!("{}: {tensors} tensors", arguments.out.display()));
    }
    Ok(())
}
