//! The program of the example: every command knows the modality, without a line of mm changed, and a model learns more
//! from it on held-out rows than a simple baseline.
#![allow(missing_docs)]

use mm_core::seed::Rng;
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Output},
};

fn ink(arguments: &[&str], folder: &Path) -> String {
    let all = [arguments, &["--device", "cpu", "--threads", "1"]].concat();
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_ink")).args(all).current_dir(folder).output().unwrap();
    assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

fn json_of(arguments: &[&str], folder: &Path) -> Value {
    serde_json::from_str(ink(&[arguments, &["--json"]].concat(), folder).lines().next().unwrap()).unwrap()
}

/// A zigzag of random size and place, or a spiral: both fill the same square.
fn drawing(rng: &mut Rng, is_spiral: bool) -> Value {
    let (turns, size) = (rng.uniform_range(2.0, 4.0), rng.uniform_range(50.0, 500.0));
    let point = |n: usize| {
        let share = n as f64 / 40.0;
        let angle = share * turns * std::f64::consts::TAU;
        if is_spiral {
            [size * (1.0 + share * angle.cos()), size * (1.0 + share * angle.sin())]
        } else {
            [size * (1.0 + angle.sin().signum()), size * 2.0 * share]
        }
    };
    json!([(0..=40).map(point).collect::<Vec<_>>()])
}

/// Drawings and what they were drawn with; every fifth row lacks its drawing, every seventh its tool. The tool does not
/// determine the shape.
fn write_table(folder: &Path) {
    let mut rng = Rng::new(&[3]);
    let mut text = String::new();
    for row in 0..200 {
        let is_spiral = row % 2 == 0;
        let drawing = drawing(&mut rng, is_spiral);
        let drawing = if row % 5 == 0 { Value::Null } else { drawing };
        let tool = if row / 2 % 2 == 0 { "pen" } else { "brush" };
        let tool = if row % 7 == 0 { Value::Null } else { json!(tool) };
        let shape = if is_spiral { "spiral" } else { "zigzag" };
        text += &(json!({"drawing": drawing, "tool": tool, "shape": shape}).to_string() + "\n");
    }
    std::fs::write(folder.join("drawings.jsonl"), text).unwrap();
}

const RETRIEVAL: &str = "task = \"retrieval\"\nembed_dim = 8\ncache_dir = \"cache\"\n\
    [data]\nmanifest = \"drawings.jsonl\"\ncolumns = { modalities = { ink = \"drawing\", text = \"shape\" } }\nsplit = { test = 0.2 }\n\
    [towers.ink]\nencoder = { kind = \"ink\", dim = 16 }\n\
    [towers.text]\nencoder = { kind = \"lstm\" }\n\
    [train]\nepochs = 1\n";

#[test]
fn a_table_is_fitted_predicted_evaluated_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_table(folder);
    let fit =
        ["fit", "--data", "drawings.jsonl", "--label-column", "shape", "--preset", "fast", "--test-fraction", "0.25"];
    let fitted = json_of(&[&fit[..], &["--out", "fit"]].concat(), folder);
    assert_eq!(fitted["columns"]["ink"], "drawing", "the column is recognized: {fitted}");
    let accuracy = |evaluation: &Value| {
        let metrics = evaluation["metrics"].as_array().unwrap();
        metrics.iter().find(|m| m["id"] == "accuracy").unwrap()["value"].as_f64().unwrap()
    };
    let whole = json_of(&["eval", "--model", "fit"], folder);
    let without = json_of(&["eval", "--model", "fit", "--exclude-modality", "ink"], folder);
    // A fifth of the rows has no drawing, and can only be guessed.
    assert!(accuracy(&whole) > 0.75, "{whole}");
    assert!(accuracy(&whole) > accuracy(&without) + 0.15, "{whole}\n{without}");
    let predicted = json_of(&["predict", "--model", "fit", "--data", "drawings.jsonl"], folder);
    assert!(predicted["present"].is_array(), "{predicted}");
    assert!(folder.join("fit/report.html").exists());
    let inspected = json_of(&["inspect", "drawings.jsonl"], folder);
    assert_eq!(inspected["modalities"]["ink"]["rows"], 160, "{inspected}");
}

#[test]
fn a_run_is_trained_embeds_and_is_searched() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_table(folder);
    std::fs::write(folder.join("retrieval.toml"), RETRIEVAL).unwrap();
    ink(&["train", "retrieval.toml", "--out", "run"], folder);
    let drawing = "ink=[[[0, 0], [5, 5], [9, 2]]]";
    let embedded = json_of(&["embed", "--model", "run", "--input", drawing], folder);
    assert_eq!((embedded["modality"].as_str(), embedded["embedding"].as_array().unwrap().len()), (Some("ink"), 8));
    std::fs::write(folder.join("one.json"), "[[[0, 0], [5, 5], [9, 2]]]").unwrap();
    let from_file = json_of(&["embed", "--model", "run", "--input", "ink=one.json"], folder);
    assert_eq!(from_file["embedding"], embedded["embedding"], "a value in a file is the same value");
    let found = json_of(&["search", "--model", "run", "--input", drawing, "--modality", "text", "--k", "1"], folder);
    assert_eq!(found["modality"], "text");
    let found = json_of(&["search", "--model", "run", "--text", "spiral", "--modality", "ink", "--k", "1"], folder);
    assert!(found["value"].is_array(), "{found}");
    let data = ["embed", "--model", "run", "--data", "drawings.jsonl", "--modality", "ink", "--out", "ink.npy"];
    assert_eq!(json_of(&data, folder)["missing"]["count"], 40);
    ink(&["report", "--model", "run"], folder);
    assert!(folder.join("run/report.html").exists());
}

#[test]
fn the_program_has_its_own_name_data_set_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let completions = ink(&["completions", "bash"], folder);
    assert!(completions.contains("_ink()") && completions.contains("complete -F _ink"), "{completions}");
    let has_names = completions.contains("compgen -W \"audio image ink ");
    assert!(has_names, "the modalities that can be named are completed: {completions}");
    assert!(ink(&["prepare", "--list"], folder).contains("chinese-characters: Chinese characters"));
    assert!(ink(&["fit", "--help"], folder).contains("ink fit --data train.csv"));
    assert!(json_of(&["doctor"], folder)["encoders"].as_array().unwrap().contains(&json!("ink")));
}
