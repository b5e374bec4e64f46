//! Runs that are killed or interrupted, and resumed.

use crate::common::Workspace;
use mm_core::Checkpoint;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) fn tensors(run: &Path) -> Vec<(String, Vec<u8>)> {
    let checkpoint = Checkpoint::open(run.join("checkpoints/last.safetensors")).unwrap();
    checkpoint.names().map(|n| (n.to_owned(), checkpoint.get(n).unwrap().to_bytes().unwrap())).collect()
}

fn start(workspace: &Workspace, run: &str, more: &[&str]) -> std::process::Child {
    let arguments = [
        &[
            "train",
            "config.toml",
            "--out",
            run,
            "--device",
            "cpu",
            "--threads",
            "1",
            "--set",
            "train.epochs=12",
            "--set",
            "train.save_every_steps=1",
            "--set",
            "train.keep_last=2",
        ],
        more,
    ]
    .concat();
    Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(arguments)
        .current_dir(workspace.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the run has logged some steps.
pub fn wait_for_steps(run: &Path, steps: usize) {
    let begun = Instant::now();
    while std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |t| t.lines().count()) < steps {
        assert!(begun.elapsed() < Duration::from_secs(60), "found no steps after a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_and_resumed_run_ends_with_the_same_weights() {
    let workspace = Workspace::new();
    // The robust loss starts after its warm-up, in the middle of the run; its step count is part of the saved state.
    let robust =
        ["--set", "robust.kind=small_loss", "--set", "robust.noise_rate=0.3", "--set", "robust.warmup_steps=9"];
    assert!(start(&workspace, "whole", &robust).wait().unwrap().success());
    let run = workspace.path().join("killed");
    for (round, steps) in [3, 7, 11, 16].into_iter().enumerate() {
        let mut child =
            start(&workspace, "killed", &[&robust[..], if round == 0 { &[] } else { &["--resume"] }].concat());
        wait_for_steps(&run, steps);
        child.kill().unwrap(); // SIGKILL: no cleanup is possible
        child.wait().unwrap();
        // The checkpoint loads at any instant.
        if run.join("checkpoints/last.safetensors").exists() {
            tensors(&run);
        }
    }
    assert!(start(&workspace, "killed", &[&robust[..], &["--resume"]].concat()).wait().unwrap().success());
    let (whole, killed) = (tensors(&workspace.path().join("whole")), tensors(&run));
    assert_eq!(whole.len(), killed.len());
    for (a, b) in whole.iter().zip(&killed) {
        assert!(a == b, "{} differs", a.0);
    }
    // Each step is logged once.
    let steps = |run: &Path| {
        mm_train::Run::read_metrics(run)
            .unwrap()
            .into_iter()
            .filter(|m| m.split == "train")
            .map(|m| m.step)
            .collect::<Vec<_>>()
    };
    assert_eq!(steps(&run), (1..=24).collect::<Vec<_>>());
    assert_eq!(std::fs::read_dir(run.join("checkpoints")).unwrap().count(), 4);
}

#[test]
fn ctrl_c_saves_a_checkpoint_and_exits_with_130() {
    let workspace = Workspace::new();
    let mut child = start(&workspace, "run", &["--set", "train.epochs=400", "--set", "train.save_every_steps=0"]);
    wait_for_steps(&workspace.path().join("run"), 4);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let (_, saved) = mm_train::Run::open_checkpoint(&workspace.path().join("run"), "last").unwrap();
    assert!(saved.step >= 4 && !saved.finished);
    assert!(!workspace.path().join("run/checkpoints/best.safetensors").exists());
    // A run that was stopped before its first evaluation is used with its last weights.
    for arguments in [&["eval", "--model", "run", "--json"][..], &["embed", "--model", "run", "--text", "a dog"]] {
        let output = crate::common::mm(arguments, workspace.path());
        assert!(output.status.success(), "{}", crate::common::text(&output));
    }
    crate::common::mm(
        &["embed", "--model", "run", "--data", "data.jsonl", "--modality", "text", "--out", "v.npy"],
        workspace.path(),
    );
    assert!(workspace.path().join("v.npy").exists());
}
