//! Properties that every network must have.

use super::*;
use mm_core::{DType, Device, FeatureSet, Features, Modality, Module, Params, Tensor, nn::Linear, seed::manual_seed};

/// A network of every built-in kind, for nine context positions.
fn networks() -> Vec<NetworkConfig> {
    let network = |kind: &str| {
        let config = NetworkConfig::new(kind);
        if kind == "mlp" { config.with("num_positions", 9) } else { config }
    };
    network_kinds().into_iter().filter(|kind| *kind != "constant").map(network).collect()
}

fn feature_set(text: &Tensor, mask: Option<Tensor>, image: &Tensor, present: Option<Tensor>) -> FeatureSet {
    let mut set = FeatureSet::new(text.size(0).unwrap());
    set.insert(Modality::TEXT, Features::new(text.clone(), mask).unwrap(), None).unwrap();
    set.insert(Modality::IMAGE, Features::new(image.clone(), None).unwrap(), present).unwrap();
    set
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
}

#[test]
fn padding_and_other_rows_do_not_change_an_answer_and_attention_sums_to_one() {
    for network in networks() {
        manual_seed(5);
        let config =
            ReasoningConfig { network: network.clone(), hidden_dim: 12, dropout: 0.3, ..ReasoningConfig::default() };
        let params = Params::new(Device::Cpu);
        let dims = [(Modality::TEXT, 7), (Modality::IMAGE, 5)];
        let model = build(&params.scope(), &config, &dims).unwrap();
        let random = |shape: &[i64]| Tensor::randn(shape, DType::F32, Device::Cpu).unwrap();
        let (text, image) = (random(&[1, 3, 7]), random(&[1, 9, 5]));
        let alone = model.reason(&feature_set(&text, None, &image, None), false).unwrap();
        assert_eq!(alone.features.values.shape(), [1, 1, 12]);
        let longer = Tensor::cat(&[&text, &random(&[1, 2, 7])], 1).unwrap();
        let both = Tensor::cat(&[&longer, &random(&[1, 5, 7])], 0).unwrap();
        let mask = Tensor::from_vec(&[true, true, true, false, false, true, true, true, true, true], &[2, 5]).unwrap();
        let images = Tensor::cat(&[&image, &random(&[1, 9, 5])], 0).unwrap();
        let present = Tensor::from_slice(&[true, false]).unwrap();
        let out = model.reason(&feature_set(&both, Some(mask), &images, Some(present)), false).unwrap();
        let row = out.features.values.narrow(0, 0, 1).unwrap();
        assert!(max_difference(&row, &alone.features.values) < 1e-4, "{network:?}");
        assert!(out.features.values.isfinite().unwrap().min().unwrap().to_f64().unwrap() > 0.5, "{network:?}");
        assert_eq!(alone.attention.is_empty(), network.kind == "mlp", "{network:?}");
        for map in &alone.attention {
            assert_eq!(map.weights.shape(), [1, 9], "{network:?}");
            let sum = map.weights.sum().unwrap().to_f64().unwrap();
            let limit = if network.kind == "single_stream" { 1.0 } else { 1.0 + 1e-4 };
            assert!(sum <= limit + 1e-4 && sum > 0.0, "{network:?}: {sum}");
        }
        // Every parameter gets a gradient.
        let loss =
            model.reason(&feature_set(&both, None, &images, None), true).unwrap().features.values.pow(2.0).unwrap();
        loss.sum().unwrap().backward().unwrap();
        for (name, tensor) in params.named(&[mm_core::Role::Trainable]) {
            assert!(tensor.grad().is_some(), "{network:?}: {name}");
        }
    }
}

#[test]
fn invalid_options_are_errors() {
    let dims = [(Modality::TEXT, 7), (Modality::IMAGE, 5)];
    let error = |config: ReasoningConfig| {
        let params = Params::new(Device::Cpu);
        build(&params.scope(), &config, &dims).map(drop).unwrap_err().to_string()
    };
    let of_network = |network| error(ReasoningConfig { network, ..ReasoningConfig::default() });
    assert!(
        error(ReasoningConfig { query: "txet".into(), ..ReasoningConfig::default() }).contains("did you mean `text`")
    );
    assert!(error(ReasoningConfig { hidden_dim: 0, ..ReasoningConfig::default() }).contains("hidden_dim"));
    assert!(of_network(NetworkConfig::new("mac").with("num_steps", 0)).contains("num_steps"));
    let misspelt = of_network(NetworkConfig::new("mac").with("num_step", 3));
    assert!(misspelt.contains("did you mean `num_steps`"), "{misspelt}");
    assert!(of_network(NetworkConfig::new("flim")).contains("did you mean `film`"));
    let network = NetworkConfig::new("mlp").with("num_positions", 4).with("num_layers", 1);
    let config = ReasoningConfig { network, hidden_dim: 12, ..ReasoningConfig::default() };
    let fresh = Params::new(Device::Cpu);
    let model = build(&fresh.scope(), &config, &dims).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
    let error =
        model.reason(&feature_set(&zeros(&[1, 3, 7]), None, &zeros(&[1, 9, 5]), None), false).map(drop).unwrap_err();
    assert!(error.to_string().contains("num_positions = 9"), "{error}");
}

