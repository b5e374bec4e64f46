//! `cargo xtask ci`: what CI runs.

use crate::{
    cargo::{NOT_INCREMENTAL, cargo, deny_warnings, docs, run, test},
    new, outside,
    paths::root,
    setup,
    temporary::TemporaryFolder,
    torture,
};
use anyhow::Result;
use std::process::Command;

/// Runs what CI runs, and what is made outside of the workspace where asked for.
pub fn ci(outside: bool) -> Result<()> {
    setup::run(false, false)?;
    run("formatting", &["fmt", "--all", "--check"], &[], &[])?;
    run("linting", &["clippy", "--workspace", "--all-targets"], &deny_warnings(), &[NOT_INCREMENTAL])?;
    package()?;
    deny()?;
    semver_checks()?;
    docs()?;
    test(&[])?;
    interrupt()?;
    if outside { from_outside() } else { Ok(()) }
}

/// What a user makes outside the workspace: a project for each library crate, and a crate of every kind, which share one
/// target folder.
fn from_outside() -> Result<()> {
    let folder = TemporaryFolder::new("mm-outside")?;
    let target = outside::run_all_shared(folder.path())?;
    new::check(Some(&target))
}

/// Kills of the program that the tests were built with, in each scenario of `cargo xtask torture`.
const KILLS: usize = 4;

/// A short run of `cargo xtask torture`, with mm as the tests built it.
fn interrupt() -> Result<()> {
    let mm = root().join("target/debug/mm");
    if !mm.exists() {
        eprintln!("xtask: skipped: no interrupted commands, since there is no {}", mm.display());
        return Ok(());
    }
    torture::run_each(mm, KILLS)
}

/// Packages every crate that is published, as crates.io would receive it, without building it again.
fn package() -> Result<()> {
    let arguments = ["package", "--workspace", "--no-verify", "--allow-dirty"];
    let excluded =
        ["xtask", "mm-fuzz", "mm-benches", "ink"].iter().flat_map(|name| ["--exclude".to_owned(), (*name).to_owned()]);
    run("packaging", &arguments, &excluded.collect::<Vec<_>>(), &[])
}

/// Whether a subcommand of cargo is installed; says so where it is not.
fn is_installed(subcommand: &str) -> bool {
    let found = cargo().args([subcommand, "--version"]).output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("xtask: skipped: cargo {subcommand} is not installed (cargo install cargo-{subcommand})");
    }
    found
}

/// Known advisories, licences and sources of dependencies, as deny.toml accepts them.
fn deny() -> Result<()> {
    if is_installed("deny") { run("checking dependencies", &["deny", "check"], &[], &[]) } else { Ok(()) }
}

/// The public interfaces against those of the last release, which is the newest tag.
fn semver_checks() -> Result<()> {
    let tag = Command::new("git").args(["describe", "--tags", "--abbrev=0"]).current_dir(root()).output();
    let Some(tag) = tag.ok().filter(|output| output.status.success()) else {
        eprintln!("xtask: skipped: no release to compare the public interfaces with");
        return Ok(());
    };
    let tag = String::from_utf8_lossy(&tag.stdout).trim().to_owned();
    if !is_installed("semver-checks") {
        return Ok(());
    }
    run("comparing interfaces", &["semver-checks", "--workspace", "--baseline-rev", &tag], &[], &[])
}
