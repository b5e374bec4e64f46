//! Losses and ensembles of unimodal and fused heads.

use super::{EASY, evaluate, exclusive_or, mm, refused};
use crate::{common::metric, ok};
use std::path::Path;

/// Unimodal heads, and validation rows that losses and ensembles are fitted on.
const HEADS: [&str; 6] =
    ["--set", "loss.unimodal_weight=1.0", "--set", "data.split.valid=0.2", "--set", "train.evaluate_every_epochs=1"];

/// The test accuracy after training with unimodal heads.
fn train(name: &str, more: &[&str], folder: &Path) -> f64 {
    let run = format!("runs/{name}");
    ok(&mm(&[&["train", "xor.toml", "--out", &run], &HEADS[..], more].concat(), folder));
    metric(&evaluate(&run, &[], folder), "accuracy")
}

/// The last value of a metric in a run's log.
fn logged(name: &str, metric: &str, folder: &Path) -> f64 {
    let text = std::fs::read_to_string(folder.join(format!("runs/{name}/metrics.jsonl"))).unwrap();
    let lines = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    lines.rev().find_map(|l| l.pointer(&format!("/values/{metric}")).or(l.get(metric))?.as_f64()).unwrap()
}

#[test]
fn losses_of_unimodal_heads_train_and_are_logged() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    exclusive_or(folder);
    // With an exclusive or, unimodal heads do not generalize: gradient blending gives the fused head the largest
    // weight.
    let product = ["--set", "fusion.operator.kind=\"multiplicative\""];
    assert!(train("blended", &[&product[..], &["--set", "loss.gradient_blending=true"]].concat(), folder) > 0.95);
    let weight = logged("blended", "blending_weight_fused", folder);
    assert!(weight > 0.5, "{weight}");
    for term in
        ["gradient_modulation=0.5", "distillation_weight=0.5", "functional_entropy_weight=0.001", "mixup_alpha=0.2"]
    {
        let set = format!("loss.{term}");
        assert!(train(term, &[&product[..], &["--set", &set]].concat(), folder) > 0.9, "{term}");
    }
    // Unimodal labels of noise move away from the label of the row, those of the informative modality hardly do.
    assert!(train("unimodal", &[&EASY[..], &["--set", "loss.unimodal_labels=true"]].concat(), folder) > 0.97);
    let left = logged("unimodal", "unimodal_label_shift_left", folder);
    let noise = logged("unimodal", "unimodal_label_shift_noise", folder);
    assert!(noise > left + 0.05, "left {left}, noise {noise}");
}

#[test]
fn ensembles_of_heads_predict_with_and_without_a_modality() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    exclusive_or(folder);
    for method in ["logistic_regression", "gradient_boosting"] {
        let set = format!("ensembling=\"{method}\"");
        assert!(train(method, &[&EASY[..], &["--set", &set]].concat(), folder) > 0.97);
        let ensemble = std::fs::read_to_string(folder.join(format!("runs/{method}/head_ensemble.json"))).unwrap();
        assert!(ensemble.contains(method), "{ensemble}");
        // Without the informative modality, accuracy is near chance.
        let evaluation = evaluate(&format!("runs/{method}"), &["--exclude-modality", "left"], folder);
        let without = metric(&evaluation, "accuracy");
        assert!((0.35..0.65).contains(&without), "{without}");
    }
}

#[test]
fn losses_and_ensembles_that_cannot_be_combined_are_refused() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    exclusive_or(folder);
    let train = |more: &[&str], wanted: &[&str]| {
        refused(&[&["train", "xor.toml", "--out", "runs/no"], more].concat(), folder, wanted);
    };
    train(&["--set", "loss.gradient_blending=true"], &["loss.unimodal_weight", "gradient_blending"]);
    train(
        &["--set", "loss.gradient_blending=true", "--set", "loss.unimodal_weight=1.0"],
        &["train.evaluate_every_epochs"],
    );
    train(&["--set", "ensembling=\"gradient_boosting\""], &["ensembling", "validation rows"]);
    train(
        &[&HEADS[..], &["--set", "ensembling=\"logistic_regression\"", "--set", "problem=\"multilabel\""]].concat(),
        &["multilabel"],
    );
    let ordinal = ["--set", "loss.unimodal_labels=true", "--set", "problem=\"ordinal\""];
    train(&[&HEADS[..], &ordinal].concat(), &["loss.unimodal_labels", "ordinal"]);
}
