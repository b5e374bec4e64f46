//! `cargo xtask fuzz`: builds the fuzz targets of `xtask/fuzz` with libFuzzer's instrumentation and runs them.

use crate::{cargo::cargo, paths::root, setup};
use anyhow::{Context, Result, bail};
use mm_hub::paths::cache;
use std::{
    collections::VecDeque,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The target; all of them if absent. `list` prints the names.
    pub target: Option<String>,
    /// Seconds for each target.
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// Number of targets that run at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
}

/// What `cargo fuzz --sanitizer none` passes to rustc on Linux: counters for every edge, a table of their addresses,
/// and the operands of comparisons.
const INSTRUMENTATION: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Limits on one input: seconds, MB of memory in all, bytes. The fuzz binary itself limits single allocations.
const LIMITS: [&str; 3] = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"];

/// Runs the targets and prints a line for each.
///
/// # Errors
/// If one of them has a finding, with the path of the input that reproduces it.
pub fn run(arguments: &Arguments) -> Result<()> {
    let known = targets(&root())?;
    if arguments.target.as_deref() == Some("list") {
        known.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    let selected = select(known, arguments.target.as_deref())?;
    setup::run(false, false)?;
    let binary = build()?;
    let (queue, findings) = (Mutex::new(VecDeque::from(selected)), Mutex::new(Vec::new()));
    let next = || queue.lock().ok().and_then(|mut q| q.pop_front());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let finding = match fuzz(&binary, &target, arguments.seconds) {
                        Ok(outcome) => {
                            println!("{target:16} {outcome}");
                            outcome.finding.map(|path| format!("{target}: {path}"))
                        }
                        Err(error) => Some(format!("{target}: {error:#}")),
                    };
                    findings.lock().into_iter().for_each(|mut all| all.extend(finding.clone()));
                }
            });
        }
    });
    let findings = findings.into_inner().unwrap_or_default();
    if !findings.is_empty() {
        bail!(
            "{} targets have a finding:\n{}\nRun one again: MM_FUZZ_TARGET=TARGET {} FILE",
            findings.len(),
            findings.join("\n"),
            binary.display()
        );
    }
    Ok(())
}

/// The names of all targets: each has a folder of its corpus.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("xtask/fuzz/corpus");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let folders = entries.filter_map(|e| e.ok().filter(|e| e.path().is_dir()));
    let mut names: Vec<String> = folders.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The target of that name, or all.
fn select(known: Vec<String>, wanted: Option<&str>) -> Result<Vec<String>> {
    let Some(wanted) = wanted else { return Ok(known) };
    if !known.iter().any(|name| name == wanted) {
        bail!("unknown fuzz target `{wanted}`; the targets are {}", known.join(", "));
    }
    Ok(vec![wanted.to_owned()])
}

/// Builds the binary that holds all targets, in a target folder of its own, and returns its path.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let folder = root().join("target/fuzz");
    let flags: Vec<String> =
        INSTRUMENTATION.iter().map(|f| (*f).to_owned()).chain(libtorch_flags(&setup::cargo_settings())?).collect();
    eprintln!("building the fuzz targets (a quarter of an hour the first time) …");
    // With --target, build scripts and procedural macros are not instrumented. The flags replace those of the settings
    // files.
    let mut command = cargo();
    command
        .args(["build", "--profile", "fuzz", "--package", "mm-fuzz", "--bin", "fuzz", "--features", "libfuzzer"])
        .args(["--target", &host, "--target-dir"])
        .arg(&folder)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    if !command.status()?.success() {
        bail!("the fuzz targets could not be built");
    }
    Ok(folder.join(host).join("fuzz/fuzz"))
}

/// The triple of this machine.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc -vV states no host")?;
    Ok(host.to_owned())
}

/// The flags for rustc in the settings that setup wrote: where binaries find libtorch.
fn libtorch_flags(settings: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(settings).with_context(|| settings.display().to_string())?;
    let value: toml::Table = toml::from_str(&text).with_context(|| settings.display().to_string())?;
    let tables = value.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|t| t.values());
    let flags = tables.filter_map(|t| t.get("rustflags")?.as_array()).flatten();
    Ok(flags.filter_map(|f| f.as_str().map(ToOwned::to_owned)).collect())
}

/// How the fuzzing of one target ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    executions: u64,
    /// Edges of the program that some input reached.
    edges: u64,
    /// Inputs that reach different parts of the program.
    inputs: u64,
    /// Path of the input that shows the finding.
    finding: Option<String>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { executions, edges, inputs, finding } = self;
        write!(f, "{executions:>10} executions {edges:>7} edges {inputs:>6} inputs  ")?;
        f.write_str(finding.as_deref().unwrap_or("no finding"))
    }
}

