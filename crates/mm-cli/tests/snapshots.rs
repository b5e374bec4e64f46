//! Snapshots of every help page and of the JSON schema of every command, so that no change goes unnoticed.
//! `INSTA_UPDATE=always cargo test -p mm-cli --test snapshots` accepts a change.
#![allow(missing_docs)]

mod common;

use common::{Workspace, mm, text};
use serde_json::{Value, json};
use std::path::Path;

/// Help pages of a command and of its sub-commands, by name.
fn help_pages(command: &clap::Command, path: &str, pages: &mut Vec<(String, String)>) {
    let page = command.clone().term_width(100).render_long_help().to_string();
    pages.push((path.to_owned(), page));
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        help_pages(sub, &format!("{path} {}", sub.get_name()), pages);
    }
}

#[test]
fn help_pages_are_as_recorded() {
    let mut command = mm_cli::command();
    command.build();
    let mut pages = Vec::new();
    help_pages(&command, "mm", &mut pages);
    assert!(pages.len() > 25, "{} pages", pages.len());
    for (path, page) in pages {
        insta::assert_snapshot!(path.replace(' ', "-"), page);
    }
}

/// The types of a JSON value: keys with the schema of their values, and the schema of the first element of an array.
/// Keys that are data (names of modalities, labels) are kept.
fn schema(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) => if n.is_f64() { "float" } else { "int" }.into(),
        Value::String(_) => "string".into(),
        Value::Array(list) => Value::Array(list.first().map(schema).into_iter().collect()),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), schema(value))).collect(),
    }
}

fn fixture(crate_name: &str, name: &str) -> String {
    common::fixture(crate_name, name).to_str().unwrap().to_owned()
}

/// Runs a command with `--json` and records the schema of its first line.
fn record(name: &str, arguments: &[&str], folder: &Path) {
    let output = mm(&[arguments, &["--json", "--device", "cpu", "--threads", "1"]].concat(), folder);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    let first: Value = String::from_utf8_lossy(&output.stdout).lines().next().map_or(json!(null), |line| {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {line}"))
    });
    insta::assert_json_snapshot!(name, schema(&first));
}

#[test]
fn json_of_commands_on_pretrained_models_is_as_recorded() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let image = fixture("mm-reason", "inputs/wide.png");
    record("doctor", &["doctor"], folder);
    record("prepare-list", &["prepare", "--list"], folder);
    record("inspect-data", &["inspect", "data.jsonl"], folder);
    record("inspect-model", &["inspect", "words"], folder);
    record("embed", &["embed", "--model", "words", "--text", "a dog"], folder);
    let dataset = ["embed", "--model", "words", "--data", "data.jsonl", "--out", "v.npy"];
    record("embed-data", &dataset, folder);
    record("similarity", &["similarity", "--model", "words", "--text", "a dog", "--text", "fox"], folder);
    let classes = fixture("mm-repr", "families/convnext-v1");
    record("classify", &["classify", "--model", &classes, "--image", "1.png"], folder);
    let reranker = fixture("mm-repr", "families/bert-reranker");
    record("rerank", &["rerank", "--model", &reranker, "--query", "a dog", "--text", "a fox"], folder);
    let caption = fixture("mm-reason", "blip-caption");
    record("caption", &["caption", "--model", &caption, "--image", &image, "--max-new-tokens", "3"], folder);
    let answer = fixture("mm-reason", "vilt-vqa");
    let question = ["answer", "--model", &answer, "--image", &image, "--question", "a dog", "--explain", "a.png"];
    record("answer", &question, folder);
    let (speech, audio) = (fixture("mm-reason", "whisper-multilingual"), fixture("mm-reason", "inputs/long16.wav"));
    let transcribe = ["transcribe", "--model", &speech, "--audio", &audio, "--timestamps", "--max-new-tokens", "6"];
    record("transcribe", &transcribe, folder);
}

#[test]
fn json_of_commands_on_runs_is_as_recorded() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    record("train", &["train", "config.toml", "--out", "run"], folder);
    record("eval", &["eval", "--model", "run"], folder);
    record("search", &["search", "--model", "run", "--text", "a dog", "--k", "1"], folder);
    record("audit", &["audit", "--data", "data.jsonl", "--model", "run"], folder);
    let mut table = String::from("id,say,y\n");
    (0..80).for_each(|n| table += &format!("{n},the {} ran,{}\n", if n % 2 == 0 { "dog" } else { "fox" }, n % 2));
    workspace.write("t.csv", table);
    let fit =
        ["fit", "--data", "t.csv", "--label-column", "y", "--column", "text=say", "--preset", "fast", "--out", "fit"];
    record("fit", &fit, folder);
    record("predict", &["predict", "--model", "fit", "--data", "t.csv"], folder);
    record("eval-prediction", &["eval", "--model", "fit", "--data", "t.csv"], folder);
}

#[test]
fn json_of_commands_on_arrays_and_word_vectors_is_as_recorded() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let mut random = mm_core::seed::Rng::new(&[5]);
    for (name, dim) in [("a.npy", 3), ("b.npy", 3)] {
        let values: Vec<f64> = (0..60 * dim).map(|_| random.uniform_range(-1.0, 1.0)).collect();
        let array = mm_core::Tensor::from_vec(&values, &[60, dim]).unwrap();
        mm_data::write_npy(&folder.join(name), &array).unwrap();
    }
    record("align-list-methods", &["align", "--list-methods"], folder);
    record("align", &["align", "--method", "cca", "--a", "a.npy", "--b", "b.npy"], folder);
    record("diagnose", &["diagnose", "--a", "a.npy", "--b", "b.npy"], folder);
    workspace.write("corpus.txt", "cat purrs softly indoors\ndog barks loudly outdoors\n".repeat(300));
    workspace.write("pairs.tsv", "cat\tpurrs\t9\ncat\tbarks\t1\ndog\tbarks\t8\n");
    let train = ["words", "train", "--data", "corpus.txt", "--out", "w.txt", "--vector-size", "8", "--sample", "0"];
    record("words-train", &train, folder);
    record("words-similar", &["words", "similar", "--model", "w.txt", "--word", "cat"], folder);
    record("words-eval", &["words", "eval", "--model", "w.txt", "--pairs", "pairs.tsv"], folder);
}
