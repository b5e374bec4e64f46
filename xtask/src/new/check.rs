//! `cargo xtask new --check`: every template makes a crate that compiles, and a modality's tests pass, as for a stranger.

use super::{
    kind::{KINDS, Kind, MODALITY},
    make,
};
use crate::{cargo::cargo, outside::share_target, paths::root, setup, temporary::TemporaryFolder};
use anyhow::{Context, Result, bail};
use std::{path::Path, time::Instant};

/// Makes, compiles and tests; prints the time of each. Packages that mm depends on are not compiled again: the target
/// folder is one that other projects share, or this workspace's.
pub fn run(shared_target: Option<&Path>) -> Result<()> {
    setup::run(false, false)?;
    let folder = TemporaryFolder::new("mm-new")?;
    for kind in KINDS {
        let started = Instant::now();
        let name = format!("new-{}", kind.command);
        let made = make(kind, &name, folder.path())?;
        // A folder that projects were built into holds what a build needs, not what a check does.
        let compile = if shared_target.is_some() { "build" } else { "check" };
        let compile = [compile, "--all-targets"];
        let mut commands: Vec<&[&str]> = vec![&compile];
        if kind.command == MODALITY.command {
            commands.extend([&["test", "--lib"][..], &["run", "--", "completions", "bash"]]);
        }
        for arguments in commands {
            run_cargo(kind, &made, shared_target, arguments)?;
        }
        println!("{:18} {:.0} s", kind.command, started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Runs cargo in the crate.
fn run_cargo(kind: &Kind, folder: &Path, shared_target: Option<&Path>, arguments: &[&str]) -> Result<()> {
    eprintln!("xtask: {}: cargo {}", kind.command, arguments.join(" "));
    let mut command = cargo();
    command.current_dir(folder).args(arguments);
    match shared_target {
        Some(target) => share_target(&mut command, target),
        None => {
            command.env("CARGO_TARGET_DIR", root().join("target"));
        }
    }
    let output = command.output().context("cargo cannot be started")?;
    if !output.status.success() {
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{}: cargo {} failed:\n{stdout}{stderr}", kind.command, arguments.join(" "));
    }
    Ok(())
}
