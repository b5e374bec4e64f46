//! Prediction from tables: `mm fit`, `mm predict`, `mm eval`, and `mm train` with `task = "prediction"`.

mod attribution;
mod ensembling;
mod errors;
mod fit;
mod fusion;
mod mixing;
mod problems;
mod refit;
mod sequences;

use crate::{common::assert_refused, json};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs mm with a cache of its own: downloaded models would change which encoders `mm fit` chooses.
fn mm(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(arguments)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("HF_HUB_CACHE", folder.join("hub"))
        .output()
        .unwrap()
}

/// Runs mm on bad input: see [`assert_refused`].
fn refused(arguments: &[&str], folder: &Path, wanted: &[&str]) {
    assert_refused(&mm(arguments, folder), arguments, wanted);
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON of `mm eval --model run`.
fn evaluate(run: &str, more: &[&str], folder: &Path) -> Value {
    json(&mm(&[&["eval", "--model", run, "--json"], more].concat(), folder))
}

/// Asserts that the attributions of a report highlight the words that determine the label, and that they sum up to
/// nearly the whole difference between score and baseline.
fn assert_attributions_are_complete(report: &Path, is_highlighted: impl Fn(&str) -> bool) {
    let page = std::fs::read_to_string(report).unwrap();
    let attributions = page.split("<h2>Attributions").nth(1).unwrap();
    assert!(is_highlighted(attributions), "{attributions}");
    let error = attributions.split("Median completeness error: ").nth(1).unwrap();
    let error: f64 = error.split(" %").next().unwrap().trim().parse().unwrap();
    assert!(error < 10.0, "{error}");
}

/// Settings for the `easy` label of [`exclusive_or`], which `left` alone determines; the other modality is noise.
const EASY: [&str; 6] = [
    "--set",
    "label=\"easy\"",
    "--set",
    "data.columns.modalities={left=\"left\",noise=\"noise\"}",
    "--set",
    "inputs={left={encoder={kind=\"vector\",dim=2}},noise={encoder={kind=\"vector\",dim=2}}}",
];

/// A data set and its config, `xor.toml`, in which the label is the exclusive or of two modalities: each alone is
/// uninformative.
fn exclusive_or(folder: &Path) {
    let mut lines = String::new();
    for row in 0..600u64 {
        let bits = row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let (a, b) = (bits & 1 == 1, bits >> 1 & 1 == 1);
        let spread = |n: u64| (bits >> (2 + 5 * n) & 31) as f64 / 31.0 - 0.5;
        let sign = |s: bool| if s { 1.0 } else { -1.0 };
        let line = json!({
            "left": [sign(a) + 0.5 * spread(0), spread(1)],
            "right": [sign(b) + 0.5 * spread(2), spread(3)],
            "noise": [spread(4) * 4.0, spread(5) * 4.0],
            "easy": a.to_string(),
            "label": (a ^ b).to_string(),
            "split": if row < 400 { "train" } else { "test" },
        });
        lines.push_str(&format!("{line}\n"));
    }
    std::fs::write(folder.join("xor.jsonl"), lines).unwrap();
    let config = r#"
task = "prediction"
label = "label"
ensembling = "none"
[data]
manifest = "xor.jsonl"
[data.columns.modalities]
left = "left"
right = "right"
[data.split]
column = "split"
[inputs.left]
encoder = { kind = "vector", dim = 2 }
[inputs.right]
encoder = { kind = "vector", dim = 2 }
[fusion]
dim = 16
project = false
operator = { kind = "concat" }
[loss]
unimodal_weight = 0.0
[train]
epochs = 25
[train.optimizer]
lr = 1e-2
"#;
    std::fs::write(folder.join("xor.toml"), config).unwrap();
}
