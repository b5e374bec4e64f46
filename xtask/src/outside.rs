//! `cargo xtask outside`: depends on one crate at a time as a stranger would. For each library crate it makes a project
//! outside the workspace, with the crate's README example as its program, its own target folder and no environment, and
//! builds, runs and tests it.

use crate::{
    docs::markdown::{CodeBlock, Page},
    paths::root,
    setup,
    temporary::TemporaryFolder,
};
use anyhow::{Context, Result, bail};
use mm_hub::project;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// The arguments of the command.
#[derive(Default, clap::Args)]
pub struct Arguments {
    /// The crates; all library crates when absent.
    #[arg(value_name = "CRATE")]
    crates: Vec<String>,
    /// Where the projects are made; a temporary folder, which is removed, when absent.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Build all projects into one target folder, so that what they have in common is compiled once: faster, but the times
    /// are not those of a crate alone.
    #[arg(long)]
    shared_target: bool,
    /// Only print the table of packages and features of each crate; nothing is compiled.
    #[arg(long)]
    list: bool,
    /// Print one JSON object per crate instead of the table.
    #[arg(long)]
    json: bool,
}

/// Marks a folder whose files this command writes.
const MARKER: &str = ".made-by-xtask-outside";

/// The target folder that projects share.
const TARGET: &str = "target";

/// What cargo needs from the environment to find itself and a compiler.
const KEPT_VARIABLES: [&str; 6] = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "XDG_CACHE_HOME"];

/// One crate in a project of its own.
#[derive(serde::Serialize)]
struct Outcome {
    name: String,
    /// Features that are not on by default, but for `full`.
    features: Vec<String>,
    /// Packages that are compiled, build scripts' included.
    packages: usize,
    /// Seconds of `cargo build`, `cargo run` and `cargo test`; absent where nothing was compiled.
    seconds: Option<[f64; 3]>,
}

/// All crates, in projects in a folder, with one target folder; returns that.
pub fn run_all_shared(folder: &Path) -> Result<PathBuf> {
    run(&Arguments { shared_target: true, folder: Some(folder.to_owned()), ..Arguments::default() })?;
    Ok(folder.join(TARGET))
}

/// Lets cargo build into a target folder that several projects share, as fast as it can: without debug information.
pub fn share_target(command: &mut Command, target: &Path) {
    command.env("CARGO_TARGET_DIR", target).env("CARGO_PROFILE_DEV_DEBUG", "false");
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run(false, false)?;
    let known = library_crates()?;
    if let Some(unknown) = arguments.crates.iter().find(|name| !known.contains(name)) {
        bail!("there is no library crate `{unknown}`; the crates are {}", known.join(", "));
    }
    let chosen = if arguments.crates.is_empty() { &known } else { &arguments.crates };
    let temporary = arguments.folder.is_none().then(|| TemporaryFolder::new("mm-outside")).transpose()?;
    let folder = temporary.as_ref().map(TemporaryFolder::path).or(arguments.folder.as_deref());
    let folder = std::path::absolute(folder.unwrap_or(Path::new("."))).context("--folder")?;
    let mut outcomes = Vec::new();
    for name in chosen {
        let project = folder.join(name);
        let target = arguments.shared_target.then(|| folder.join(TARGET));
        let outcome = try_crate(name, &project, target.as_deref(), arguments.list)
            .with_context(|| format!("{name} alone in {}", project.display()))?;
        if arguments.json {
            println!("{}", serde_json::to_string(&outcome)?);
        }
        outcomes.push(outcome);
    }
    if !arguments.json {
        print_table(&outcomes);
    }
    Ok(())
}

