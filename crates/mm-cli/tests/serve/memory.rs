//! Models that take turns in memory, and models whose files change while the server runs.

use crate::{Server, assert_close, common::fixture, embedded, model, numbers};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

fn vector(server: &Server, model: &str) -> Vec<f64> {
    let answer: Value = server.post("/v1/embeddings", &json!({"model": model, "input": "the quick fox"})).json();
    numbers(&answer["data"][0]["embedding"])
}

#[test]
fn models_that_do_not_fit_together_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("serve.toml"), "[limits]\nmax_model_bytes = 1000\n").unwrap();
    let models = [("words", "sentence-max"), ("clip", "families/clip-eos-gelu")];
    let options = models.map(|(name, path)| model(name, "mm-repr", path));
    let ranker = model("ranker", "mm-repr", "families/bert-reranker");
    let arguments = ["--config", "serve.toml", "--model", &options[0], "--model", &options[1], "--model", &ranker];
    let server = Server::start(&arguments, folder.path(), &[]);
    let expected =
        models.map(|(_, path)| embedded(&fixture("mm-repr", path), &["--text", "the quick fox"], folder.path()));
    for _ in 0..3 {
        for ((name, _), expected) in models.iter().zip(&expected) {
            assert_close(&vector(&server, name), expected);
        }
        // Its samples are made before it is loaded again.
        let ranks = server.post("/rerank", &json!({"query": "a dog", "texts": ["a fox", "a dog"]})).json();
        assert_eq!(ranks.as_array().unwrap().len(), 2, "{ranks}");
    }
    // Both asked at once, each waits for the other to leave.
    std::thread::scope(|scope| {
        for ((name, _), expected) in models.iter().zip(&expected) {
            let server = &server;
            scope.spawn(move || (0..5).for_each(|_| assert_close(&vector(server, name), expected)));
        }
    });
    server.signal("TERM");
    assert!(server.wait().success());
}

/// Changes weights of a checkpoint, as a training run replaces its file.
fn change_weights(folder: &Path) {
    let file = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() - bytes.len() / 8 * 4;
    bytes[middle..].chunks_exact_mut(4).step_by(5).for_each(|value| value.copy_from_slice(&0.75f32.to_le_bytes()));
    replace(&file, &bytes);
}

/// Files that a model maps are replaced, never written in place.
fn replace(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[test]
fn a_model_whose_files_change_is_loaded_again() {
    let workspace = tempfile::tempdir().unwrap();
    let folder = workspace.path();
    let words = folder.join("words");
    copy(&fixture("mm-repr", "bert-plain"), &words);
    std::fs::write(folder.join("serve.toml"), "reload_seconds = 1\n").unwrap();
    let server = Server::start(&["--config", "serve.toml", "--model", "words=words"], folder, &[]);
    let before = vector(&server, "words");
    assert_close(&before, &embedded(&words, &["--text", "the quick fox"], folder));
    change_weights(&words);
    let expected = embedded(&words, &["--text", "the quick fox"], folder);
    assert!(before.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 0.01));
    let started = Instant::now();
    while vector(&server, "words") == before {
        assert!(started.elapsed() < Duration::from_secs(60), "the model was not loaded again");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_close(&vector(&server, "words"), &expected);
    // A file that cannot be loaded leaves the model as it is.
    replace(&words.join("model.safetensors"), b"damaged");
    std::thread::sleep(Duration::from_secs(4));
    assert_close(&vector(&server, "words"), &expected);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
