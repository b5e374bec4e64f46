//! `mm inspect`: what a data set or a checkpoint holds.

mod dataset;
mod model;

use crate::{
    args::{columns::TableArgs, model::checkpoint_dir},
    context::Context,
};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// How the names of tables end.
const TABLES: [&str; 11] =
    [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".tar", ".tgz", ".gz", ".zst"];

/// Show what a data set holds (rows, modalities, sizes, unreadable files, samples), or what a checkpoint folder is
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm inspect data/stamps.jsonl\n  mm inspect all-MiniLM-L6-v2 --json")]
pub(crate) struct Arguments {
    /// Manifest (.jsonl, .csv, .tsv, .parquet, .arrow or .tar), folder that Hugging Face's datasets saved, checkpoint folder, model name, or the URL of a manifest or a model.
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

/// Whether a URL is that of a model: of a folder in a store or of a repository of the hub. Tables have an extension.
fn is_model_url(path: &Path) -> bool {
    let Some((scheme, rest)) = path.to_str().and_then(|text| text.split_once("://")) else { return false };
    let name = rest.trim_end_matches('/').split_once('/').map_or("", |(_, below)| below).rsplit('/').next();
    let name = name.unwrap_or_default().to_ascii_lowercase();
    let is_table = TABLES.iter().any(|end| name.ends_with(end)) || rest.starts_with("datasets/");
    mm_data::is_remote(path) && !scheme.to_ascii_lowercase().starts_with("http") && !name.is_empty() && !is_table
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if is_model_url(&arguments.path) {
        return model::inspect(&checkpoint_dir(&arguments.path)?, context);
    }
    if mm_data::is_remote(&arguments.path) {
        return dataset::inspect(arguments, context);
    }
    // What is no model is a data set.
    match checkpoint_dir(&arguments.path) {
        Ok(dir) if !mm_data::is_dataset_folder(&dir) => model::inspect(&dir, context),
        _ => dataset::inspect(arguments, context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_models_have_no_extension_of_a_table() {
        for url in ["s3://bucket/bert", "gs://bucket/a/model-v1.5/", "hf://org/name", "az://container/run"] {
            assert!(is_model_url(Path::new(url)), "{url}");
        }
        for url in [
            "s3://bucket/rows.CSV",
            "s3://bucket/d-{000..005}.tar",
            "s3://bucket",
            "https://host/bert",
            "hf://datasets/org/name/rows.parquet",
            "bert",
            "file:///tmp/bert",
        ] {
            assert!(!is_model_url(Path::new(url)), "{url}");
        }
    }
}
