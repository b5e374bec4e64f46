//! Gradient caching: retrieval models that embed a few rows at a time learn the weights of the whole batch.

use crate::{
    common::{fixture, refused, text},
    distributed::{RETRIEVAL, assert_same_weights, config, train, workspace},
    resume::{tensors, wait_for_steps},
};
use std::process::{Command, Stdio};

/// Images and speech through encoders whose last block is trained, texts through a frozen one.
fn towers(dropout: f64) -> String {
    let family = |name: &str| fixture("mm-repr", &format!("families/{name}")).display().to_string();
    let [image, audio] = ["vit-classifier", "wav2vec2-layer-stable"].map(family);
    format!(
        "\n[towers.image]\nencoder = {{ kind = \"pretrained\", path = {image:?}, trainable_layers = 1 }}\n\
         projection = {{ hidden_dim = 16, dropout = {dropout:?} }}\nnoise_std = 0.1\n\
         [towers.text]\nencoder = {{ kind = \"pretrained\", path = \"words\" }}\n\
         projection = {{ hidden_dim = 16, dropout = {dropout:?} }}\nnoise_std = 0.1\n\
         [towers.audio]\nencoder = {{ kind = \"pretrained\", path = {audio:?}, trainable_layers = 1 }}\n\
         projection = {{ hidden_dim = 16, dropout = {dropout:?} }}\n"
    )
}

const EPOCHS: [&str; 2] = ["--set", "train.epochs=50"];

#[test]
fn training_in_mini_batches_learns_the_weights_of_the_whole_batch() {
    let workspace = workspace();
    workspace.write("config.toml", config("retrieval", &towers(0.0), 6));
    let run = |world_size: usize, out: &str, more: &[&str]| {
        let output = train(&workspace, world_size, out, &[&EPOCHS[..], more].concat());
        assert!(output.status.success(), "{out}: {}", text(&output));
    };
    // Rows of the same item, in several mini-batches and processes, are no negatives; a robust loss picks among all rows.
    let items = ["--set", "data.columns.item=kind"];
    let robust = ["robust.kind=small_loss", "robust.noise_rate=0.3", "robust.warmup_steps=20"];
    let robust = [&items[..], &robust.map(|setting| ["--set", setting]).concat()].concat();
    let accumulating = ["--set", "train.gradient_accumulation_steps=2"];
    let soft = ["--set", "soft_targets.modality=text"];
    let cases: [(&str, &[&str], &[(usize, &str)]); 4] = [
        ("plain", &[], &[(1, "mini_batch_size=2"), (1, "mini_batch_size=1")]),
        // Where a process has 3 rows, of which some lack a modality, others have more or fewer mini-batches.
        ("items", &robust, &[(1, "mini_batch_size=2"), (2, "mini_batch_size=2"), (3, "mini_batch_size=1")]),
        ("accumulating", &accumulating, &[(2, "mini_batch_size=2")]),
        ("soft", &soft, &[(2, "mini_batch_size=1")]),
    ];
    for (name, settings, others) in cases {
        run(1, name, settings);
        for &(world_size, size) in others {
            let out = format!("{name}-{world_size}-{size}");
            run(world_size, &out, &[settings, &["--set", size]].concat());
            assert_same_weights(workspace.path(), name, &out, 1e-5);
        }
    }
    let steps = |out: &str| mm_train::Run::read_metrics(&workspace.path().join(out)).unwrap();
    let losses = |out: &str| steps(out).iter().filter_map(|m| m.values.get("loss").copied()).collect::<Vec<_>>();
    let (whole, chunked) = (losses("plain"), losses("plain-1-mini_batch_size=2"));
    assert!(whole.len() > 4 && whole.len() == chunked.len());
    assert!(whole.iter().zip(&chunked).all(|(a, b)| (a - b).abs() < 1e-4), "{whole:?} {chunked:?}");
}

#[test]
fn dropout_in_mini_batches_is_that_of_an_uninterrupted_run() {
    let workspace = workspace();
    workspace.write("config.toml", config("retrieval", &towers(0.2), 6));
    let settings =
        ["--set", "mini_batch_size=2", "--set", "train.save_every_steps=1", "--set", "train.log_every_steps=1"];
    let all = [&EPOCHS[..], &settings].concat();
    let whole = train(&workspace, 1, "whole", &all);
    assert!(whole.status.success(), "{}", text(&whole));
    let run = workspace.path().join("killed");
    let arguments = ["train", "config.toml", "--out", "killed", "--device", "cpu", "--threads", "1"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_mm"))
        .args([&arguments[..], &all].concat())
        .current_dir(workspace.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_steps(&run, 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = train(&workspace, 1, "killed", &[&all[..], &["--resume"]].concat());
    assert!(resumed.status.success(), "{}", text(&resumed));
    for (whole, resumed) in tensors(&workspace.path().join("whole")).iter().zip(&tensors(&run)) {
        assert!(whole == resumed, "{} differs", whole.0);
    }
    let logged = mm_train::Run::read_metrics(&run).unwrap();
    let losses: Vec<f64> = logged.iter().filter_map(|m| m.values.get("loss").copied()).collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[80..]) < 0.9 * mean(&losses[..20]), "{losses:?}");
}

#[test]
fn what_cannot_be_embedded_in_mini_batches_is_refused() {
    let workspace = workspace();
    let train = ["train", "config.toml", "--out", "run", "--set", "mini_batch_size=2"];
    workspace.write("config.toml", config("retrieval", RETRIEVAL, 6));
    refused(&train, workspace.path(), &["mini_batch_size", "batch normalization", "leave mini_batch_size out"]);
    workspace.write("config.toml", config("retrieval", &towers(0.0), 6));
    let with = |setting: &str, wanted: &[&str]| {
        refused(&[&train[..], &["--set", setting]].concat(), workspace.path(), wanted);
    };
    with("cross_attention.query_modality=text", &["mini_batch_size", "cross_attention", "loader.batch_size"]);
    with("mini_batch_size=0", &["mini_batch_size", "0"]);
    assert!(!workspace.path().join("run").exists());
}
