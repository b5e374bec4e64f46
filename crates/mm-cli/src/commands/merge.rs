//! `mm merge`: a LoRA adapter and its base model become one checkpoint.

use crate::{
    args::{model::ModelArgs, output_path::local_path},
    context::Context,
    output,
};
use anyhow::Result;
use serde_json::json;
use std::path::PathBuf;

/// Merge a LoRA adapter (PEFT's format) into its base model and write one checkpoint folder
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mm merge --model runs/blip/model --out models/blip-shapes")]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder to write.
    #[arg(long, value_name = "DIR", value_parser = local_path())]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let tensors = mm_repr::merge_adapter(&arguments.model.checkpoint_dir()?, &arguments.out)?;
    if context.json {
        output::line(json!({"out": output::path(&arguments.out), "tensors": tensors}));
    } else {
        output::line(format!("{}: {tensors} tensors", arguments.out.display()));
    }
    Ok(())
}
