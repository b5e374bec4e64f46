//! Reasoning and captioning networks that are trained from scratch.

use super::lines;
use crate::{
    common::{find_metric, fixture, metric, mm, refused},
    datasets::{color_images, shapes},
    ok,
};
use serde_json::json;
use std::path::Path;

#[test]
fn a_reasoning_network_is_trained_and_answers_with_attention() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    shapes(folder, 400);
    let config = r#"
task = "prediction"
label = "label"
problem = "multiclass"
ensembling = "none"
cache_dir = "cache"
[data]
manifest = "shapes.csv"
split = { column = "split" }
[data.columns]
modalities = { text = "text", image = "image" }
[loader]
batch_size = 32
[inputs.text]
encoder = { kind = "lstm", embedding_dim = 16, hidden_dim = 32 }
[inputs.image]
encoder = { kind = "cnn", image_size = 32, channels = [16, 32], dropout = 0.0, jitter = 0.0 }
[reasoning]
hidden_dim = 32
network = { kind = "film", num_blocks = 2 }
[loss]
unimodal_weight = 0.1
[train]
epochs = 14
log_every_steps = 50
[train.optimizer]
lr = 5e-3
"#;
    std::fs::write(folder.join("vqa.toml"), config).unwrap();
    ok(&mm(&["train", "vqa.toml", "--out", "vqa", "--threads", "1"], folder));
    let evaluation = lines(&["eval", "--model", "vqa", "--split", "test", "--json"], folder).remove(0);
    let accuracy = metric(&evaluation, "accuracy");
    // Neither the question nor the image alone determines the answer.
    for baseline in ["question_only", "image_only"] {
        let value = find_metric(&evaluation, "accuracy")["baselines"][baseline].as_f64().unwrap();
        assert!(value < 0.75, "{baseline}: {value}");
    }
    let without =
        lines(&["eval", "--model", "vqa", "--split", "test", "--exclude-modality", "image", "--json"], folder);
    let without = metric(&without[0], "accuracy");
    assert!(accuracy > 0.9 && without < 0.75, "{accuracy} with the image, {without} without");
    let answer = ["answer", "--model", "vqa", "--image", "5.png", "--question", "what color is it"];
    let found = lines(&[&answer, ["--json", "--explain", "h.png"].as_slice()].concat(), folder);
    assert_eq!(found[0]["attribution"]["grid"], json!([8, 8]));
    for step in found[0]["attribution"]["steps"].as_array().unwrap() {
        assert_eq!(step[1].as_array().unwrap().len(), 64);
    }
    assert!(["red", "blue"].contains(&found[0]["answer"].as_str().unwrap()));
    refused(&[&answer, ["--candidates", "green"].as_slice()].concat(), folder, &["green"]);
}

#[test]
fn captioning_networks_are_trained_evaluated_and_reported() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    shapes(folder, 400);
    let config = r#"
task = "captioning"
[data]
manifest = "shapes.csv"
split = { column = "split" }
[data.columns]
modalities = { text = "caption", image = "image" }
[loader]
batch_size = 32
[encoder]
kind = "cnn"
image_size = 32
channels = [16, 32]
[model]
kind = "KIND"
hidden_dim = 32
num_layers = 1
dropout = 0.0
max_length = 6
[train]
epochs = 10
log_every_steps = 50
[train.optimizer]
lr = 5e-3
"#;
    for kind in ["transformer", "lstm", "prefix"] {
        std::fs::write(folder.join("captions.toml"), config.replace("KIND", kind)).unwrap();
        ok(&mm(&["train", "captions.toml", "--out", kind, "--threads", "1"], folder));
        let evaluation = lines(&["eval", "--model", kind, "--split", "test", "--json"], folder);
        let bleu = metric(&evaluation[0], "bleu_1");
        // Four captions of three words: a constant caption has at most two words right.
        assert!(bleu > 0.85, "{kind}: {bleu}");
    }
    let caption = lines(&["caption", "--model", "lstm", "--image", "5.png", "--json"], folder);
    assert!(caption[0]["text"].as_str().unwrap().starts_with("a "));
    ok(&mm(&["report", "--model", "transformer", "--out", "r.html"], folder));
    assert!(std::fs::read_to_string(folder.join("r.html")).unwrap().contains("nearest neighbor"));
    clip_scores_are_those_of_the_cpu_on_every_device(folder);
}

/// CLIPScore of a run; on a GPU, where there is one, both models are on it.
fn clip_scores_are_those_of_the_cpu_on_every_device(folder: &Path) {
    let clip = fixture("mm-repr", "families/clip-eos-gelu");
    std::fs::create_dir(folder.join("clip")).unwrap();
    for file in
        ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    {
        std::fs::copy(clip.join(file), folder.join("clip").join(file)).unwrap();
    }
    let score = |device: &str| {
        let eval = ["eval", "--model", "lstm", "--clip", "clip", "--json", "--device", device];
        metric(&lines(&eval, folder)[0], "clip_score")
    };
    let on_cpu = score("cpu");
    assert!((0.0..=2.5).contains(&on_cpu), "{on_cpu}");
    if lines(&["doctor", "--json"], folder)[0]["gpus"].as_u64() > Some(0) {
        let on_gpu = score("cuda");
        assert!((on_gpu - on_cpu).abs() < 1e-3, "{on_gpu} instead of {on_cpu}");
    } else {
        println!("skipped: no GPU");
    }
}

#[test]
fn scheduled_sampling_and_self_critical_training_improve_captions() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    color_images(folder, [("train", 12), ("test", 4)]);
    let config = r#"
task = "captioning"
[data]
manifest = "colors.jsonl"
[data.columns]
modalities = { image = "image", text = "answer" }
[data.split]
column = "split"
[loader]
batch_size = 12
[train]
log_every_steps = 50
[train.optimizer]
lr = 5e-3
[encoder]
kind = "cnn"
image_size = 16
channels = [8, 8]
dropout = 0.0
jitter = 0.0
[model]
hidden_dim = 16
num_layers = 1
num_heads = 2
max_length = 4
"#;
    std::fs::write(folder.join("captions.toml"), config).unwrap();
    let train = |run: &str, more: &[&str]| {
        lines(&[&["train", "captions.toml", "--out", run, "--json", "--set"], more].concat(), folder);
        metric(&lines(&["eval", "--model", run, "--json"], folder).remove(0), "bleu_1")
    };
    assert!(train("scheduled-sampling", &["scheduled_sampling=0.3", "--set", "train.epochs=30"]) > 0.9);
    let before = train("initial", &["train.epochs=3"]);
    let self_critical = ["self_critical_weight=0.5", "--set", "init_from=initial", "--set", "train.epochs=25"];
    let after = train("self-critical", &self_critical);
    assert!(after > 0.9 && after >= before, "{before} before, {after} after");
    let logged = std::fs::read_to_string(folder.join("self-critical/metrics.jsonl")).unwrap();
    assert!(logged.contains("cider_d_above_greedy"), "{logged}");
}
