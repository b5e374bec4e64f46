//! What must hold of every network.

use super::*;
use mm_core::{Device, Params, seed::seed_tensors};

fn networks() -> Vec<Network> {
    let own = |name: &str| if name == "perceptron" { "places = 9" } else { "" };
    NETWORKS.iter().map(|n| toml::from_str::<Network>(&format!("kind = \"{n}\"\n{}", own(n))).unwrap()).collect()
}

fn set(words: &Tensor, mask: Option<Tensor>, places: &Tensor, present: Option<Tensor>) -> FeatureSet {
    let mut set = FeatureSet::new(words.size(0).unwrap());
    set.insert(Modality::TEXT, Features::new(words.clone(), mask).unwrap(), None).unwrap();
    set.insert(Modality::IMAGE, Features::new(places.clone(), None).unwrap(), present).unwrap();
    set
}

fn apart(a: &Tensor, b: &Tensor) -> f64 {
    a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
}

#[test]
fn padding_of_a_question_and_other_rows_change_nothing_and_looks_sum_to_one() {
    for network in networks() {
        seed_tensors(5);
        let config = ReasonConfig { network: network.clone(), width: 12, dropout: 0.3, ..ReasonConfig::default() };
        let params = Params::new(Device::Cpu);
        let widths = [(Modality::TEXT, 7), (Modality::IMAGE, 5)];
        let model = build(&params.scope(), &config, &widths).unwrap();
        let random = |shape: &[i64]| Tensor::randn(shape, DType::F32, Device::Cpu).unwrap();
        let (words, places) = (random(&[1, 3, 7]), random(&[1, 9, 5]));
        let alone = model.reason(&set(&words, None, &places, None), false).unwrap();
        assert_eq!(alone.features.values.shape(), [1, 1, 12]);
        let longer = Tensor::cat(&[&words, &random(&[1, 2, 7])], 1).unwrap();
        let both = Tensor::cat(&[&longer, &random(&[1, 5, 7])], 0).unwrap();
        let mask = Tensor::from_vec(&[true, true, true, false, false, true, true, true, true, true], &[2, 5]).unwrap();
        let seen = Tensor::cat(&[&places, &random(&[1, 9, 5])], 0).unwrap();
        let present = Tensor::from_slice(&[true, false]).unwrap();
        let out = model.reason(&set(&both, Some(mask), &seen, Some(present)), false).unwrap();
        let row = out.features.values.narrow(0, 0, 1).unwrap();
        assert!(apart(&row, &alone.features.values) < 1e-4, "{network:?}");
        assert!(out.features.values.isfinite().unwrap().min().unwrap().to_f64().unwrap() > 0.5, "{network:?}");
        assert_eq!(alone.looked.is_empty(), matches!(network, Network::Perceptron { .. }), "{network:?}");
        for look in &alone.looked {
            assert_eq!(look.weights.shape(), [1, 9], "{network:?}");
            let sum = look.weights.sum().unwrap().to_f64().unwrap();
            let most = if matches!(network, Network::SingleStream { .. }) { 1.0 } else { 1.0 + 1e-4 };
            assert!(sum <= most + 1e-4 && sum > 0.0, "{network:?}: {sum}");
        }
        // Every parameter takes part.
        let loss = model.reason(&set(&both, None, &seen, None), true).unwrap().features.values.pow(2.0).unwrap();
        loss.sum().unwrap().backward().unwrap();
        for (name, tensor) in params.named(&[mm_core::Role::Trainable]) {
            assert!(tensor.grad().is_some(), "{network:?}: {name}");
        }
    }
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let params = Params::new(Device::Cpu);
    let widths = [(Modality::TEXT, 7), (Modality::IMAGE, 5)];
    let bad = |config: ReasonConfig| build(&params.scope(), &config, &widths).map(drop).unwrap_err().to_string();
    assert!(bad(ReasonConfig { query: "txet".into(), ..ReasonConfig::default() }).contains("did you mean `text`"));
    assert!(bad(ReasonConfig { network: Network::Mac { steps: 0 }, ..ReasonConfig::default() }).contains("steps"));
    let config =
        ReasonConfig { network: Network::Perceptron { places: 4, layers: 1 }, width: 12, ..ReasonConfig::default() };
    let fresh = Params::new(Device::Cpu);
    let model = build(&fresh.scope(), &config, &widths).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
    let error = model.reason(&set(&zeros(&[1, 3, 7]), None, &zeros(&[1, 9, 5]), None), false).map(drop).unwrap_err();
    assert!(error.to_string().contains("places = 9"), "{error}");
    assert!(bad(ReasonConfig { width: 0, ..ReasonConfig::default() }).contains("width"));
}