/// Answers with ones.
struct Constant;

impl ReasoningNetwork for Constant {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        Ok(NetworkOutput { answer: input.query.ones_like()?, attention: Vec::new() })
    }
}

#[test]
fn a_registered_network_is_selected_by_its_kind() {
    let spec = NetworkSpec { kind: "constant", build: |_| Ok(Box::new(Constant)), one_step_per_token: false };
    register_network(spec).unwrap();
    assert!(register_network(spec).unwrap_err().to_string().contains("constant"));
    let text = "network = { kind = \"constant\" }\nhidden_dim = 8";
    let config: ReasoningConfig = toml::from_str(text).unwrap();
    let params = Params::new(Device::Cpu);
    let model = build(&params.scope(), &config, &[(Modality::TEXT, 7), (Modality::IMAGE, 5)]).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
    let out = model.reason(&feature_set(&zeros(&[1, 3, 7]), None, &zeros(&[1, 9, 5]), None), false).unwrap();
    assert_eq!(out.features.values.to_vec::<f32>().unwrap(), [1.0; 8]);
}

/// Objects of four colors lie on a grid of nine positions; the question names a color, the answer is the shape of the
/// object of that color. Neither the colors nor the shapes alone predict it: a network has to attend to the object that
/// the question names.
#[test]
fn every_network_learns_to_attend_to_the_object_that_the_question_names() {
    const COLORS: usize = 4;
    mm_core::set_num_threads(1);
    let batch = |number: u64, rows: usize| {
        let mut random = mm_core::seed::Rng::new(&[0xB1_4D, number]);
        let (mut text, mut image, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rows {
            let asked = random.below(COLORS);
            // "which shape has the … object": the color is the middle word.
            for word in [COLORS, asked, COLORS + 1] {
                text.extend((0..COLORS + 2).map(|n| f32::from(u8::from(n == word))));
            }
            let mut grid = [[0f32; COLORS + 2]; 9];
            let mut order: Vec<usize> = (0..9).collect();
            random.shuffle(&mut order);
            for color in 0..COLORS {
                let shape = random.below(2);
                grid[order[color]][color] = 1.0;
                grid[order[color]][COLORS + shape] = 1.0;
                if color == asked {
                    labels.push(shape as i64);
                }
            }
            image.extend(grid.concat());
        }
        let text = Tensor::from_vec(&text, &[rows as i64, 3, COLORS as i64 + 2]).unwrap();
        let image = Tensor::from_vec(&image, &[rows as i64, 9, COLORS as i64 + 2]).unwrap();
        (text, image, Tensor::from_slice(&labels).unwrap())
    };
    let mut found = Vec::new();
    // The baseline without attention learns this too, but from many more rows.
    for network in networks().into_iter().filter(|n| n.kind != "mlp") {
        manual_seed(2);
        let params = Params::new(Device::Cpu);
        let image_dim = COLORS as i64 + 2;
        let config =
            ReasoningConfig { network: network.clone(), hidden_dim: 32, dropout: 0.0, ..ReasoningConfig::default() };
        let model = build(&params.scope(), &config, &[(Modality::TEXT, 32), (Modality::IMAGE, image_dim)]).unwrap();
        let sizes = mm_core::nn::LstmConfig {
            input_dim: image_dim,
            hidden_dim: 32,
            num_layers: 1,
            bidirectional: false,
            dropout: 0.0,
        };
        let lstm = mm_core::nn::Lstm::new(&params.scope().pp("lstm"), sizes).unwrap();
        let head = Linear::new(&params.scope().pp("head"), 32, 2, true).unwrap();
        let logits = |text: &Tensor, image: &Tensor, train: bool| {
            let encoded = lstm.forward(text, None, train).unwrap();
            let out = model.reason(&feature_set(&encoded, None, image, None), train).unwrap().features.values;
            head.forward(&out.select(1, 0).unwrap(), train).unwrap()
        };
        let settings = mm_train::OptimizerConfig { lr: 2e-3, ..Default::default() };
        let mut optimizer = mm_train::Optimizer::new(&settings, &params).unwrap();
        for step in 0..400 {
            let (text, image, labels) = batch(step, 64);
            optimizer.zero_grad();
            logits(&text, &image, true).cross_entropy(&labels, -100, 0.0).unwrap().backward().unwrap();
            optimizer.step(1.0, 1.0).unwrap();
        }
        let (text, image, labels) = batch(u64::MAX, 1000);
        let correct = logits(&text, &image, false).argmax(1).unwrap().eq(&labels).unwrap();
        let accuracy = correct.to_dtype(DType::F32).unwrap().mean().unwrap().to_f64().unwrap();
        println!("{network:?}: {accuracy:.3}");
        found.push((network, accuracy));
    }
    for (network, accuracy) in found {
        assert!(accuracy > 0.95, "{network:?}: {accuracy}; always predicting the more frequent shape gives 0.69");
    }
}
