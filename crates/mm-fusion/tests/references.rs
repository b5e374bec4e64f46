//! Parity of every operator with the same operator on PyTorch's layers (`cargo xtask parity fusion` recomputes their
//! outputs).
#![allow(missing_docs)]

use mm_core::{Checkpoint, DType, Device, FeatureSet, Features, Modality, Params, Tensor};
use mm_fusion::{Fusion, FusionConfig, OperatorConfig, operators};

fn largest(x: &Tensor) -> f64 {
    x.abs().unwrap().max().unwrap().to_f64().unwrap()
}

#[test]
fn every_operator_matches_pytorch_forward_and_backward() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/operators.safetensors");
    let path = std::env::var("MM_PARITY_FUSION").unwrap_or_else(|_| fixture.into());
    let answers = Checkpoint::open(&path).unwrap();
    let names = [Modality::AUDIO, Modality::IMAGE, Modality::TEXT];
    let present = answers.get("present").unwrap();
    let mut compared = 0;
    for kind in operators().iter().map(|spec| spec.kind) {
        let text = answers.get(&format!("{kind}/settings")).unwrap().to_bytes().unwrap();
        let options: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
        let settings = FusionConfig {
            operator: OperatorConfig { kind: kind.into(), options },
            dim: 8,
            project: false,
            ..FusionConfig::default()
        };
        let prefix = format!("{kind}/w/");
        let weights = Checkpoint::open(&path).unwrap();
        let params = Params::from_checkpoint(weights, Device::Cpu, DType::F32, move |n| format!("{prefix}{n}"));
        let dims: Vec<(Modality, i64)> = names.iter().map(|n| (n.clone(), 8)).collect();
        let fusion = Fusion::new(&params.scope(), &settings, &dims).unwrap();
        let unused = params.finish().unwrap();
        assert!(!unused.iter().any(|n| n.starts_with(&format!("{kind}/w/"))), "{kind}: {unused:?}");
        let mut set = FeatureSet::new(4);
        let mut leaves = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let leaf = answers.get(&format!("x{number}")).unwrap().copy().unwrap().set_requires_grad(true).unwrap();
            let mask = answers.get(&format!("m{number}")).unwrap().gt_scalar(0.5).unwrap();
            let (mut values, mut valid) = (leaf.clone(), mask);
            if kind == "mfn" {
                // It needs sequences of equal length.
                let length = values.size(1).unwrap();
                let padding = (5 - length).max(0);
                values = values.narrow(1, 0, length.min(5)).unwrap().pad(&[0, 0, 0, padding], 0.0).unwrap();
                valid = valid.narrow(1, 0, length.min(5)).unwrap().pad(&[0, padding], 0.0).unwrap();
            }
            let is_present = present.select(1, number as i64).unwrap().gt_scalar(0.5).unwrap();
            set.insert(name.clone(), Features::new(values, Some(valid)).unwrap(), Some(is_present)).unwrap();
            leaves.push(leaf);
        }
        let y = fusion.fuse(&set, false).unwrap().features.values.squeeze(1).unwrap();
        let expected = answers.get(&format!("{kind}/y")).unwrap();
        let off = largest(&y.sub(&expected).unwrap()) / largest(&expected).max(1.0);
        assert!(off < 1e-4, "{kind}: forward off by {off}");
        y.pow(2.0).unwrap().sum().unwrap().backward().unwrap();
        for (number, leaf) in leaves.iter().enumerate() {
            let expected = answers.get(&format!("{kind}/g{number}")).unwrap();
            let found = leaf.grad().unwrap_or_else(|| leaf.zeros_like().unwrap());
            let off = largest(&found.sub(&expected).unwrap()) / largest(&expected).max(1.0);
            assert!(off < 1e-3, "{kind}: gradient {number} off by {off}");
        }
        compared += 1;
    }
    assert_eq!(compared, operators().len());
}
