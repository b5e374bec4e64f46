//! Properties that every learner must have, and numbers known from elsewhere.

use super::{vae::Normal, *};
use mm_core::{DType, Device, Input, Params, no_grad, seed::manual_seed};

fn tensor(values: &[f32], shape: &[i64]) -> Tensor {
    Tensor::from_vec(values, shape).unwrap()
}

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
}

fn spec(shape: &[i64], values: ValueType) -> InputSpec {
    InputSpec { shape: shape.to_vec(), value_type: values }
}

fn alone(values: Tensor) -> InputSet {
    InputSet::of(Modality::IMAGE, Input { values, mask: None }).unwrap()
}

fn build(
    params: &Params,
    text: &str,
    specs: &[(&str, InputSpec)],
    classes: i64,
) -> Result<Box<dyn RepresentationLearner>> {
    let settings: toml::Value = toml::from_str(text).unwrap();
    let specs: InputSpecs = specs.iter().map(|(n, s)| (Modality::from(*n), s.clone())).collect();
    build_learner(&settings, "model", &specs, classes, &params.scope())
}

#[test]
fn the_estimated_derivative_is_right_on_average() {
    manual_seed(1);
    let (weight, x) = (randn(&[3, 5]), randn(&[4, 5]));
    // Of tanh(W x) the derivative is known: (1 − tanh²) W.
    let exact = {
        let slope = x.linear(&weight, None).unwrap().tanh().unwrap().pow(2.0).unwrap().neg().unwrap();
        let slope = slope.add_scalar(1.0).unwrap().pow(2.0).unwrap(); // [4, 3]
        let squares = weight.pow(2.0).unwrap().sum_dim(&[1], false).unwrap(); // [3]
        slope.mul(&squares).unwrap().sum().unwrap().to_f64().unwrap() / 4.0
    };
    let mut sum = 0.0;
    for _ in 0..3000 {
        let x = x.detach().unwrap().set_requires_grad(true).unwrap();
        let code = x.linear(&weight, None).unwrap().tanh().unwrap();
        sum += autoencoder::squared_derivative(&code, &x).unwrap().to_f64().unwrap();
    }
    assert!((sum / 3000.0 / exact - 1.0).abs() < 0.05, "{} for {exact}", sum / 3000.0);
}

#[test]
fn of_a_sparse_code_as_many_numbers_are_left_as_was_said() {
    let params = Params::new(Device::Cpu);
    let text = "kind = 'autoencoder'\nlatent_dim = 20\nsparsity = { top_k = 3 }\nnetwork = { hidden_dims = [8] }";
    let model = build(&params, text, &[("image", spec(&[6], ValueType::Real))], 0).unwrap();
    let code = model.encode(&alone(randn(&[5, 6]))).unwrap().to_vec::<f32>().unwrap();
    assert!(code.chunks(20).all(|row| row.iter().filter(|v| **v != 0.0).count() == 3));
}

#[test]
fn divergence_density_and_product_are_those_of_normal_distributions() {
    let q = Normal { mean: tensor(&[1.0, -0.5], &[1, 2]), log_variance: tensor(&[0.3, -0.2], &[1, 2]) };
    let by_hand: f64 = [(1.0f64, 0.3f64), (-0.5, -0.2)].iter().map(|(m, l)| 0.5 * (m * m + l.exp() - l - 1.0)).sum();
    assert!((q.divergence().unwrap().sum().unwrap().to_f64().unwrap() - by_hand).abs() < 1e-6);
    let density: f64 = [(1.0f64, 0.3f64, 0.2f64), (-0.5, -0.2, 0.1)]
        .iter()
        .map(|(m, l, z)| -0.5 * ((2.0 * std::f64::consts::PI).ln() + l + (z - m).powi(2) / l.exp()))
        .sum();
    let found = q.log_density(&tensor(&[0.2, 0.1], &[1, 2])).unwrap().to_f64().unwrap();
    assert!((found - density).abs() < 1e-5);
    let standard = Normal { mean: tensor(&[0.0; 2], &[1, 2]), log_variance: tensor(&[0.0; 2], &[1, 2]) };
    let z = tensor(&[0.7, -1.1], &[1, 2]);
    assert!(far(&standard.log_density(&z).unwrap(), &vae::prior_log_density(&z).unwrap()) < 1e-6);
}

