//! Pipelines: lists of steps, each with declared inputs and outputs. A step whose inputs, parameters and program have
//! not changed is skipped.

mod file;
mod state;

use crate::{
    cargo::cargo,
    paths::{self, cache, root},
    registry::{self, Kind},
};
use anyhow::{Context, Result, bail};
use file::{Pipeline, Step, parse};
use sha2::{Digest, Sha256};
use state::State;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The pipeline file.
    pub pipeline: PathBuf,
    #[command(flatten)]
    pub options: Options,
}

#[derive(clap::Args, Clone, Default)]
pub struct Options {
    /// Set a value of the pipeline: `vars.NAME=VALUE`, `NAME=VALUE` or `STEP.KEY=VALUE`; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Number of seeds to train (short for --set vars.seeds=N).
    #[arg(long)]
    pub seeds: Option<u64>,
    /// Run this step and all after it, even where nothing changed.
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Print which steps would run, and run none.
    #[arg(long)]
    pub dry_run: bool,
    /// Run every step, even where nothing changed.
    #[arg(long)]
    pub force: bool,
}

fn load(arguments: &Arguments) -> Result<Pipeline> {
    let file = root().join(&arguments.pipeline);
    let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let seeds = arguments.options.seeds.map(|n| format!("vars.seeds={n}"));
    let overrides: Vec<&str> = arguments.options.overrides.iter().chain(&seeds).map(String::as_str).collect();
    let folder = file.parent().unwrap_or(Path::new("."));
    let built_in = [("cache", cache().display().to_string()), ("here", folder.display().to_string())];
    parse(&text, &overrides, &built_in).map_err(|e| anyhow::anyhow!("{}: {e:#}", file.display()))
}

/// A digest of files and folders: of the contents of small files, of the sizes and modification times of large ones.
fn digest(paths: &[String]) -> String {
    fn add(path: &Path, hasher: &mut Sha256) {
        hasher.update(path.display().to_string());
        let Ok(metadata) = std::fs::metadata(path) else {
            hasher.update(b"missing");
            return;
        };
        if metadata.is_dir() {
            let mut entries: Vec<PathBuf> =
                std::fs::read_dir(path).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path())).collect();
            entries.sort();
            entries.iter().for_each(|e| add(e, hasher));
        } else if metadata.len() < 1 << 20 {
            // A clone or a `touch` changes only the modification time.
            hasher.update(std::fs::read(path).unwrap_or_default());
        } else {
            let modified = metadata
                .modified()
                .ok()
                .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
                .map_or(0, |d| d.as_nanos());
            hasher.update(metadata.len().to_le_bytes());
            hasher.update(modified.to_le_bytes());
        }
    }
    let mut hasher = Sha256::new();
    paths.iter().for_each(|p| add(&root().join(p), &mut hasher));
    hex(hasher)
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Waits until no other process runs the pipeline, and keeps others out as long as the file is open.
fn lock(pipeline: &Path) -> Result<File> {
    let path = state::state_file(pipeline).with_extension("lock");
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    paths::lock(&path, "another process runs this pipeline; waiting for it …")
}

/// The files and folders that a pipeline writes.
pub fn outputs(arguments: &Arguments) -> Result<Vec<String>> {
    Ok(load(arguments)?.steps.into_iter().flat_map(|step| step.outputs).collect())
}

/// Runs a pipeline.
pub fn run(arguments: &Arguments) -> Result<()> {
    let pipeline = load(arguments)?;
    let options = &arguments.options;
    if let Some(from) = &options.from
        && !pipeline.steps.iter().any(|s| s.name == *from)
    {
        bail!(
            "--from {from}: no such step; the steps are {}",
            pipeline.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ")
        );
    }
    eprintln!("{}", pipeline.about);
    let _lock = if options.dry_run { None } else { Some(lock(&arguments.pipeline)?) };
    let mut state = State::open(&arguments.pipeline);
    let needs_mm = pipeline.steps.iter().any(|s| s.mm.is_some());
    let program = if needs_mm && !options.dry_run { Some(build()?) } else { None };
    let program_key = digest(&[root().join("target/release/mm").display().to_string()]);
    let mut forced = options.force;
    let count = pipeline.steps.len();
    for (number, step) in pipeline.steps.iter().enumerate() {
        forced |= options.from.as_ref() == Some(&step.name);
        let mut hasher = Sha256::new();
        hasher.update(format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            step.fetch, step.pull, step.mm, step.run, step.inputs, step.outputs
        ));
        hasher.update(digest(&step.inputs));
        if step.mm.is_some() {
            hasher.update(&program_key);
        }
        let key = hex(hasher);
        let outputs_exist = step.outputs.iter().all(|o| root().join(o).exists());
        let title = format!("[{}/{count}] {}", number + 1, step.name);
        if !forced && outputs_exist && state.is_complete(&step.name, &key) {
            eprintln!("{title}: nothing changed, skipped");
            continue;
        }
        if options.dry_run {
            eprintln!("{title}: would run");
            continue;
        }
        eprintln!("{title} …");
        let start = Instant::now();
        if step.fresh {
            let pipeline = root().join(&arguments.pipeline);
            state.delete_outputs(&step.outputs, &pipeline).with_context(|| format!("step `{}`", step.name))?;
        }
        state.record_outputs(&step.outputs)?;
        run_step(step, program.as_deref()).with_context(|| {
            format!(
                "step `{}` failed; the {number} steps before it are complete. Run again to continue, or with --from to repeat one",
                step.name
            )
        })?;
        if let Some(missing) = step.outputs.iter().find(|o| !root().join(o).exists()) {
            bail!("step `{}` succeeded but did not write {missing}, one of its outputs", step.name);
        }
        eprintln!("{title}: {:.1} s", start.elapsed().as_secs_f64());
        state.complete(&step.name, key)?;
    }
    Ok(())
}

