//! Every operator with every replacement of missing modalities.

use crate::{Fusion, FusionConfig, MissingModality, OperatorConfig, operator_spec, operators};
use mm_core::{Device, FeatureSet, Features, Modality, Params, Tensor, seed::Rng};
use proptest::prelude::*;

const DIMS: [(Modality, i64); 3] = [(Modality::AUDIO, 5), (Modality::TEXT, 6), (Modality::IMAGE, 7)];

fn build(config: &FusionConfig) -> (Params, Fusion) {
    let params = Params::new(Device::Cpu);
    let fusion = Fusion::new(&params.scope(), config, &DIMS).unwrap();
    (params, fusion)
}

fn config(kind: &str, missing: MissingModality) -> FusionConfig {
    FusionConfig { operator: OperatorConfig::new(kind), dim: 8, missing, ..FusionConfig::default() }
}

/// Rows of `length` positions; `has[row][modality]`, and how many positions of each row count.
fn set(has: &[[bool; 3]], lengths: &[i64], length: i64, seed: u64) -> FeatureSet {
    let rows = has.len() as i64;
    let mut set = FeatureSet::new(rows);
    for (number, (modality, width)) in DIMS.iter().enumerate() {
        let mut values = Vec::new();
        for row in 0..rows {
            // A row's values do not depend on its batch.
            let mut random = Rng::new(&[seed, row as u64, number as u64]);
            let row: Vec<f32> = (0..9 * width).map(|_| random.below(2000) as f32 / 500.0 - 2.0).collect();
            values.push(Tensor::from_vec(&row, &[1, 9, *width]).unwrap().narrow(1, 0, length).unwrap());
        }
        let values = Tensor::cat(&values.iter().collect::<Vec<_>>(), 0).unwrap();
        let mask: Vec<bool> = lengths.iter().flat_map(|l| (0..length).map(move |p| p < *l)).collect();
        let mask = Tensor::from_vec(&mask, &[rows, length]).unwrap();
        let present: Vec<bool> = has.iter().map(|h| h[number]).collect();
        let features = Features::new(values, Some(mask)).unwrap();
        set.insert(modality.clone(), features, Some(Tensor::from_slice(&present).unwrap())).unwrap();
    }
    set
}

fn mult(pooled: bool) -> OperatorConfig {
    let config = OperatorConfig::new("mult").with("num_layers", 1).with("num_heads", 2).with("kernel_size", 3);
    config.with("dropout", 0.0).with("pooled", pooled)
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
}

#[test]
fn every_operator_is_finite_with_missing_modalities_and_backpropagates_to_all_it_uses() {
    for kind in operators().iter().map(|spec| spec.kind) {
        for missing in [
            MissingModality::Mask,
            MissingModality::Token,
            MissingModality::Zero,
            MissingModality::Mean,
            MissingModality::LearnedImputation,
        ] {
            let (params, fusion) = build(&config(kind, missing));
            let some = set(&[[true; 3], [true, false, true], [false; 3], [true, true, false]], &[4, 2, 3, 1], 4, 3);
            let out = fusion.fuse(&some, true).unwrap();
            assert_eq!(out.features.values.shape(), [4, 1, 8], "{kind}");
            let mut loss = out.features.values.pow(2.0).unwrap().sum().unwrap();
            if let Some(own) = out.aux_loss {
                loss = loss.add(&own).unwrap();
            }
            assert!(loss.to_f64().unwrap().is_finite(), "{kind} {missing:?}");
            loss.backward().unwrap();
            for (name, tensor) in params.named(&[mm_core::Role::Trainable]) {
                if let Some(gradient) = tensor.grad() {
                    assert!(gradient.sum().unwrap().to_f64().unwrap().is_finite(), "{kind} {missing:?} {name}");
                }
            }
            for (modality, _) in &DIMS {
                let name = format!("inputs.{modality}.projection.weight");
                let weight = params.named(&[mm_core::Role::Trainable]).into_iter().find(|(n, _)| *n == name).unwrap().1;
                let moved = weight.grad().is_some_and(|g| g.abs().unwrap().sum().unwrap().to_f64().unwrap() > 0.0);
                // Cyclic translation predicts the other modalities from the main one and does not use them as inputs.
                assert!(moved || (kind == "mctn" && *modality != Modality::TEXT), "{kind} {missing:?} {name}");
            }
        }
    }
}