#[test]
fn a_bound_rises_with_the_number_of_samples() {
    manual_seed(3);
    let params = Params::new(Device::Cpu);
    let model = build(
        &params,
        "kind = 'vae'\nlatent_dim = 4\nnetwork = { hidden_dims = [16] }",
        &[("image", spec(&[6], ValueType::Real))],
        0,
    )
    .unwrap();
    let set = alone(randn(&[64, 6]));
    let mean =
        |samples| no_grad(|| model.log_likelihood(&set, samples)).unwrap().unwrap().mean().unwrap().to_f64().unwrap();
    let (one, ten, many) = (mean(1), mean(10), mean(200));
    assert!(one < ten && ten < many, "{one} {ten} {many}");
}

#[test]
fn a_quantised_code_is_out_of_the_book_and_what_nothing_chooses_is_moved() {
    manual_seed(4);
    let params = Params::new(Device::Cpu);
    let text = "kind = 'vq_vae'\nnum_embeddings = 6\nembedding_dim = 3\ndead_code_threshold = 0.5\nnetwork = { channels = [4] }";
    let model = build(&params, text, &[("image", spec(&[1, 4, 4], ValueType::Real))], 0).unwrap();
    let set = alone(randn(&[8, 1, 4, 4]));
    let (loss, parts) = model.loss(&set, true).unwrap().unwrap();
    loss.backward().unwrap();
    // The gradient passes the choice: the encoder's first weights have one.
    let first = params.named(&[mm_core::Role::Trainable]);
    assert!(first.iter().any(|(n, t)| n.starts_with("encoder") && t.grad().is_some()));
    assert!(parts.iter().any(|(n, v)| n == "perplexity" && *v >= 1.0 && *v <= 6.0));
    let buffers = params.named(&[mm_core::Role::Buffer]);
    let get = |name: &str| buffers.iter().find(|(n, _)| n == name).unwrap().1.clone();
    let book = get("book");
    let code = model.features(&set).unwrap().values.reshape(&[-1, 3]).unwrap(); // [rows · places, 3]
    let nearest = code.cdist(&book).unwrap().to_vec::<f32>().unwrap();
    assert!(nearest.chunks(6).all(|row| row.iter().any(|d| *d < 1e-3)));
    // Nothing chose the third for long: the next step puts it where data are.
    get("chosen").copy_(&tensor(&[9.0, 9.0, 0.01, 9.0, 9.0, 9.0], &[6])).unwrap();
    book.select(0, 2).unwrap().copy_(&tensor(&[1e6; 3], &[3])).unwrap();
    get("sums").select(0, 2).unwrap().copy_(&tensor(&[1e4; 3], &[3])).unwrap();
    model.loss(&set, true).unwrap();
    assert!(book.abs().unwrap().max().unwrap().to_f64().unwrap() < 1e3);
}

