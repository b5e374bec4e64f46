//! Property tests of masks, batches, caches and checkpoints over many sizes.

use super::*;
use crate::{Checkpoint, DType, Device, Init, Params, Role, Tensor, checkpoint, no_grad, seed::manual_seed};
use proptest::prelude::*;

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
}

fn config(heads: i64, groups: i64, kind: u8, norm_first: bool, gated: bool, causal: bool) -> TransformerConfig {
    let position = match kind {
        0 => Position::None,
        _ => Position::Rotary { base: 1e4 },
    };
    let width = heads * 6;
    let attention =
        AttentionConfig { num_kv_heads: Some(groups), causal, position, ..AttentionConfig::new(width, heads) };
    let mlp = MlpConfig { gated, ..MlpConfig::new(2 * width, Activation::Gelu) };
    let norm =
        NormConfig { kind: if gated { NormKind::RmsNorm } else { NormKind::LayerNorm }, ..NormConfig::default() };
    let block =
        BlockConfig { norm, norm_first, layer_scale: gated.then_some(0.5), ..BlockConfig::post_norm(attention, mlp) };
    TransformerConfig::new(2, block)
}

/// Parameters and stack, trainable.
fn trainable(config: &TransformerConfig) -> (Params, Transformer) {
    let params = Params::new(Device::Cpu);
    let model = Transformer::new(&params.scope(), config).unwrap();
    (params, model)
}

/// A layer over a trainable weight is not frozen: its output without gradients follows changes of the weight.
#[test]
fn a_tied_layer_follows_its_weight() {
    let params = Params::new(Device::Cpu);
    let weight = params.scope().param("weight", &[40, 24], Init::Normal(1.0)).unwrap();
    let tied = Linear::from_parts(weight.clone(), None);
    let x = random(&[70, 24]);
    for _ in 0..2 {
        let without = no_grad(|| tied.forward_activation(&x, Activation::Identity)).unwrap();
        assert!(max_difference(&x.linear(&weight, None).unwrap(), &without) < 1e-4);
        no_grad(|| weight.scale_add_(0.7, &random(&[40, 24]), 0.3)).unwrap();
    }
}

/// Without gradients, other operators are used, on packed weights: they must give the same values, also after the
/// weights have changed.
#[test]
fn a_trainable_stack_gives_the_same_without_gradients() {
    manual_seed(4);
    for (norm_first, gated, activation) in
        [(true, false, Activation::Gelu), (false, true, Activation::Silu), (true, false, Activation::QuickGelu)]
    {
        let mut config = config(2, 2, 0, norm_first, gated, false);
        config.block.mlp.activation = activation;
        let (params, model) = trainable(&config);
        let x = random(&[5, 30, 12]);
        for _ in 0..3 {
            let with = model.forward(&x, ForwardArgs::default()).unwrap();
            for _ in 0..2 {
                let without = no_grad(|| model.forward(&x, ForwardArgs::default())).unwrap();
                assert!(with.requires_grad() && !without.requires_grad());
                assert!(max_difference(&with, &without) < 1e-5, "{}", max_difference(&with, &without));
            }
            // As an optimizer does, and after a pass without gradients.
            for (_, weight) in params.named(&[Role::Trainable]) {
                no_grad(|| weight.scale_add_(0.7, &random(&weight.shape()), 0.3)).unwrap();
            }
        }
    }
}

