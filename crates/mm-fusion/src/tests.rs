//! Every operator with every strategy for what is missing.

use crate::{FusionConfig, Missing, OPERATORS, Operator, build, of_kind};
use mm_core::{Device, FeatureSet, Features, FusionOperator, Modality, Params, Tensor, seed::Rng};
use proptest::prelude::*;

const WIDTHS: [(Modality, i64); 3] = [(Modality::AUDIO, 5), (Modality::TEXT, 6), (Modality::IMAGE, 7)];

fn made(config: &FusionConfig) -> (Params, Box<dyn FusionOperator>) {
    let params = Params::new(Device::Cpu);
    let fusion = build(&params.scope(), config, &WIDTHS).unwrap();
    (params, fusion)
}

fn config(kind: &str, missing: Missing) -> FusionConfig {
    FusionConfig { operator: of_kind(kind).unwrap(), width: 8, missing, ..FusionConfig::default() }
}

/// Rows of `length` positions; `has[row][modality]`, and how many positions of each row count.
fn set(has: &[[bool; 3]], lengths: &[i64], length: i64, seed: u64) -> FeatureSet {
    let rows = has.len() as i64;
    let mut set = FeatureSet::new(rows);
    for (number, (modality, width)) in WIDTHS.iter().enumerate() {
        let mut values = Vec::new();
        for row in 0..rows {
            // A row's numbers are its own, whatever batch it is in.
            let mut random = Rng::new(&[seed, row as u64, number as u64]);
            let numbers: Vec<f32> = (0..9 * width).map(|_| random.below(2000) as f32 / 500.0 - 2.0).collect();
            values.push(Tensor::from_vec(&numbers, &[1, 9, *width]).unwrap().narrow(1, 0, length).unwrap());
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

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
}

#[test]
fn every_operator_fuses_gives_gradients_to_all_it_reads_and_survives_a_row_with_nothing() {
    for (kind, _) in OPERATORS {
        for missing in [Missing::Mask, Missing::Token, Missing::Zero, Missing::Mean, Missing::Imagined] {
            let (params, fusion) = made(&config(kind, missing));
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
            for (modality, _) in &WIDTHS {
                let name = format!("inputs.{modality}.projection.weight");
                let weight = params.named(&[mm_core::Role::Trainable]).into_iter().find(|(n, _)| *n == name).unwrap().1;
                let moved = weight.grad().is_some_and(|g| g.abs().unwrap().sum().unwrap().to_f64().unwrap() > 0.0);
                // Cyclic translation reads its main modality alone; the others are what it tells.
                assert!(moved || (*kind == "mctn" && *modality != Modality::TEXT), "{kind} {missing:?} {name}");
            }
        }
    }
}

#[test]
fn aligned_operators_act_on_each_position_and_padding_is_zero() {
    for (kind, _) in OPERATORS {
        let operator = of_kind(kind).unwrap();
        if operator.takes_sequences() {
            continue;
        }
        let aligned = FusionConfig { aligned: true, ..config(kind, Missing::Mask) };
        let (_params, fusion) = made(&aligned);
        let both = set(&[[true; 3], [true, true, false]], &[3, 1], 3, 5);
        let out = fusion.fuse(&both, false).unwrap().features;
        assert_eq!(out.values.shape(), [2, 3, 8], "{kind}");
        assert!(
            out.values.select(0, 1).unwrap().narrow(0, 1, 2).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
                == 0.0
        );
        let one = set(&[[true; 3]], &[3], 3, 5);
        let alone = fusion.fuse(&one, false).unwrap().features;
        assert!(worst(&alone.values, &out.values.narrow(0, 0, 1).unwrap()) < 1e-5, "{kind}");
    }
    for operator in [
        Operator::Mult { layers: 1, heads: 2, kernel: 3, dropout: 0.0, pooled: false },
        Operator::Memory { hidden: 4, memory: 6, pooled: false },
    ] {
        let (_params, fusion) = made(&FusionConfig { operator, width: 8, ..FusionConfig::default() });
        let out = fusion.fuse(&set(&[[true; 3], [true, true, false]], &[3, 1], 3, 5), false).unwrap().features;
        assert_eq!(out.values.shape(), [2, 3, 8]);
    }
}

#[test]
fn what_cannot_be_built_is_told() {
    let told = |config: &FusionConfig| {
        build(&Params::new(Device::Cpu).scope(), config, &WIDTHS).map(drop).unwrap_err().to_string()
    };
    assert!(of_kind("gatd").unwrap_err().to_string().contains("gated"));
    let wide = FusionConfig { operator: Operator::Tensor { part: 200, hidden: 4 }, ..FusionConfig::default() };
    assert!(told(&wide).contains("1,048,576"));
    assert!(told(&FusionConfig { dropout: 1.5, ..FusionConfig::default() }).contains("fusion.dropout"));
    let main = Operator::Film { main: Some("smell".into()) };
    assert!(told(&FusionConfig { operator: main, ..FusionConfig::default() }).contains("smell"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]
    #[test]
    fn a_row_is_the_same_whatever_its_neighbours_lack(
        has in prop::collection::vec(prop::array::uniform3(any::<bool>()), 2..5),
        first in prop::array::uniform3(any::<bool>()),
        lengths in prop::collection::vec(1i64..6, 5),
    ) {
        prop_assume!(first.iter().any(|h| *h));
        for (kind, _) in OPERATORS {
            for missing in [Missing::Mask, Missing::Token, Missing::Mean, Missing::Imagined] {
                let (_params, fusion) = made(&config(kind, missing));
                let alone = set(&[first], &lengths[..1], lengths[0], 9);
                let all: Vec<[bool; 3]> = std::iter::once(first).chain(has.iter().copied()).collect();
                let longest = lengths[..all.len()].iter().copied().max().unwrap();
                let together = set(&all, &lengths[..all.len()], longest, 9);
                let one = fusion.fuse(&alone, false).unwrap().features.values;
                let two = fusion.fuse(&together, false).unwrap().features.values.narrow(0, 0, 1).unwrap();
                prop_assert!(worst(&one, &two) < 1e-4, "{} {:?}: {}", kind, missing, worst(&one, &two));
            }
        }
    }
}

/// One modality names a thing at some moment, the other tells of each thing at another moment whether it is there: which of them was meant
/// is known to neither alone, and no longer once a sequence is pooled.
#[test]
fn what_comes_later_in_another_modality_is_found_by_crossmodal_attention_and_not_after_pooling() {
    const LENGTH: usize = 8;
    const THINGS: usize = 4;
    const STEPS: u64 = 700;
    // So small that a second thread only waits for the first.
    mm_core::set_num_threads(1);
    let batch = |number: u64, rows: usize| {
        let mut random = Rng::new(&[0x1A66, number]);
        let (mut named, mut told, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rows {
            let (meant, when) = (random.below(THINGS), random.below(LENGTH / 2));
            let mut moments: Vec<usize> = (0..LENGTH).collect();
            random.shuffle(&mut moments);
            let mut name = [[0f32; THINGS]; LENGTH];
            name[when][meant] = 1.0;
            let mut tell = [[0f32; THINGS + 1]; LENGTH];
            for thing in 0..THINGS {
                let there = random.below(2) == 1;
                tell[moments[thing]][thing] = 1.0;
                tell[moments[thing]][THINGS] = if there { 1.0 } else { -1.0 };
                if thing == meant {
                    labels.push(i64::from(there));
                }
            }
            named.extend(name.concat());
            told.extend(tell.concat());
        }
        let mut set = FeatureSet::new(rows as i64);
        for (modality, values, width) in [(Modality::AUDIO, named, THINGS), (Modality::IMAGE, told, THINGS + 1)] {
            let values = Tensor::from_vec(&values, &[rows as i64, LENGTH as i64, width as i64]).unwrap();
            set.insert(modality, Features::new(values, None).unwrap(), None).unwrap();
        }
        (set, Tensor::from_slice(&labels).unwrap())
    };
    let accuracy = |operator: Operator| {
        mm_core::seed::manual_seed(1);
        let params = Params::new(Device::Cpu);
        let config = FusionConfig { operator, width: 32, dropout: 0.0, ..FusionConfig::default() };
        let fusion = build(
            &params.scope().pp("fusion"),
            &config,
            &[(Modality::AUDIO, THINGS as i64), (Modality::IMAGE, THINGS as i64 + 1)],
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
        // Rows that were never learned from.
        let (set, labels) = batch(u64::MAX, 1000);
        let right = logits(&set, false).argmax(1).unwrap().eq(&labels).unwrap();
        right.to_dtype(mm_core::DType::F32).unwrap().mean().unwrap().to_f64().unwrap()
    };
    let attention = accuracy(Operator::Mult { layers: 1, heads: 2, kernel: 3, dropout: 0.0, pooled: true });
    let pooled = accuracy(of_kind("concat").unwrap());
    println!("MulT {attention:.3}, pooled {pooled:.3}");
    assert!(attention > 0.95 && pooled < 0.75, "MulT {attention:.3}, pooled {pooled:.3}");
}