/// The library crates with a README example.
pub fn library_crates() -> Result<Vec<String>> {
    let folder = root().join("crates");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.join("README.md").exists() && path.join("src/lib.rs").exists() {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Makes the project of a crate, builds it, runs it and its (empty) tests.
fn try_crate(name: &str, project: &Path, target: Option<&Path>, list: bool) -> Result<Outcome> {
    let readme = root().join("crates").join(name).join("README.md");
    let text = std::fs::read_to_string(&readme).with_context(|| readme.display().to_string())?;
    write_project(project, &Page::new(&readme, &text).code_blocks())?;
    let (features, packages) = (features_of(name)?, count_packages(project)?);
    if list {
        return Ok(Outcome { name: name.to_owned(), features, packages, seconds: None });
    }
    project::set_up(project, &setup::request(false, false))?;
    eprintln!("xtask: {name}: {packages} packages in {}", project.display());
    // The example of mm-cli is a whole program.
    let run: &[&str] = if name == "mm-cli" { &["run", "--", "--version"] } else { &["run"] };
    let mut seconds = [0.0; 3];
    for (seconds, step) in seconds.iter_mut().zip([&["build"], run, &["test"]]) {
        let start = Instant::now();
        let mut command = cargo(project);
        if let Some(target) = target {
            share_target(&mut command, target);
        }
        let output = command.args(step).output().context("cargo cannot be started")?;
        *seconds = start.elapsed().as_secs_f64();
        if !output.status.success() {
            bail!("`cargo {}` failed:\n{}", step.join(" "), String::from_utf8_lossy(&output.stderr).trim_end());
        }
        if step[0] == "run" {
            eprint!("{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    Ok(Outcome { name: name.to_owned(), features, packages, seconds: Some(seconds) })
}

/// A project with the README's dependencies and its first complete program.
fn write_project(project: &Path, blocks: &[CodeBlock]) -> Result<()> {
    let block = |language: &str| {
        let found = blocks.iter().find(|b| b.info.first().is_some_and(|info| info.split(',').next() == Some(language)));
        found.with_context(|| format!("its README has no `{language}` block"))
    };
    let is_empty = std::fs::read_dir(project).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty && !project.join(MARKER).exists() {
        bail!("{} holds files that are not those of this command; name another --folder", project.display());
    }
    let mut manifest: toml::Table = block("toml")?.text.parse().context("the `toml` block of its README")?;
    let dependencies = manifest.get_mut("dependencies").and_then(toml::Value::as_table_mut);
    for (name, dependency) in dependencies.context("the `toml` block of its README has no [dependencies]")? {
        let folder = root().join("crates").join(name);
        if folder.is_dir() {
            let mut table = dependency.as_table().cloned().unwrap_or_default();
            table.remove("version");
            table.insert("path".into(), folder.display().to_string().into());
            *dependency = table.into();
        }
    }
    let package = toml::toml! { name = "outside"
    version = "0.1.0"
    edition = "2024"
    publish = false };
    manifest.insert("package".into(), package.into());
    // A workspace of its own, wherever the folder is.
    manifest.insert("workspace".into(), toml::Table::new().into());
    let lock = std::fs::read_to_string(root().join("Cargo.lock"))?;
    let files = [
        (MARKER, String::new()),
        ("Cargo.toml", manifest.to_string()),
        ("src/main.rs", block("rust")?.text.clone()),
        // The same versions as in the workspace.
        ("Cargo.lock", lock),
    ];
    for (name, text) in files {
        let path = project.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(project))?;
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// cargo in a project, without the variables of this process.
fn cargo(project: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let kept = KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.current_dir(project).env_clear().envs(kept);
    command
}

/// Packages that cargo compiles for a project, its own left out.
fn count_packages(project: &Path) -> Result<usize> {
    let arguments = ["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let output = cargo(project).args(arguments).output().context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("`cargo tree` failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let packages: BTreeSet<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    Ok(packages.len().saturating_sub(1))
}

/// The features of a crate that a user chooses from.
fn features_of(name: &str) -> Result<Vec<String>> {
    let file = root().join("crates").join(name).join("Cargo.toml");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let manifest: toml::Table = text.parse().with_context(|| file.display().to_string())?;
    let features = manifest.get("features").and_then(toml::Value::as_table);
    let common = ["default", "full", "download-libtorch", "doc-only"];
    Ok(features.into_iter().flat_map(toml::Table::keys).filter(|f| !common.contains(&f.as_str())).cloned().collect())
}

fn print_table(outcomes: &[Outcome]) {
    println!("| crate | features | packages | build | run | test |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for Outcome { name, features, packages, seconds } in outcomes {
        let features: Vec<String> = features.iter().map(|feature| format!("`{feature}`")).collect();
        let seconds = match seconds {
            Some(seconds) => seconds.map(|s| format!("{s:.0} s")).join(" | "),
            None => " | | ".into(),
        };
        println!("| {name} | {} | {packages} | {seconds} |", features.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_the_readmes_program_and_paths_into_the_workspace() {
        let readme = "# x\n\n```toml\n[dependencies]\nmm-core = { version = \"0.1\", features = [\"config\"] }\nserde_json = \"1\"\n```\n\n\
                      ```rust\nfn main() {}\n```\n\n```rust,no_run\nfn other() {}\n```\n";
        let blocks = Page::new(Path::new("README.md"), readme).code_blocks();
        let folder = tempfile::tempdir().unwrap();
        write_project(folder.path(), &blocks).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("src/main.rs")).unwrap().trim(), "fn main() {}");
        let manifest =
            std::fs::read_to_string(folder.path().join("Cargo.toml")).unwrap().parse::<toml::Table>().unwrap();
        let core = manifest["dependencies"]["mm-core"].as_table().unwrap();
        assert!(core["path"].as_str().unwrap().ends_with("crates/mm-core") && !core.contains_key("version"));
        assert_eq!(core["features"].as_array().map(Vec::len), Some(1));
        assert_eq!(manifest["dependencies"]["serde_json"].as_str(), Some("1"));
        // A second run writes the same folder; one with other files is left alone.
        write_project(folder.path(), &blocks).unwrap();
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("Cargo.toml"), "mine").unwrap();
        assert!(write_project(other.path(), &blocks).unwrap_err().to_string().contains("name another --folder"));
        assert_eq!(std::fs::read(other.path().join("Cargo.toml")).unwrap(), b"mine");
        assert!(write_project(folder.path(), &blocks[1..]).unwrap_err().to_string().contains("toml"));
    }

    #[test]
    fn every_library_crate_states_its_dependencies_and_an_example() {
        let crates = library_crates().unwrap();
        assert!(crates.len() >= 11, "{crates:?}");
        for name in crates {
            let readme = std::fs::read_to_string(root().join("crates").join(&name).join("README.md")).unwrap();
            let blocks = Page::new(Path::new("README.md"), &readme).code_blocks();
            let folder = tempfile::tempdir().unwrap();
            write_project(folder.path(), &blocks).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            let program = std::fs::read_to_string(folder.path().join("src/main.rs")).unwrap();
            assert!(program.contains("fn main()"), "{name}");
        }
    }
}
