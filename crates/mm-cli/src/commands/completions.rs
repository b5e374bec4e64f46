//! `mm completions`: completions of a shell.

use crate::{context::Context, output};
use anyhow::Result;

/// Print the completions of a shell (bash, zsh, fish …)
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mm completions bash > ~/.local/share/bash-completion/completions/mm")]
pub(crate) struct Arguments {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(crate) fn run(arguments: &Arguments, _: &Context) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::command(), "mm", &mut script);
    output::part(&String::from_utf8_lossy(&script));
    Ok(())
}