/// Runs one target on the corpus inputs and those found by earlier runs, which lie in the cache.
fn fuzz(binary: &Path, target: &str, seconds: u32) -> Result<Outcome> {
    let folder = cache().join("fuzz");
    let (found, findings) = (folder.join(target), folder.join("findings"));
    // Inputs that name files are written below it.
    let scratch = Path::new("/dev/shm").is_dir().then_some("/dev/shm").map_or_else(std::env::temp_dir, PathBuf::from);
    let scratch = scratch.join(format!("mm-fuzz-{target}-{}", std::process::id()));
    for folder in [&found, &findings, &scratch] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let log = folder.join(format!("{target}.log"));
    let status = Command::new(binary)
        .arg(&found)
        .arg(root().join("xtask/fuzz/corpus").join(target))
        .args(LIMITS)
        .args([format!("-max_total_time={seconds}"), format!("-artifact_prefix={}/{target}-", findings.display())])
        .args(["-print_final_stats=1", "-reload=0"])
        .envs([("MM_FUZZ_TARGET", target), ("OMP_NUM_THREADS", "1"), ("RAYON_NUM_THREADS", "1")])
        .env("TMPDIR", &scratch)
        .current_dir(root())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .status()
        .with_context(|| format!("{} cannot be run", binary.display()))?;
    let _ = std::fs::remove_dir_all(&scratch);
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let mut outcome = parse_log(&text);
    if !status.success() && outcome.finding.is_none() {
        outcome.finding = Some(format!("{status}, see {}", log.display()));
    }
    Ok(outcome)
}

/// Reads libFuzzer's log.
fn parse_log(text: &str) -> Outcome {
    let number = |word: &str| word.split('/').next().and_then(|n| n.parse().ok());
    let last = |key: &str| {
        text.lines().rev().filter(|l| l.starts_with('#')).find_map(|line| {
            let mut words = line.split_whitespace();
            words.find(|w| *w == key)?;
            number(words.next()?)
        })
    };
    let at = |line: &str| line.strip_prefix('#')?.split_whitespace().next().and_then(number);
    let stated = |line: &str| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    let executions = text.lines().find_map(stated).or_else(|| text.lines().rev().find_map(at));
    let finding = text.lines().find_map(|l| l.split_once("Test unit written to ")).map(|(_, path)| path.to_owned());
    Outcome {
        executions: executions.unwrap_or(0),
        edges: last("cov:").unwrap_or(0),
        inputs: last("corp:").unwrap_or(0),
        finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn arguments_are_checked_and_unknown_targets_are_refused_with_the_known_ones() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["fuzz"], words].concat()).map(|c| c.arguments);
        let default = parse(&[]).unwrap();
        assert_eq!((default.target, default.seconds, default.jobs), (None, 600, 1));
        let given = parse(&["image", "--seconds", "30", "--jobs", "2"]).unwrap();
        assert_eq!((given.target.as_deref(), given.seconds, given.jobs), (Some("image"), 30, 2));
        for wrong in [&["--seconds", "0"][..], &["--jobs", "0"], &["--seconds", "-1"], &["image", "svg"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        let known = targets(&root()).unwrap();
        assert!(known.iter().any(|n| n == "image") && known.len() >= 17, "{known:?}");
        assert_eq!(select(known.clone(), None).unwrap(), known);
        assert_eq!(select(known.clone(), Some("npy")).unwrap(), ["npy"]);
        let text = select(known, Some("nyp")).unwrap_err().to_string();
        assert!(text.contains("`nyp`") && text.contains("npy, "), "{text}");
    }

    #[test]
    fn the_log_of_libfuzzer_is_read() {
        let done = "#2\tINITED cov: 10 ft: 20 corp: 1/3b exec/s: 0 rss: 30Mb\n\
                    #500\tNEW    cov: 33 ft: 44 corp: 7/90Kb lim: 4 exec/s: 100 rss: 40Mb L: 3/4 MS: 1 ChangeByte-\n\
                    #900\tDONE   cov: 35 ft: 50 corp: 9/99Kb lim: 4 exec/s: 100 rss: 40Mb\n\
                    stat::number_of_executed_units: 900\n";
        assert_eq!(parse_log(done), Outcome { executions: 900, edges: 35, inputs: 9, finding: None });
        let crash = "#500\tpulse  cov: 33 ft: 44 corp: 7/90b exec/s: 100\n==1== ERROR: libFuzzer: deadly signal\n\
                     artifact_prefix='/c/'; Test unit written to /c/npy-crash-ab\n";
        let outcome = parse_log(crash);
        assert_eq!((outcome.executions, outcome.edges), (500, 33));
        assert_eq!(outcome.finding.as_deref(), Some("/c/npy-crash-ab"));
    }

    #[test]
    fn the_flags_of_the_settings_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libtorch.toml");
        let text = "[target.'cfg(target_os = \"linux\")']\nrustflags = [\"-C\", \"link-arg=-Wl,-rpath,/a b/lib\"]\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(libtorch_flags(&file).unwrap(), ["-C", "link-arg=-Wl,-rpath,/a b/lib"]);
    }
}
