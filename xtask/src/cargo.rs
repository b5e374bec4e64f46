//! Cargo's own work, after the set-up that it needs: tests, benches, docs, and all that must pass before a change lands.

use crate::{
    places::{cache, root},
    registry::{self, Kind},
    setup,
};
use anyhow::{Result, bail};
use std::process::Command;

/// Cargo, free of what it set for xtask itself, so that the settings that set-up has just written are read.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    if setup::from_environment().is_ok_and(|own| own.is_none()) {
        command.env_remove("LIBTORCH");
    }
    if let Some(nasm) = setup::fetched_nasm().parent().filter(|p| p.is_dir()) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([nasm.to_owned()]);
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
    }
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text == "CARGO_MANIFEST_DIR" || text == "CARGO_MANIFEST_PATH" {
            command.env_remove(&name);
        }
    }
    command
}

fn run(what: &str, arguments: &[&str], rest: &[String], environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("xtask: cargo {} {}", arguments.join(" "), rest.join(" "));
    let status = cargo().args(arguments).args(rest).envs(environment.iter().copied()).status()?;
    if !status.success() {
        bail!("{what} failed");
    }
    Ok(())
}

/// Every test. Real weights are fetched for those that hold mm against them; where that fails they say so and skip.
pub fn test(rest: &[String]) -> Result<()> {
    setup::run(false, false)?;
    for name in ["all-MiniLM-L6-v2", "efficientnet-lite0"] {
        if let Err(error) = registry::fetch(Kind::Models, name) {
            eprintln!("xtask: {name} could not be fetched, tests of it will skip: {error:#}");
        }
    }
    run("testing", &["test", "--release", "--workspace"], rest, &[])
}

/// Benches by name, or all.
pub fn bench(name: Option<&str>) -> Result<()> {
    setup::run(false, false)?;
    match name {
        Some("list") => {
            println!(
                "tensor  a small operation through mm_core against tch alone\nloader  pictures a second against PIL and torchvision in a PyTorch DataLoader (needs a Python with both)"
            );
            Ok(())
        }
        Some("loader") => loader(),
        Some("tensor") => run("benching", &["bench", "--package", "mm-benches", "--bench", "tensor"], &[], &[]),
        Some(other) => bail!("no bench `{other}`; `cargo xtask bench list` names them"),
        None => {
            run("benching", &["bench", "--package", "mm-benches", "--bench", "tensor"], &[], &[])?;
            loader()
        }
    }
}

/// The peer is PyTorch's own stack, in an environment that is made once.
fn loader() -> Result<()> {
    let environment = cache().join("python/loader");
    let python = environment.join("bin/python");
    if !environment.join("complete").exists() {
        eprintln!("xtask: a Python environment with torch and torchvision for the peer (some GB, once) …");
        let made = Command::new(crate::fetch::python()?).args(["-m", "venv"]).arg(&environment).status()?.success()
            && Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "torch==2.11.0", "torchvision==0.26.0", "pillow", "numpy"])
                .status()?
                .success();
        if !made {
            bail!("the Python environment could not be made (Debian: apt-get install python3-venv)");
        }
        std::fs::write(environment.join("complete"), "")?;
    }
    run("building", &["build", "--release", "--package", "mm-benches", "--bin", "loader"], &[], &[])?;
    let status = Command::new(&python)
        .arg(root().join("benches/loader.py"))
        .arg(root().join("target/release/loader"))
        .status()?;
    if !status.success() {
        bail!("the bench failed");
    }
    Ok(())
}

/// The documentation, warnings refused.
pub fn docs() -> Result<()> {
    setup::run(false, false)?;
    run("documenting", &["doc", "--release", "--workspace", "--no-deps"], &[], &[("RUSTDOCFLAGS", "-D warnings")])
}

/// All that must pass before a change lands.
pub fn ci() -> Result<()> {
    setup::run(false, false)?;
    run("formatting", &["fmt", "--all", "--check"], &[], &[])?;
    run(
        "linting",
        &["clippy", "--release", "--workspace", "--all-targets"],
        &["--".into(), "-D".into(), "warnings".into()],
        &[],
    )?;
    docs()?;
    test(&[])
}
