//! `mm inspect`: what a data set or a checkpoint holds.

mod dataset;
mod model;

use crate::{
    args::{columns::TableArgs, model::checkpoint_dir},
    context::Context,
};
use anyhow::Result;
use std::path::PathBuf;

/// Show what a data set holds (rows, modalities, sizes, unreadable files, samples), or what a checkpoint folder is
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm inspect data/stamps.jsonl\n  mm inspect all-MiniLM-L6-v2 --json")]
pub(crate) struct Arguments {
    /// Manifest (.jsonl, .csv, .tsv, .parquet, .arrow or .tar), folder that Hugging Face's datasets saved, checkpoint folder, or model name.
    path: PathBuf,
    #[command(flatten)]
    table: TableArgs,
    /// Do not open the files that the manifest names.
    #[arg(long)]
    no_files: bool,
    /// Number of samples to show.
    #[arg(long, value_name = "N", default_value_t = 3)]
    num_samples: usize,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    // What is no model is a data set.
    match checkpoint_dir(&arguments.path) {
        Ok(dir) if !mm_data::is_dataset_folder(&dir) => model::inspect(&dir, context),
        _ => dataset::inspect(arguments, context),
    }
}
