//! Fusion operators on data that needs interactions between modalities.

use super::{EASY, evaluate, exclusive_or, mm, refused};
use crate::{common::metric, ok};
use serde_json::Value;

#[test]
fn exclusive_or_needs_multiplicative_fusion_and_gates_close_on_noise() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    exclusive_or(folder);
    let accuracy = |name: &str, more: &[&str]| -> f64 {
        let run = format!("runs/{name}");
        ok(&mm(&[&["train", "xor.toml", "--out", &run], more].concat(), folder));
        metric(&evaluate(&run, &[], folder), "accuracy")
    };
    let linear = accuracy("linear", &[]);
    assert!(linear < 0.65, "{linear}");
    for kind in ["multiplicative", "tensor_fusion", "mlb"] {
        let found = accuracy(kind, &["--set", &format!("fusion.operator.kind=\"{kind}\"")]);
        assert!(found > 0.95, "{kind}: {found}");
    }
    let projected = ["--set", "fusion.project=true", "--set", "fusion.operator.kind=\"cross_attention\""];
    let attention = accuracy("attention", &projected);
    assert!(attention > 0.9, "{attention}");
    // A gated unit gives a smaller weight to noise than to an informative modality.
    let gated = ["--set", "fusion.operator.kind=\"gated\"", "--set", "train.epochs=60"];
    assert!(accuracy("noisy", &[&EASY[..], &gated].concat()) > 0.97);
    let report = ok(&mm(&["report", "--model", "runs/noisy", "--json"], folder));
    assert!(report.contains("report.html"), "{report}");
    let page = std::fs::read_to_string(folder.join("runs/noisy/report.html")).unwrap();
    let weights = page.split("Mean modality weights of the fusion operator: ").nth(1).unwrap();
    let weights = weights.split('.').take(3).collect::<Vec<_>>().join(".");
    let weight = |name: &str| -> f64 {
        weights.split(&format!("{name} ")).nth(1).unwrap().chars().take(5).collect::<String>().parse().unwrap()
    };
    assert!(weight("left") > weight("noise"), "{weights}");
}

#[test]
fn fusion_search_finds_the_operator_that_fits() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    exclusive_or(folder);
    let space = "fusion.operator.kind=\"concat\"|\"mlb\"";
    let fixed = ["fusion-search", "xor.toml", "--out", "search", "--num-rounds", "2", "--set", "data.split.valid=0.2"];
    let lines = ok(&mm(&[&fixed[..], &["--space", space, "--json"]].concat(), folder));
    let best: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(best["settings"][0][1], "\"mlb\"", "{lines}");
    assert!(folder.join("search/best.toml").exists() && folder.join("search/report.html").exists());
    refused(&[&fixed[..], &["--space", "fusion.dim"]].concat(), folder, &["--space fusion.dim"]);
}