/// Builds `mm` and returns the path of its binary.
fn build() -> Result<PathBuf> {
    eprintln!("building mm (minutes the first time) …");
    let status = cargo().args(["build", "--release", "--package", "mm-cli"]).status()?;
    if !status.success() {
        bail!("mm could not be built; `cargo xtask doctor` checks for the usual causes");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/mm"))
}

fn run_step(step: &Step, mm: Option<&Path>) -> Result<()> {
    if let Some(name) = &step.fetch {
        return registry::fetch(Kind::Data, name).map(drop);
    }
    if let Some(name) = &step.pull {
        return registry::fetch(Kind::Models, name).map(drop);
    }
    let mut command = match (&step.mm, &step.run, mm) {
        (Some(arguments), _, Some(mm)) => {
            let mut command = Command::new(mm);
            command.args(arguments);
            command
        }
        (_, Some(words), _) => {
            let (program, arguments) = words.split_first().context("run: an empty list")?;
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        _ => bail!("nothing to run"),
    };
    let status = command
        .current_dir(root())
        .status()
        .with_context(|| format!("{} cannot be run", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("it exited with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(folder: &Path) -> PathBuf {
        let file = folder.join("p.toml");
        let text = r#"
about = "two steps"
vars = { word = "one" }
[[step]]
name = "first"
run = ["sh", "-c", "echo ${word} >> ${here}/a; cp ${here}/a ${here}/out1"]
outputs = ["${here}/out1"]
[[step]]
name = "second"
run = ["sh", "-c", "test -f ${here}/allow && cp ${here}/out1 ${here}/out2"]
inputs = ["${here}/out1"]
outputs = ["${here}/out2"]
"#;
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_failed_step_is_named_and_completed_steps_are_skipped_until_something_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = pipeline(folder.path());
        let run_with = |options: Options| run(&Arguments { pipeline: file.clone(), options });
        let lines = || std::fs::read_to_string(folder.path().join("a")).unwrap().lines().count();
        let text = format!("{:#}", run_with(Options::default()).unwrap_err());
        assert!(text.contains("step `second` failed"), "{text}");
        std::fs::write(folder.path().join("allow"), "").unwrap();
        run_with(Options::default()).unwrap();
        assert_eq!(lines(), 1, "the first step was run again");
        run_with(Options::default()).unwrap();
        run_with(Options { dry_run: true, force: true, ..Options::default() }).unwrap();
        assert_eq!(lines(), 1);
        run_with(Options { overrides: vec!["word=two".into()], ..Options::default() }).unwrap();
        assert_eq!(lines(), 2);
        assert_eq!(std::fs::read_to_string(folder.path().join("out2")).unwrap(), "one\ntwo\n");
        run_with(Options { from: Some("second".into()), overrides: vec!["word=two".into()], ..Options::default() })
            .unwrap();
        assert_eq!(lines(), 2);
        assert!(run_with(Options { from: Some("third".into()), ..Options::default() }).is_err());
        assert!(
            run_with(Options { overrides: vec!["wird=two".into()], ..Options::default() })
                .unwrap_err()
                .to_string()
                .contains("no variable `wird`")
        );
        let _ = std::fs::remove_file(state::state_file(&file));
    }

    #[test]
    fn a_fresh_step_replaces_its_own_outputs_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fresh.toml");
        let text = r#"
about = "one step"
vars = { run = "out" }
[[step]]
name = "train"
run = ["sh", "-c", "mkdir ${here}/${run} && touch ${here}/${run}/model"]
outputs = ["${here}/${run}"]
fresh = true
"#;
        std::fs::write(&file, text).unwrap();
        let run_with = |more: &[&str]| {
            let overrides = more.iter().map(ToString::to_string).collect();
            run(&Arguments {
                pipeline: file.clone(),
                options: Options { overrides, force: true, ..Options::default() },
            })
        };
        run_with(&[]).unwrap();
        std::fs::write(folder.path().join("out/old"), "").unwrap();
        run_with(&[]).unwrap();
        assert!(folder.path().join("out/model").exists() && !folder.path().join("out/old").exists());
        std::fs::create_dir(folder.path().join("mine")).unwrap();
        std::fs::write(folder.path().join("mine/data"), "").unwrap();
        for output in ["mine", ".", "out/..", "../"] {
            let error = format!("{:#}", run_with(&[&format!("run={output}")]).unwrap_err());
            assert!(error.contains("step `train`: output"), "{output}: {error}");
        }
        assert!(folder.path().join("mine/data").exists() && file.exists());
        let _ = std::fs::remove_file(state::state_file(&file));
    }
}