#[test]
fn aligned_operators_are_applied_per_position_and_padding_is_zero() {
    for kind in operators().iter().map(|spec| spec.kind) {
        if operator_spec(kind).unwrap().takes_sequences {
            continue;
        }
        let aligned = FusionConfig { aligned: true, ..config(kind, MissingModality::Mask) };
        let (_params, fusion) = build(&aligned);
        let both = set(&[[true; 3], [true, true, false]], &[3, 1], 3, 5);
        let out = fusion.fuse(&both, false).unwrap().features;
        assert_eq!(out.values.shape(), [2, 3, 8], "{kind}");
        assert!(
            out.values.select(0, 1).unwrap().narrow(0, 1, 2).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
                == 0.0
        );
        let one = set(&[[true; 3]], &[3], 3, 5);
        let alone = fusion.fuse(&one, false).unwrap().features;
        assert!(max_difference(&alone.values, &out.values.narrow(0, 0, 1).unwrap()) < 1e-5, "{kind}");
    }
    for operator in
        [mult(false), OperatorConfig::new("mfn").with("hidden_dim", 4).with("memory_dim", 6).with("pooled", false)]
    {
        let (_params, fusion) = build(&FusionConfig { operator, dim: 8, ..FusionConfig::default() });
        let out = fusion.fuse(&set(&[[true; 3], [true, true, false]], &[3, 1], 3, 5), false).unwrap().features;
        assert_eq!(out.values.shape(), [2, 3, 8]);
    }
}

