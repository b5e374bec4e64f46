//! `mm run`: a pipeline, with this program as its mm.

use crate::{
    args::sources,
    context::{Context, stop_on_interrupt},
    exit::interrupted,
    output,
};
use anyhow::Result;
use mm_hub::{
    Error,
    pipeline::{self, Options, Runner},
};
use std::path::PathBuf;

/// Run the steps of a pipeline, except those whose commands and inputs have not changed
///
/// A pipeline is a TOML file of steps that fetch data and models, run mm, or run other programs; it can be in any
/// folder. Paths in it are relative to the file. Files that no pipeline made are neither deleted nor replaced. With
/// --json, each step gives one line: step, state (done, skipped; with --dry-run would_run, would_skip, would_fail),
/// reason and seconds.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm run birds.toml --dry-run              which steps would run, and why\n  mm run birds.toml --set epochs=3 --jobs 2\n  mm run birds.toml --from train            train and everything after it, even where nothing changed\n\nEvery key of the file: docs/pipelines/template.toml of the sources, share/doc/mm/pipeline.toml of an installed mm"
)]
pub(crate) struct Arguments {
    /// The pipeline file.
    #[arg(value_name = "FILE")]
    pipeline: PathBuf,
    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    sources::prepare();
    let pipeline = pipeline::load(&arguments.pipeline, &arguments.options)?;
    let stop = stop_on_interrupt("the steps that run")?;
    // A program of one's own runs itself, so that its steps know its modalities.
    let mm = || std::env::current_exe().map_err(|e| Error::Other(format!("the path of this program is unknown: {e}")));
    let runner = Runner { mm: &mm, stop: &stop, keeps_stdout: context.json };
    match runner.run(&pipeline, &arguments.options) {
        Ok(reports) => {
            for report in reports.iter().filter(|_| context.json) {
                output::line(serde_json::to_string(report)?);
            }
            Ok(())
        }
        Err(error @ Error::Interrupted { .. }) => interrupted!("{error}"),
        Err(error) => Err(error.into()),
    }
}
