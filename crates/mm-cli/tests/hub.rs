//! Set-up of a project, pipelines, and what is fetched: through the program, bad input above all.
#![allow(missing_docs)]

mod common;

use common::{assert_refused, text};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Runs mm in a folder with these variables; an empty one is removed.
fn mm_with(arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mm"));
    command.args(arguments).current_dir(folder);
    for (name, value) in variables {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    command.output().unwrap()
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn write(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

const MANIFEST: &str = "[package]\nname = \"a\"\nversion = \"0.1.0\"\n";

#[test]
fn a_project_that_cannot_be_set_up_is_not_changed() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name).display().to_string();
    write(top.path(), "empty/readme", "");
    write(top.path(), "good/Cargo.toml", MANIFEST);
    write(top.path(), "elsewhere/Cargo.toml", MANIFEST);
    write(top.path(), "elsewhere/.cargo/config.toml", "[env]\nLIBTORCH = \"/opt/torch\"\n");
    write(top.path(), "old/lib/libtorch_cpu.so", "");
    write(top.path(), "old/build-version", "2.10.0+cpu\n");
    let (old, none, cache) = (at("old"), at("empty"), at("cache"));
    let offline: &[(&str, &str)] = &[("LIBTORCH", ""), ("MM_OFFLINE", "1"), ("XDG_CACHE_HOME", &cache)];
    let cases: [(&str, &[(&str, &str)], &str); 6] = [
        ("nowhere", offline, "no such folder"),
        ("empty", offline, "no Cargo.toml in it"),
        ("elsewhere", offline, "it sets LIBTORCH to /opt/torch (no libtorch), and mm needs libtorch 2.11.0"),
        ("good", &[("LIBTORCH", old.as_str())], "has version 2.10.0+cpu, expected 2.11.0"),
        ("good", &[("LIBTORCH", none.as_str())], "does not contain lib/libtorch_cpu.so"),
        ("good", offline, "MM_OFFLINE=1 forbids downloads"),
    ];
    for (project, variables, wanted) in cases {
        let before = contents(top.path());
        let arguments = ["setup", "--project", project];
        let output = mm_with(&arguments, top.path(), variables);
        assert_refused(&output, &arguments, &[wanted]);
        let mut after = contents(top.path());
        after.retain(|path, _| !path.starts_with(&cache));
        assert_eq!(after, before, "{project}");
    }
}

#[test]
fn a_project_is_set_up_and_keeps_what_its_settings_say() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    write(top.path(), "torch/lib/libtorch_cpu.so", "");
    write(top.path(), "torch/build-version", "2.11.0+cpu\n");
    write(top.path(), "project/Cargo.toml", MANIFEST);
    write(top.path(), "project/.cargo/config.toml", "[alias]\nb = \"build\" # mine\n");
    let libtorch = at("torch").display().to_string();
    let run = || {
        let output = mm_with(&["setup", "--project", "project", "--json"], top.path(), &[("LIBTORCH", &libtorch)]);
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let first = run();
    assert_eq!((&first["changed"], &first["libtorch"]), (&Value::Bool(true), &Value::from(libtorch.clone())));
    let settings = fs::read_to_string(at("project/.cargo/config.toml")).unwrap();
    assert!(
        settings.contains("b = \"build\" # mine") && settings.contains(&format!("-rpath,{libtorch}/lib")),
        "{settings}"
    );
    assert_eq!(run()["changed"], false);
    assert_eq!(fs::read_to_string(at("project/.cargo/config.toml")).unwrap(), settings);
}

const PIPELINE: &str = r#"
about = "two steps"
vars = { run = "runs/list.txt" }
[[step]]
name = "models"
mm = ["models", "list", "--json"]
[[step]]
name = "list"
run = ["sh", "-c", "echo $GOMP_SPINCOUNT > ${run}"]
outputs = ["${run}"]
"#;

#[test]
fn a_pipeline_runs_from_anywhere_and_repeats_nothing() {
    let (project, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(project.path(), "p.toml", PIPELINE);
    let file = project.path().join("p.toml").display().to_string();
    let run = |more: &[&str], variables: &[(&str, &str)]| {
        let output = mm_with(&[&["run", file.as_str(), "--json"], more].concat(), elsewhere.path(), variables);
        assert!(output.status.success(), "{}", text(&output));
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap()["state"].as_str().unwrap().to_owned();
        lines.lines().map(parse).collect::<Vec<_>>()
    };
    assert_eq!(run(&["--dry-run"], &[]), ["would_run", "would_run"]);
    // libtorch's threads wait without computing, unless the user says how they wait.
    let unset = [("GOMP_SPINCOUNT", ""), ("OMP_WAIT_POLICY", "")];
    assert_eq!(run(&[], &unset), ["done", "done"]);
    let list = || fs::read_to_string(project.path().join("runs/list.txt")).unwrap();
    assert_eq!(list(), "1000\n");
    assert_eq!(run(&[], &unset), ["skipped", "skipped"]);
    assert_eq!(run(&["--force"], &[("GOMP_SPINCOUNT", "7")]), ["done", "done"]);
    assert_eq!(list(), "7\n");
    assert!(fs::read_dir(elsewhere.path()).unwrap().next().is_none());
}

#[test]
fn wrong_pipelines_and_names_are_refused() {
    let project = tempfile::tempdir().unwrap();
    write(project.path(), "p.toml", PIPELINE);
    let cycle = "about = \"c\"\n[[step]]\nname = \"a\"\ndepends = [\"b\"]\nrun = [\"true\"]\n[[step]]\nname = \"b\"\ndepends = [\"a\"]\nrun = [\"true\"]\n";
    write(project.path(), "cycle.toml", cycle);
    let before = contents(project.path());
    let cases: [(&[&str], &str); 9] = [
        (&["run", "none.toml"], "none.toml cannot be read"),
        (&["run", "cycle.toml"], "steps wait for each other: `a` → `b` → `a`"),
        (&["run", "p.toml", "--set", "run=."], "does not lie below the pipeline's output folder"),
        (&["run", "p.toml", "--set", "run=p.toml"], "does not lie below the pipeline's output folder"),
        (&["run", "p.toml", "--from", "modles"], "no such step; the steps are models, list"),
        (&["run", "p.toml", "--jobs", "0"], "expected a whole number from 1 to 256"),
        (&["models", "pull", "all-minilm"], "did you mean `all-MiniLM-L6-v2`"),
        (&["data", "fetch", "emojis"], "did you mean `emoji`"),
        (&["models", "pull", "../etc/passwd"], "not a name of the hub"),
    ];
    for (arguments, wanted) in cases {
        let output = mm_with(arguments, project.path(), &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)) && stderr.contains(wanted), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert_eq!(contents(project.path()), before, "{arguments:?}");
    }
}