#[test]
fn what_is_masked_is_made_and_what_is_seen_stays() {
    let params = Params::new(Device::Cpu);
    let text = "kind = 'mae'\npatch_size = [2, 3]\nembed_dim = 8\nnum_layers = 1\nnum_heads = 2\ndecoder_embed_dim = 8\ndecoder_num_layers = 1\nmask_ratio = 0.5";
    let model = build(&params, text, &[("image", spec(&[2, 4, 6], ValueType::Real))], 0).unwrap();
    let x = randn(&[3, 2, 4, 6]);
    let made = model.reconstruct(&alone(x.clone()), &Modality::IMAGE).unwrap().unwrap();
    let same = made.eq(&x).unwrap().to_dtype(DType::F32).unwrap();
    // Two of four patches of each picture, whole: half of the numbers.
    assert!((same.mean().unwrap().to_f64().unwrap() - 0.5).abs() < 1e-6);
    let patches = same.reshape(&[3, 2, 2, 2, 2, 3]).unwrap().mean_dim(&[1, 3, 5], false).unwrap();
    assert!(patches.to_vec::<f32>().unwrap().iter().all(|v| *v == 0.0 || *v == 1.0));
    // What is hidden does not reach what is made of it.
    manual_seed(9);
    let first = model.reconstruct(&alone(x.clone()), &Modality::IMAGE).unwrap().unwrap();
    manual_seed(9);
    let gone = first.eq(&x).unwrap().logical_not().unwrap();
    let other = model.reconstruct(&alone(x.masked_fill(&gone, 5.0).unwrap()), &Modality::IMAGE).unwrap().unwrap();
    let difference = first.sub(&other).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
    assert!(difference < 1e-5, "{difference}");
}

fn pair(rows: i64, has: &[(&str, Tensor, &[bool])]) -> InputSet {
    let parts = has.iter().map(|(n, v, p)| {
        let input = Input { values: v.clone(), mask: None };
        (Modality::from(*n), (input, Tensor::from_slice(p).unwrap()))
    });
    InputSet { rows, parts: parts.collect(), labels: None }
}

#[test]
fn what_a_row_lacks_changes_neither_it_nor_its_neighbours() {
    let specs = [("face", spec(&[3], ValueType::Real)), ("voice", spec(&[4], ValueType::Real))];
    for joint in ["deterministic", "product_of_experts", "mixture_of_experts", "mixture_of_products"] {
        let params = Params::new(Device::Cpu);
        let text = format!("kind = 'multimodal_vae'\nlatent_dim = 5\njoint_posterior = '{joint}'");
        let model = build(&params, &text, &specs, 0).unwrap();
        let (face, voice) = (randn(&[3, 3]), randn(&[3, 4]));
        let junk = Tensor::cat(&[&voice.narrow(0, 0, 2).unwrap(), &tensor(&[1e3; 4], &[1, 4])], 0).unwrap();
        let present: &[bool] = &[true, true, false];
        let all: &[bool] = &[true; 3];
        let a = model.encode(&pair(3, &[("face", face.clone(), all), ("voice", voice.clone(), present)])).unwrap();
        let b = model.encode(&pair(3, &[("face", face.clone(), all), ("voice", junk, present)])).unwrap();
        assert!(far(&a, &b) < 1e-6, "{joint}");
        let one = model
            .encode(&pair(
                1,
                &[("face", face.narrow(0, 0, 1).unwrap(), &[true]), ("voice", voice.narrow(0, 0, 1).unwrap(), &[true])],
            ))
            .unwrap();
        assert!(far(&a.narrow(0, 0, 1).unwrap(), &one) < 1e-5, "{joint}");
        // The last row has a face alone: as if nobody had a voice.
        let alone = model.encode(&pair(3, &[("face", face.clone(), all)])).unwrap();
        assert!(far(&a.narrow(0, 2, 1).unwrap(), &alone.narrow(0, 2, 1).unwrap()) < 1e-6, "{joint}");
        let made = model.reconstruct(&pair(3, &[("face", face, all)]), &Modality::from("voice")).unwrap().unwrap();
        assert_eq!(made.shape(), [3, 4]);
        // A batch in which nobody has a voice can be learned from; one in which nobody has anything cannot.
        let none: &[bool] = &[false; 3];
        let set = pair(3, &[("face", randn(&[3, 3]), all), ("voice", randn(&[3, 4]), none)]);
        assert!(model.loss(&set, true).unwrap().is_some(), "{joint}");
        let set = pair(3, &[("face", randn(&[3, 3]), none), ("voice", randn(&[3, 4]), none)]);
        assert!(model.loss(&set, true).unwrap().is_none(), "{joint}");
    }
}

