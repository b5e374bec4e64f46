//! `mm report`: runs as one HTML page.

use crate::{
    args::{
        model::{is_copy, locate},
        output_path::local_path,
    },
    context::Context,
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_data::Split;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Write an HTML report of a trained run, or of several runs that differ in their seed
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm report --model runs/first\n  mm report --model runs/three --out report.html")]
pub(crate) struct Arguments {
    /// Run folder; may be repeated, and a folder of seed-N folders stands for all of them. Of runs that differ in their
    /// seed, mean and standard deviation are reported.
    #[arg(long, value_name = "MODEL", required = true, num_args = 1..)]
    model: Vec<PathBuf>,
    /// Page to write [default: report.html in the first run folder].
    #[arg(long, value_name = "FILE.html", value_parser = local_path())]
    out: Option<PathBuf>,
    /// Split to report: train, valid or test.
    #[arg(long, default_value = "test")]
    split: Split,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.out.is_none() && is_copy(&arguments.model[0]) {
        usage!("--model {}: a report is not written to a URL; give a page with --out", arguments.model[0].display());
    }
    let folders: Vec<PathBuf> = arguments.model.iter().map(|m| locate(m)).collect::<Result<_>>()?;
    let runs: Vec<PathBuf> = folders.iter().flat_map(|folder| runs_in(folder)).collect();
    let out = arguments.out.clone().unwrap_or_else(|| folders[0].join("report.html"));
    let mut progress = ItemProgress::new();
    let on_progress = &mut |label: &str, done, total| progress.update(label, done, total);
    let report = context.tasks()?.report(&runs, arguments.split, on_progress)?;
    progress.finish();
    mm_core::checkpoint::write_atomic(&out, report.html.as_bytes())?;
    if context.json {
        output::line(
            json!({"out": output::path(&out), "runs": runs.iter().map(|r| output::path(r)).collect::<Vec<_>>(), "evaluations": report.evaluations}),
        );
    } else {
        output::line(format!("{} ({} kB)", out.display(), report.html.len() / 1000));
    }
    Ok(())
}

/// A run folder itself, or the runs of several seeds inside it.
fn runs_in(folder: &Path) -> Vec<PathBuf> {
    let mut seeds: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.join("config.toml").exists())
        .collect();
    seeds.sort();
    if folder.join("config.toml").exists() || seeds.is_empty() { vec![folder.to_owned()] } else { seeds }
}
