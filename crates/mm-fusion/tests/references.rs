//! Every operator's numbers against the same operator on PyTorch's own layers (`cargo xtask parity fusion` makes them anew).
#![allow(missing_docs)]

use mm_core::{Checkpoint, DType, Device, FeatureSet, Features, Modality, Params, Tensor, config};
use mm_fusion::{FusionConfig, OPERATORS, build};

fn largest(x: &Tensor) -> f64 {
    x.abs().unwrap().max().unwrap().to_f64().unwrap()
}

#[test]
fn every_operator_agrees_forward_and_backward() {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/operators.safetensors");
    let path = std::env::var("MM_PARITY_FUSION").unwrap_or_else(|_| own.into());
    let answers = Checkpoint::open(&path).unwrap();
    let names = [Modality::AUDIO, Modality::IMAGE, Modality::TEXT];
    let present = answers.get("present").unwrap();
    let mut held = 0;
    for (kind, _) in OPERATORS {
        let text = answers.get(&format!("{kind}/settings")).unwrap().to_bytes().unwrap();
        let mut operator: toml::Value = serde_json::from_slice(&text).unwrap();
        operator.as_table_mut().unwrap().insert("kind".into(), (*kind).into());
        let settings = FusionConfig {
            operator: config::parse(&operator, "operator").unwrap(),
            width: 8,
            project: false,
            ..FusionConfig::default()
        };
        let prefix = format!("{kind}/w/");
        let weights = Checkpoint::open(&path).unwrap();
        let params = Params::from_checkpoint(weights, Device::Cpu, DType::F32, move |n| format!("{prefix}{n}"));
        let widths: Vec<(Modality, i64)> = names.iter().map(|n| (n.clone(), 8)).collect();
        let fusion = build(&params.scope(), &settings, &widths).unwrap();
        let unused = params.finish().unwrap();
        assert!(!unused.iter().any(|n| n.starts_with(&format!("{kind}/w/"))), "{kind}: {unused:?}");
        let mut set = FeatureSet::new(4);
        let mut leaves = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let leaf = answers.get(&format!("x{number}")).unwrap().copy().unwrap().set_requires_grad(true).unwrap();
            let mask = answers.get(&format!("m{number}")).unwrap().gt_scalar(0.5).unwrap();
            let (mut values, mut kept) = (leaf.clone(), mask);
            if *kind == "mfn" {
                // It wants sequences of one length.
                let length = values.size(1).unwrap();
                let more = (5 - length).max(0);
                values = values.narrow(1, 0, length.min(5)).unwrap().pad(&[0, 0, 0, more], 0.0).unwrap();
                kept = kept.narrow(1, 0, length.min(5)).unwrap().pad(&[0, more], 0.0).unwrap();
            }
            let there = present.select(1, number as i64).unwrap().gt_scalar(0.5).unwrap();
            set.insert(name.clone(), Features::new(values, Some(kept)).unwrap(), Some(there)).unwrap();
            leaves.push(leaf);
        }
        let y = fusion.fuse(&set, false).unwrap().features.values.squeeze(1).unwrap();
        let wanted = answers.get(&format!("{kind}/y")).unwrap();
        let off = largest(&y.sub(&wanted).unwrap()) / largest(&wanted).max(1.0);
        assert!(off < 1e-4, "{kind}: forward off by {off}");
        y.pow(2.0).unwrap().sum().unwrap().backward().unwrap();
        for (number, leaf) in leaves.iter().enumerate() {
            let wanted = answers.get(&format!("{kind}/g{number}")).unwrap();
            let found = leaf.grad().unwrap_or_else(|| leaf.zeros_like().unwrap());
            let off = largest(&found.sub(&wanted).unwrap()) / largest(&wanted).max(1.0);
            assert!(off < 1e-3, "{kind}: gradient {number} off by {off}");
        }
        held += 1;
    }
    assert_eq!(held, OPERATORS.len());
}
