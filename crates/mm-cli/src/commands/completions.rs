//! `mm completions`: completions of a shell.

use crate::{context::Context, exit::program_name, output, program};
use anyhow::Result;

/// Print the completions of a shell (bash, zsh, fish …)
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mm completions bash > ~/.local/share/bash-completion/completions/mm")]
pub(crate) struct Arguments {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let mut script = Vec::new();
    let modalities: Vec<String> = context.registry.proposable_modalities().map(ToOwned::to_owned).collect();
    let mut command = program::command_with_modalities(&modalities);
    clap_complete::generate(arguments.shell, &mut command, program_name(), &mut script);
    output::part(&String::from_utf8_lossy(&script));
    Ok(())
}
