//! `mm man`: the manual pages.

use crate::{args::output_path::local_path, context::Context};
use anyhow::{Context as _, Result};
use std::path::PathBuf;

/// Write the manual pages into a folder
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mm man --out ~/.local/share/man/man1")]
pub(crate) struct Arguments {
    /// The folder, created when it does not exist.
    #[arg(long, value_name = "DIR", value_parser = local_path())]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, _: &Context) -> Result<()> {
    let failed = || format!("--out {}: cannot be written", arguments.out.display());
    std::fs::create_dir_all(&arguments.out).with_context(failed)?;
    clap_mangen::generate_to(crate::program::own_command(), &arguments.out).with_context(failed)
}
