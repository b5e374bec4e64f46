//! `mm inspect`: what a data set or a checkpoint holds.

mod dataset;
mod model;

use crate::{
    args::{columns::ColumnBinding, model::checkpoint_dir},
    context::Context,
};
use anyhow::Result;
use std::path::PathBuf;

/// Show what a data set holds (rows, modalities, sizes, unreadable files, samples), or what a checkpoint folder is
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm inspect data/stamps.jsonl\n  mm inspect all-MiniLM-L6-v2 --json")]
pub(crate) struct Arguments {
    /// Manifest (.jsonl, .csv, .tsv or .parquet), checkpoint folder, or model name.
    path: PathBuf,
    /// Column of a modality, for instance image=photo; may be repeated [default: guessed].
    #[arg(long, value_name = "MODALITY=COLUMN")]
    column: Vec<ColumnBinding>,
    /// Text encoding of the manifest, by its WHATWG name [default: utf-8].
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
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
        Ok(dir) => model::inspect(&dir, context),
        Err(_) => dataset::inspect(arguments, context),
    }
}
