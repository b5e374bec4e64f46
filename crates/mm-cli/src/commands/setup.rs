//! `mm setup`: what this machine, or a project that depends on one of mm's crates, lacks.

use crate::{args::sources, context::Context, output};
use anyhow::Result;
use mm_hub::{libtorch::Request, project, tools};
use serde_json::json;
use std::path::PathBuf;

/// Set up a Cargo project that depends on one of mm's crates, or fetch ffmpeg for this program
///
/// With --project, libtorch is found (LIBTORCH, LIBTORCH_USE_PYTORCH) or fetched once into the cache, and the project's
/// .cargo/config.toml gets its path and the rpath, so that `cargo run` and `cargo test` need no environment variable.
/// Existing settings of the file are kept; if they name another libtorch, nothing is changed.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm setup --project .       in a folder with a Cargo.toml that depends on mm-align, mm-core …\n  mm setup                   ffmpeg, which decodes video, where the system has none"
)]
pub(crate) struct Arguments {
    /// The folder of the project.
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Use a libtorch with CUDA, from LIBTORCH or Python's torch; the fetched one is CPU-only.
    #[arg(long, requires = "project")]
    cuda: bool,
    /// Download everything again.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    sources::prepare();
    let Some(folder) = &arguments.project else {
        tools::ffmpeg(arguments.force)?;
        return report_ffmpeg(context);
    };
    let request = Request { cuda: arguments.cuda, force: arguments.force, settings: None };
    let done = project::set_up(folder, &request)?;
    done.warnings.iter().for_each(output::warning);
    if context.json {
        let libtorch = output::path(&done.libtorch.folder);
        output::line(json!({ "config": output::path(&done.config), "libtorch": libtorch, "changed": done.changed }));
    } else {
        output::line(done);
    }
    Ok(())
}

fn report_ffmpeg(context: &Context) -> Result<()> {
    let ffmpeg = mm_data::decode::ffmpeg()?;
    if context.json {
        output::line(json!({ "ffmpeg": ffmpeg }));
    } else {
        output::line(format!("ffmpeg is {}", ffmpeg.display()));
    }
    Ok(())
}