#[test]
fn every_kind_learns_to_be_better_than_it_was() {
    let image = ("image", spec(&[1, 8, 8], ValueType::UnitInterval));
    let (face, voice) = (("face", spec(&[6], ValueType::Real)), ("voice", spec(&[5], ValueType::Real)));
    let small = "network = { hidden_dims = [16] }";
    let conv = "network = { hidden_dims = [], channels = [8, 8] }";
    let kinds: Vec<(String, Vec<(&str, InputSpec)>, &str)> = vec![
        (format!("kind = 'autoencoder'\nlatent_dim = 6\nnoise_std = 0.1\ncontractive_weight = 1e-4\n{small}"), vec![image.clone()], "reconstruction_error"),
        (format!("kind = 'vae'\nlatent_dim = 4\nkl_warmup_steps = 20\n{conv}"), vec![image.clone()], "reconstruction_error"),
        (format!("kind = 'vq_vae'\nnum_embeddings = 16\nembedding_dim = 4\n{conv}"), vec![image.clone()], "reconstruction_error"),
        (
            "kind = 'mae'\npatch_size = [2, 2]\nembed_dim = 16\nnum_heads = 2\nnum_layers = 1\ndecoder_embed_dim = 16\ndecoder_num_layers = 1\nmask_ratio = 0.5".into(),
            vec![image.clone()],
            "reconstruction_error",
        ),
        (format!("kind = 'adversarial_autoencoder'\nlatent_dim = 4\n{conv}"), vec![image.clone()], "reconstruction_error"),
        (format!("kind = 'bigan'\nlatent_dim = 4\n{conv}\ndiscriminator = {{ r1_gamma = 0.1 }}"), vec![image.clone()], "loss"),
        (
            "kind = 'sequence_autoencoder'\nlatent_dim = 8\nhidden_dim = 16\nnum_layers = 1\nnum_heads = 2".into(),
            vec![("image", spec(&[6], ValueType::Tokens(9)))],
            "cross_entropy",
        ),
        ("kind = 'multimodal_vae'\nlatent_dim = 4".into(), vec![face.clone(), voice.clone()], "negative_elbo"),
        ("kind = 'acmr'\nembed_dim = 8".into(), vec![face.clone(), voice.clone()], "label_loss_face"),
        ("kind = 'translation'\nlatent_dim = 8".into(), vec![face.clone(), voice.clone()], "paired_loss_face_voice"),
        (
            "kind = 'gan'\nlatent_dim = 4\ngenerator = { hidden_dims = [], channels = [8, 8] }\ndiscriminator = { channels = [8, 8], gradient_penalty_weight = 1.0, loss = 'wasserstein' }".into(),
            vec![image],
            "loss",
        ),
    ];
    for (text, specs, watched) in kinds {
        manual_seed(5);
        let params = Params::new(Device::Cpu);
        let model = build(&params, &text, &specs, 3).unwrap();
        let rows = 24;
        let hidden = randn(&[rows, 2]);
        let mut parts = BTreeMap::new();
        for (name, spec) in &specs {
            let shape: Vec<i64> = std::iter::once(rows).chain(spec.shape.iter().copied()).collect();
            let values = hidden.matmul(&randn(&[2, spec.numel()])).unwrap();
            let values = match spec.value_type {
                ValueType::UnitInterval => values.sigmoid().unwrap(),
                ValueType::Tokens(n) => {
                    let symbols = values.abs().unwrap().mul_scalar(2.0).unwrap().clamp(0.0, n as f64 - 5.0).unwrap();
                    symbols.to_dtype(DType::I64).unwrap().add_scalar(4.0).unwrap().to_dtype(DType::I64).unwrap()
                }
                _ => values,
            };
            let present = Tensor::from_slice(&[true; 24]).unwrap();
            parts.insert(
                Modality::from(*name),
                (Input { values: values.reshape(&shape).unwrap(), mask: None }, present),
            );
        }
        let labels = hidden.argmax(1).unwrap();
        let set = InputSet { rows, parts, labels: Some(labels) };
        let mut seen = Vec::new();
        let named = params.named(&[mm_core::Role::Trainable]);
        for _ in 0..60 {
            named.iter().for_each(|(_, t)| t.zero_grad());
            let (loss, parts) = model.loss(&set, true).unwrap().unwrap();
            seen.push(parts.iter().find(|(n, _)| n == watched).map_or(loss.to_f64().unwrap(), |(_, v)| *v));
            assert!(loss.to_f64().unwrap().is_finite(), "{text}");
            loss.backward().unwrap();
            for (_, t) in &named {
                if let Some(g) = t.grad() {
                    let size = g.norm_all().unwrap().to_f64().unwrap().max(1.0);
                    t.scale_add_(1.0, &g, -0.05 / size).unwrap();
                }
            }
        }
        // Makers and critics chase each other: of those it is asked that they stay finite and that both learn.
        if watched != "loss" {
            let (early, late) = (seen[..5].iter().sum::<f64>(), seen[55..].iter().sum::<f64>());
            assert!(late < early, "{text}: {early} then {late}");
        }
        no_grad(|| {
            assert_eq!(model.encode(&set).unwrap().shape(), [rows, model.dim()], "{text}");
            if let Some(maker) = model.decoder()
                && let Some(codes) = maker.sample_prior(3, None).unwrap()
            {
                let (name, spec) = &specs[0];
                let made = maker.decode(&codes, &Modality::from(*name)).unwrap();
                assert_eq!(made.shape()[1..], spec.shape, "{text}");
            }
        });
        // One row, as the last of a data set may be: no failure, whatever is normalised.
        let one: BTreeMap<Modality, (Input, Tensor)> = set
            .parts
            .iter()
            .map(|(m, (i, p))| {
                let values = i.values.narrow(0, 0, 1).unwrap();
                (m.clone(), (Input { values, mask: None }, p.narrow(0, 0, 1).unwrap()))
            })
            .collect();
        let one = InputSet { rows: 1, parts: one, labels: Some(Tensor::from_slice(&[0i64]).unwrap()) };
        if let Some((loss, _)) = model.loss(&one, true).unwrap() {
            assert!(loss.to_f64().unwrap().is_finite(), "{text}");
        }
    }
}