/// The fused kernel and explicit products give the same values and gradients; those of the products can be
/// differentiated again.
#[test]
fn math_attention_matches_fused_attention_and_allows_double_backward() {
    manual_seed(5);
    for (length, kind, causal) in [(3i64, 0u8, false), (9, 0, true), (30, 1, false), (70, 1, true)] {
        let (params, model) = trainable(&config(2, 2, kind, true, false, causal));
        let x = random(&[2, length, 12]).set_requires_grad(true).unwrap();
        let mut keep = vec![true; 2 * length as usize];
        keep[length as usize - 1] = false;
        let mask = Mask::Padding(Tensor::from_vec(&keep, &[2, length]).unwrap());
        let run = || model.forward(&x, ForwardArgs { mask: Some(&mask), ..ForwardArgs::default() }).unwrap();
        let slopes = |y: &Tensor| {
            x.zero_grad();
            params.named(&[Role::Trainable]).iter().for_each(|(_, w)| w.zero_grad());
            y.mul(y).unwrap().sum().unwrap().backward().unwrap();
            let own = params.named(&[Role::Trainable]).into_iter().filter_map(|(_, w)| w.grad());
            std::iter::once(x.grad().unwrap()).chain(own).map(|g| g.copy().unwrap()).collect::<Vec<_>>()
        };
        let (fused, plain) = (run(), with_math_attention(run));
        assert!(max_difference(&fused, &plain) < 1e-5);
        let (a, b) = (slopes(&fused), slopes(&plain));
        assert!(a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| max_difference(a, b) < 1e-3), "{length}, {kind}");
        let again = with_math_attention(run).pow(2.0).unwrap().sum().unwrap().autograd_grad(&[&x]).unwrap();
        again[0].pow(2.0).unwrap().sum().unwrap().backward().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn masked_positions_and_other_rows_have_no_effect(
        seed in 0u64..1000, (heads, groups) in prop::sample::select(vec![(1i64, 1i64), (2, 1), (4, 2), (3, 3)]), kind in 0u8..2,
        kept in 1i64..7, padded in 1i64..5, norm_first: bool, gated: bool, causal: bool, frozen: bool,
    ) {
        manual_seed(seed);
        let config = config(heads, groups, kind, norm_first, gated, causal);
        let params = Params::new(Device::Cpu);
        let scope = if frozen { params.scope().frozen() } else { params.scope() };
        let model = Transformer::new(&scope, &config).unwrap();
        let width = config.block.attention.embed_dim;
        let short = random(&[1, kept, width]);
        let alone = model.forward(&short, ForwardArgs::default()).unwrap();
        // The same row followed by padding, in a batch with a longer row.
        let padding = random(&[1, padded, width]);
        let other = random(&[1, kept + padded, width]);
        let both = Tensor::cat(&[&Tensor::cat(&[&short, &padding], 1).unwrap(), &other], 0).unwrap();
        let mut keep = vec![true; (2 * (kept + padded)) as usize];
        keep[kept as usize..(kept + padded) as usize].fill(false);
        let mask = Mask::Padding(Tensor::from_vec(&keep, &[2, kept + padded]).unwrap());
        let out = model.forward(&both, ForwardArgs { mask: Some(&mask), ..ForwardArgs::default() }).unwrap();
        let row = out.narrow(0, 0, 1).unwrap().narrow(1, 0, kept).unwrap();
        prop_assert!(max_difference(&row, &alone) < 1e-4, "{}", max_difference(&row, &alone));
        let lone = model.forward(&other, ForwardArgs::default()).unwrap();
        prop_assert!(max_difference(&out.narrow(0, 1, 1).unwrap(), &lone) < 1e-4);
    }

    #[test]
    fn incremental_decoding_matches_a_full_pass(
        seed in 0u64..1000, kind in 0u8..2, length in 2i64..8, first in 1i64..4, norm_first: bool, gated: bool,
    ) {
        manual_seed(seed);
        let config = config(2, 1, kind, norm_first, gated, true);
        let params = Params::new(Device::Cpu);
        let model = Transformer::new(&params.scope(), &config).unwrap();
        let x = random(&[2, length, config.block.attention.embed_dim]);
        let whole = model.forward(&x, ForwardArgs::default()).unwrap();
        let mut states = model.new_caches();
        let (mut at, mut parts) = (0, Vec::new());
        while at < length {
            let count = if at == 0 { first.min(length) } else { (length - at).min(1 + at % 2) };
            parts.push(model.forward(&x.narrow(1, at, count).unwrap(), ForwardArgs { caches: Some(&mut states), ..ForwardArgs::default() }).unwrap());
            at += count;
        }
        let stepped = Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1).unwrap();
        prop_assert!(max_difference(&stepped, &whole) < 1e-4, "{}", max_difference(&stepped, &whole));
    }

    #[test]
    fn attention_weights_sum_to_one_and_match_the_fused_kernel(
        seed in 0u64..1000, queries in 1i64..6, keys in 1i64..6, causal: bool,
    ) {
        manual_seed(seed);
        let config = AttentionConfig { causal, context_dim: Some(10), ..AttentionConfig::new(12, 3) };
        let params = Params::new(Device::Cpu);
        let attention = Attention::new(&params.scope(), &config).unwrap();
        let (x, y) = (random(&[2, queries, 12]), random(&[2, keys, 10]));
        let fused = attention.forward(&x, AttentionArgs { context: Some(&y), ..AttentionArgs::default() }).unwrap().values;
        let explicit = attention.forward(&x, AttentionArgs { context: Some(&y), need_weights: true, ..AttentionArgs::default() }).unwrap();
        prop_assert!(max_difference(&fused, &explicit.values) < 1e-5);
        let sums = explicit.weights.unwrap().sum_dim(&[-1], false).unwrap();
        prop_assert!(max_difference(&sums, &sums.ones_like().unwrap()) < 1e-5);
    }

    #[test]
    fn checkpoints_round_trip_bit_for_bit(
        shapes in prop::collection::vec(prop::collection::vec(0i64..5, 0..4), 1..6),
        kinds in prop::collection::vec(prop::sample::select(vec![DType::F32, DType::F64, DType::F16, DType::BF16, DType::I64, DType::U8, DType::Bool]), 6),
        shard in 1usize..200,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let tensors: Vec<(String, Tensor)> = shapes.iter().zip(&kinds).enumerate()
            .map(|(i, (shape, kind))| (format!("layer.{i}.weight"), random(shape).mul_scalar(3.0).unwrap().to_dtype(*kind).unwrap())).collect();
        checkpoint::save(&folder.path().join("one.safetensors"), &tensors, &[("format", "pt".into())]).unwrap();
        checkpoint::save_sharded(&folder.path().join("."), &tensors, shard).unwrap();
        std::fs::rename(folder.path().join("one.safetensors"), folder.path().join("one.st")).unwrap();
        let index = ["model.safetensors.index.json", "model.safetensors"].map(|n| folder.path().join(n)).into_iter().find(|p| p.exists()).unwrap();
        for path in [folder.path().join("one.st"), index, folder.path().to_owned()] {
            let read = Checkpoint::open(&path).unwrap();
            prop_assert_eq!(read.names().count(), tensors.len());
            for (name, tensor) in &tensors {
                let again = read.get(name).unwrap();
                prop_assert_eq!(again.shape(), tensor.shape());
                prop_assert_eq!(again.dtype().unwrap(), tensor.dtype().unwrap());
                prop_assert_eq!(again.to_bytes().unwrap(), tensor.to_bytes().unwrap());
            }
        }
    }
}