#[test]
fn invalid_settings_are_errors() {
    let error = |config: &FusionConfig| {
        Fusion::new(&Params::new(Device::Cpu).scope(), config, &DIMS).map(drop).unwrap_err().to_string()
    };
    assert!(operator_spec("gatd").unwrap_err().to_string().contains("gated"));
    let wide = FusionConfig {
        operator: OperatorConfig::new("tensor_fusion").with("modality_dim", 200),
        ..FusionConfig::default()
    };
    assert!(error(&wide).contains("1,048,576"));
    assert!(error(&FusionConfig { dropout: 1.5, ..FusionConfig::default() }).contains("fusion.dropout"));
    let main = OperatorConfig::new("film").with("main_modality", "smell");
    assert!(error(&FusionConfig { operator: main, ..FusionConfig::default() }).contains("smell"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    #[test]
    fn a_row_does_not_depend_on_other_rows(
        has in prop::collection::vec(prop::array::uniform3(any::<bool>()), 2..5),
        first in prop::array::uniform3(any::<bool>()),
        lengths in prop::collection::vec(1i64..6, 5),
    ) {
        prop_assume!(first.iter().any(|h| *h));
        for kind in operators().iter().map(|spec| spec.kind) {
            for missing in [MissingModality::Mask, MissingModality::Token, MissingModality::Mean, MissingModality::LearnedImputation] {
                let (_params, fusion) = build(&config(kind, missing));
                let alone = set(&[first], &lengths[..1], lengths[0], 9);
                let all: Vec<[bool; 3]> = std::iter::once(first).chain(has.iter().copied()).collect();
                let longest = lengths[..all.len()].iter().copied().max().unwrap();
                let together = set(&all, &lengths[..all.len()], longest, 9);
                let one = fusion.fuse(&alone, false).unwrap().features.values;
                let two = fusion.fuse(&together, false).unwrap().features.values.narrow(0, 0, 1).unwrap();
                prop_assert!(max_difference(&one, &two) < 1e-4, "{} {:?}: {}", kind, missing, max_difference(&one, &two));
            }
        }
    }
}

/// One modality names an object at some step; the other states at other steps for each object whether it is present.
/// The label is whether the named object is present: neither modality alone has it, and pooling a sequence destroys it.
#[test]
fn crossmodal_attention_solves_a_temporal_matching_task_that_pooling_cannot() {
    const LENGTH: usize = 8;
    const OBJECTS: usize = 4;
    const STEPS: u64 = 700;
    // Too small to gain from a second thread.
    mm_core::set_num_threads(1);
    let batch = |number: u64, rows: usize| {
        let mut random = Rng::new(&[0x1A66, number]);
        let (mut named, mut stated, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rows {
            let (named_object, when) = (random.below(OBJECTS), random.below(LENGTH / 2));
            let mut steps: Vec<usize> = (0..LENGTH).collect();
            random.shuffle(&mut steps);
            let mut name = [[0f32; OBJECTS]; LENGTH];
            name[when][named_object] = 1.0;
            let mut state = [[0f32; OBJECTS + 1]; LENGTH];
            for object in 0..OBJECTS {
                let present = random.below(2) == 1;
                state[steps[object]][object] = 1.0;
                state[steps[object]][OBJECTS] = if present { 1.0 } else { -1.0 };
                if object == named_object {
                    labels.push(i64::from(present));
                }
            }
            named.extend(name.concat());
            stated.extend(state.concat());
        }
        let mut set = FeatureSet::new(rows as i64);
        for (modality, values, width) in [(Modality::AUDIO, named, OBJECTS), (Modality::IMAGE, stated, OBJECTS + 1)] {
            let values = Tensor::from_vec(&values, &[rows as i64, LENGTH as i64, width as i64]).unwrap();
            set.insert(modality, Features::new(values, None).unwrap(), None).unwrap();
        }
        (set, Tensor::from_slice(&labels).unwrap())
    };
    let accuracy = |operator: OperatorConfig| {
        mm_core::seed::manual_seed(1);
        let params = Params::new(Device::Cpu);
        let config = FusionConfig { operator, dim: 32, dropout: 0.0, ..FusionConfig::default() };
        let fusion = Fusion::new(
            &params.scope().pp("fusion"),
            &config,
            &[(Modality::AUDIO, OBJECTS as i64), (Modality::IMAGE, OBJECTS as i64 + 1)],
        )
        .unwrap();
        let head = mm_core::nn::Linear::new(&params.scope().pp("head"), 32, 2, true).unwrap();
        let logits = |set: &FeatureSet, train: bool| {
            let fused = fusion.fuse(set, train).unwrap().features.values.select(1, 0).unwrap();
            mm_core::Module::forward(&head, &fused, train).unwrap()
        };
        let settings = mm_train::OptimizerConfig { lr: 4e-3, ..Default::default() };
        let mut optimizer = mm_train::Optimizer::new(&settings, &params).unwrap();
        for step in 0..STEPS {
            let (set, labels) = batch(step, 64);
            optimizer.zero_grad();
            logits(&set, true).cross_entropy(&labels, -100, 0.0).unwrap().backward().unwrap();
            optimizer.step(1.0, 1.0).unwrap();
        }
        // Held-out rows.
        let (set, labels) = batch(u64::MAX, 1000);
        let right = logits(&set, false).argmax(1).unwrap().eq(&labels).unwrap();
        right.to_dtype(mm_core::DType::F32).unwrap().mean().unwrap().to_f64().unwrap()
    };
    let attention = accuracy(mult(true));
    let pooled = accuracy(OperatorConfig::new("concat"));
    println!("MulT {attention:.3}, pooled {pooled:.3}");
    assert!(attention > 0.95 && pooled < 0.75, "MulT {attention:.3}, pooled {pooled:.3}");
}
