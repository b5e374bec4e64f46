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

/// Things of four colours lie on a grid of nine places; the question names a colour, the answer is the shape of that thing. What a network
/// knows of shapes and colours apart is worth nothing: it has to look at the place that the question means.
#[test]
fn every_network_learns_to_look_where_the_question_points() {
    const COLOURS: usize = 4;
    mm_core::threads(Some(1));
    let batch = |number: u64, rows: usize| {
        let mut random = mm_core::seed::Rng::at(&[0xB1_4D, number]);
        let (mut words, mut places, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rows {
            let asked = random.below(COLOURS);
            // "which shape has the … thing": what is named stands in the middle.
            for word in [COLOURS, asked, COLOURS + 1] {
                words.extend((0..COLOURS + 2).map(|n| f32::from(u8::from(n == word))));
            }
            let mut grid = [[0f32; COLOURS + 2]; 9];
            let mut order: Vec<usize> = (0..9).collect();
            random.shuffle(&mut order);
            for colour in 0..COLOURS {
                let round = random.below(2);
                grid[order[colour]][colour] = 1.0;
                grid[order[colour]][COLOURS + round] = 1.0;
                if colour == asked {
                    labels.push(round as i64);
                }
            }
            places.extend(grid.concat());
        }
        let words = Tensor::from_vec(&words, &[rows as i64, 3, COLOURS as i64 + 2]).unwrap();
        let places = Tensor::from_vec(&places, &[rows as i64, 9, COLOURS as i64 + 2]).unwrap();
        (words, places, Tensor::from_slice(&labels).unwrap())
    };
    let mut found = Vec::new();
    // The baseline that has nothing to point with learns it too, but from far more rows.
    for network in networks().into_iter().filter(|n| !matches!(n, Network::Perceptron { .. })) {
        seed_tensors(2);
        let params = Params::new(Device::Cpu);
        let width = COLOURS as i64 + 2;
        let config = ReasonConfig { network: network.clone(), width: 32, dropout: 0.0, ..ReasonConfig::default() };
        let model = build(&params.scope(), &config, &[(Modality::TEXT, 32), (Modality::IMAGE, width)]).unwrap();
        let sizes = mm_core::nn::LstmConfig { input: width, hidden: 32, layers: 1, bidirectional: false, dropout: 0.0 };
        let reader = mm_core::nn::Lstm::new(&params.scope().pp("reader"), sizes).unwrap();
        let head = Linear::new(&params.scope().pp("head"), 32, 2, true).unwrap();
        let logits = |words: &Tensor, places: &Tensor, train: bool| {
            let read = reader.forward(words, None, train).unwrap();
            let out = model.reason(&set(&read, None, places, None), train).unwrap().features.values;
            head.forward(&out.select(1, 0).unwrap(), train).unwrap()
        };
        let settings = mm_train::OptimizerConfig { lr: 2e-3, ..Default::default() };
        let mut optimizer = mm_train::Optimizer::new(&settings, &params).unwrap();
        for step in 0..400 {
            let (words, places, labels) = batch(step, 64);
            optimizer.zero_grad();
            logits(&words, &places, true).cross_entropy(&labels, -100, 0.0).unwrap().backward().unwrap();
            optimizer.step(1.0, 1.0).unwrap();
        }
        let (words, places, labels) = batch(u64::MAX, 1000);
        let right = logits(&words, &places, false).argmax(1).unwrap().eq(&labels).unwrap();
        let accuracy = right.to_dtype(DType::F32).unwrap().mean().unwrap().to_f64().unwrap();
        println!("{network:?}: {accuracy:.3}");
        found.push((network, accuracy));
    }
    for (network, accuracy) in found {
        assert!(accuracy > 0.95, "{network:?}: {accuracy}; the more frequent shape alone gives 0.69");
    }
}