#[test]
fn settings_that_make_no_sense_are_errors_that_say_what_to_do() {
    let vector = [("image", spec(&[6], ValueType::Real))];
    let both = [("image", spec(&[6], ValueType::Real)), ("text", spec(&[4], ValueType::Tokens(9)))];
    for (text, specs, wanted) in [
        ("kind = 'autoencoder'\nlatent_dim = 6", &vector[..], "it would learn to copy"),
        ("kind = 'autoencoder'\nlatent_dim = 4\nsparsity = { top_k = 9 }", &vector, "1 to the 4"),
        ("kind = 'autoencoder'\nlatent_dim = 4\nnetwork = { channels = [8] }", &vector, "pictures whose sides"),
        ("kind = 'autoencodr'", &vector, "did you mean `autoencoder`"),
        ("kind = 'vae'\nwith = 4", &vector, "unknown field `with`"),
        ("width = 4", &vector, "one of acmr"),
        ("kind = 'mae'", &vector, "divides pictures"),
        ("kind = 'sequence_autoencoder'", &vector, "characters"),
        ("kind = 'multimodal_vae'", &vector, "two to six modalities"),
        ("kind = 'multimodal_vae'", &both, "numbers"),
        ("kind = 'vae'", &both, "exactly one modality"),
        ("kind = 'gan'\ncondition = 'txt'", &both, "did you mean `text`"),
        ("kind = 'acmr'", &vector, "at least two modalities"),
    ] {
        let error = build(&Params::new(Device::Cpu), text, specs, 0).map(drop).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}
