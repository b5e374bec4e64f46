//! `mm report`: a run as one HTML page.

use crate::{Context, output, progress::Steps};
use anyhow::Result;
use mm_data::Split;
use mm_tasks::job::build_report;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run folders; several that differ in their seed give mean and spread. A folder of seed-N folders counts as those.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The page [default: report.html in the first run's folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The side to report: train, valid or test.
    #[arg(long, default_value = "test")]
    split: Split,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let mut runs = Vec::new();
    for folder in &arguments.runs {
        let mut seeds: Vec<PathBuf> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.join("config.toml").exists())
            .collect();
        seeds.sort();
        if folder.join("config.toml").exists() || seeds.is_empty() {
            runs.push(folder.clone())
        } else {
            runs.extend(seeds)
        }
    }
    let out = arguments.out.clone().unwrap_or_else(|| arguments.runs[0].join("report.html"));
    let mut steps = Steps::new();
    let report = build_report(&runs, arguments.split, &crate::registry(), context.device()?, &mut |what, done, of| {
        steps.tell(what, done, of)
    })?;
    steps.end();
    mm_core::checkpoint::write_file(&out, report.html.as_bytes())?;
    if context.json {
        output::line(json!({"report": out, "runs": runs, "evaluations": report.evaluations}));
    } else {
        output::line(format!("{} ({} kB): open it in a browser", out.display(), report.html.len() / 1000));
    }
    Ok(())
}