#[test]
fn packed_projections_keep_their_names_and_problems_are_listed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.safetensors");
    for key_bias in [false, true] {
        let config = AttentionConfig { key_bias, ..AttentionConfig::new(8, 2) };
        let fresh = Params::new(Device::Cpu);
        let plain = Attention::new(&fresh.scope().pp("a"), &config).unwrap();
        checkpoint::save(&file, &fresh.named(&[Role::Trainable]), &[]).unwrap();
        let rename = |n: &str| n.replace("b.", "a.");
        let taken = Params::from_checkpoint(Checkpoint::open(&file).unwrap(), Device::Cpu, DType::F32, rename);
        let packed = Attention::new(&taken.scope().frozen().pp("b"), &config).unwrap();
        assert!(taken.finish().unwrap().is_empty());
        let x = random(&[1, 3, 8]);
        let out = |a: &Attention| a.forward(&x, AttentionArgs::default()).unwrap().values;
        assert!(max_difference(&out(&plain), &out(&packed)) < 1e-6);
        let names: Vec<String> = taken.named(&[Role::Frozen]).into_iter().map(|(n, _)| n).collect();
        let count = if key_bias { 8 } else { 7 };
        assert!(names.contains(&"b.q_proj.weight".to_owned()) && names.len() == count, "{names:?}");
        for (mine, theirs) in taken.named(&[Role::Frozen]).iter().zip(fresh.named(&[Role::Trainable])) {
            assert_eq!(mine.1.to_bytes().unwrap(), theirs.1.to_bytes().unwrap());
        }
    }

    let wrong = Params::from_checkpoint(Checkpoint::open(&file).unwrap(), Device::Cpu, DType::F32, ToOwned::to_owned);
    let root = wrong.scope().pp("a");
    Linear::new(&root.pp("q_proj"), 9, 8, true).unwrap();
    Linear::new(&root.pp("absent"), 3, 4, false).unwrap();
    let text = wrong.finish().unwrap_err().to_string();
    assert!(text.contains("a.q_proj.weight: found [8, 8], expected [8, 9]"), "{text}");
    assert!(text.contains("missing a.absent.weight [4, 3]"), "{text}");

    let other = Params::new(Device::Cpu);
    other.scope().param("x", &[2], Init::Zeros).unwrap();
    let text = other.load(&Checkpoint::open(&file).unwrap(), "").unwrap_err().to_string();
    assert!(text.contains("missing x [2]") && text.contains("unexpected a.q_proj.weight"), "{text}");
}

#[test]
fn invalid_sizes_are_errors() {
    let params = Params::new(Device::Cpu);
    let build = |c: AttentionConfig| Attention::new(&params.scope(), &c).map(drop).unwrap_err().to_string();
    assert!(build(AttentionConfig::new(10, 3)).contains("a divisor of embed_dim 10"));
    assert!(build(AttentionConfig { num_kv_heads: Some(3), ..AttentionConfig::new(8, 4) }).contains("num_kv_heads"));
    assert!(build(AttentionConfig::new(8, 0)).contains("heads"));
    let rotary = Position::Rotary { base: 1e4 };
    assert!(build(AttentionConfig { position: rotary, ..AttentionConfig::new(9, 3) }).contains("even"));
}

#[test]
fn corrupt_or_truncated_safetensors_files_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.safetensors");
    checkpoint::save(&file, &[("x".to_owned(), random(&[4, 4]))], &[]).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        Checkpoint::open(&file).map(drop).unwrap_err().to_string()
    };
    for text in [
        refused(&whole[..whole.len() - 5]),
        refused(&whole[..4]),
        refused(&[&u64::MAX.to_le_bytes()[..], &whole[8..]].concat()),
        refused(&[&(1u64 << 40).to_le_bytes()[..], &whole[8..]].concat()),
        refused(&[&8u64.to_le_bytes()[..], &whole[8..]].concat()),
        refused(b""),
    ] {
        assert!(text.contains("m.safetensors") && text.contains("again"), "{text}");
    }
}
