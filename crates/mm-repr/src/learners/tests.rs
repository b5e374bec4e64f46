//! Properties of all learners.

use super::*;
use crate::generative::ValueType;
use mm_core::{DType, Device, Input, InputSet, Params, Role, Tensor, no_grad, seed::manual_seed};

fn tensor(values: &[f32], shape: &[i64]) -> Tensor {
    Tensor::from_vec(values, shape).unwrap()
}

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
}

fn max_difference(a: &Tensor, b: &Tensor) -> f64 {
    a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
}

fn spec(shape: &[i64], value_type: ValueType) -> InputSpec {
    InputSpec { shape: shape.to_vec(), value_type }
}

fn image_set(values: Tensor) -> InputSet {
    InputSet::of(Modality::IMAGE, Input { values, mask: None }).unwrap()
}

fn build(
    params: &Params,
    config: &str,
    specs: &[(&str, InputSpec)],
    num_classes: i64,
) -> Result<Box<dyn RepresentationLearner>> {
    let settings: toml::Value = toml::from_str(config).unwrap();
    let specs: InputSpecs = specs.iter().map(|(n, s)| (Modality::from(*n), s.clone())).collect();
    LearnerRegistry::default().build(&settings, "model", &specs, num_classes, &params.scope())
}

#[test]
fn a_top_k_sparse_latent_has_k_nonzero_elements() {
    let params = Params::new(Device::Cpu);
    let config = "kind = 'autoencoder'\nlatent_dim = 20\nsparsity = { top_k = 3 }\nnetwork = { hidden_dims = [8] }";
    let model = build(&params, config, &[("image", spec(&[6], ValueType::Real))], 0).unwrap();
    let latent = model.encode(&image_set(randn(&[5, 6]))).unwrap().to_vec::<f32>().unwrap();
    assert!(latent.chunks(20).all(|row| row.iter().filter(|v| **v != 0.0).count() == 3));
}

#[test]
fn the_importance_weighted_bound_increases_with_the_number_of_samples() {
    manual_seed(3);
    let params = Params::new(Device::Cpu);
    let config = "kind = 'vae'\nlatent_dim = 4\nnetwork = { hidden_dims = [16] }";
    let model = build(&params, config, &[("image", spec(&[6], ValueType::Real))], 0).unwrap();
    let set = image_set(randn(&[64, 6]));
    let bound =
        |samples| no_grad(|| model.log_likelihood(&set, samples)).unwrap().unwrap().mean().unwrap().to_f64().unwrap();
    let (one, ten, many) = (bound(1), bound(10), bound(200));
    assert!(one < ten && ten < many, "{one} {ten} {many}");
}

#[test]
fn quantized_latents_are_codebook_vectors_and_dead_codes_are_reinitialized() {
    manual_seed(4);
    let params = Params::new(Device::Cpu);
    let config = "kind = 'vq_vae'\nnum_embeddings = 6\nembedding_dim = 3\ndead_code_threshold = 0.5\n\
                  network = { channels = [4] }";
    let model = build(&params, config, &[("image", spec(&[1, 4, 4], ValueType::Real))], 0).unwrap();
    let set = image_set(randn(&[8, 1, 4, 4]));
    let (loss, metrics) = model.loss(&set, true).unwrap().unwrap();
    loss.backward().unwrap();
    // The straight-through gradient reaches the encoder.
    let trainable = params.named(&[Role::Trainable]);
    assert!(trainable.iter().any(|(n, t)| n.starts_with("encoder") && t.grad().is_some()));
    assert!(metrics.iter().any(|(n, v)| n == "perplexity" && *v >= 1.0 && *v <= 6.0));
    let buffers = params.named(&[Role::Buffer]);
    let buffer = |name: &str| buffers.iter().find(|(n, _)| n == name).unwrap().1.clone();
    let embeddings = buffer("codebook.embeddings");
    let features = model.features(&set).unwrap().values.reshape(&[-1, 3]).unwrap(); // [rows · positions, 3]
    let distances = features.cdist(&embeddings).unwrap().to_vec::<f32>().unwrap();
    assert!(distances.chunks(6).all(|row| row.iter().any(|d| *d < 1e-3)));
    // The third code is far from the data and unused: the next step reinitializes it.
    buffer("codebook.cluster_size").copy_(&tensor(&[9.0, 9.0, 0.01, 9.0, 9.0, 9.0], &[6])).unwrap();
    embeddings.select(0, 2).unwrap().copy_(&tensor(&[1e6; 3], &[3])).unwrap();
    buffer("codebook.embedding_sums").select(0, 2).unwrap().copy_(&tensor(&[1e4; 3], &[3])).unwrap();
    model.loss(&set, true).unwrap();
    assert!(embeddings.abs().unwrap().max().unwrap().to_f64().unwrap() < 1e3);
}

#[test]
fn masked_patches_are_predicted_and_visible_patches_are_unchanged() {
    let params = Params::new(Device::Cpu);
    let config = "kind = 'mae'\npatch_size = [2, 3]\nembed_dim = 8\nnum_layers = 1\nnum_heads = 2\n\
                  decoder_embed_dim = 8\ndecoder_num_layers = 1\nmask_ratio = 0.5";
    let model = build(&params, config, &[("image", spec(&[2, 4, 6], ValueType::Real))], 0).unwrap();
    let x = randn(&[3, 2, 4, 6]);
    let reconstruct = |x: Tensor| model.reconstruct(&image_set(x), &Modality::IMAGE).unwrap().unwrap();
    let unchanged = reconstruct(x.clone()).eq(&x).unwrap().to_dtype(DType::F32).unwrap();
    // Two of the four patches of each image are visible.
    assert!((unchanged.mean().unwrap().to_f64().unwrap() - 0.5).abs() < 1e-6);
    let patches = unchanged.reshape(&[3, 2, 2, 2, 2, 3]).unwrap().mean_dim(&[1, 3, 5], false).unwrap();
    assert!(patches.to_vec::<f32>().unwrap().iter().all(|v| *v == 0.0 || *v == 1.0));
    // Predictions do not depend on the values of the masked patches.
    manual_seed(9);
    let first = reconstruct(x.clone());
    manual_seed(9);
    let masked = first.eq(&x).unwrap().logical_not().unwrap();
    let second = reconstruct(x.masked_fill(&masked, 5.0).unwrap());
    let difference = max_difference(&first, &second);
    assert!(difference < 1e-5, "{difference}");
}

fn multimodal_set(rows: i64, inputs: &[(&str, Tensor, &[bool])]) -> InputSet {
    let parts = inputs.iter().map(|(name, values, present)| {
        let input = Input { values: values.clone(), mask: None };
        (Modality::from(*name), (input, Tensor::from_slice(present).unwrap()))
    });
    InputSet { rows, parts: parts.collect(), labels: None }
}

#[test]
fn missing_modalities_affect_neither_their_row_nor_other_rows() {
    let specs = [("face", spec(&[3], ValueType::Real)), ("voice", spec(&[4], ValueType::Real))];
    for joint in ["deterministic", "product_of_experts", "mixture_of_experts", "mixture_of_products"] {
        let params = Params::new(Device::Cpu);
        let config = format!("kind = 'multimodal_vae'\nlatent_dim = 5\njoint_posterior = '{joint}'");
        let model = build(&params, &config, &specs, 0).unwrap();
        let (face, voice) = (randn(&[3, 3]), randn(&[3, 4]));
        let garbage = Tensor::cat(&[&voice.narrow(0, 0, 2).unwrap(), &tensor(&[1e3; 4], &[1, 4])], 0).unwrap();
        let present: &[bool] = &[true, true, false];
        let all: &[bool] = &[true; 3];
        let encode =
            |rows: i64, inputs: &[(&str, Tensor, &[bool])]| model.encode(&multimodal_set(rows, inputs)).unwrap();
        let a = encode(3, &[("face", face.clone(), all), ("voice", voice.clone(), present)]);
        let b = encode(3, &[("face", face.clone(), all), ("voice", garbage, present)]);
        assert!(max_difference(&a, &b) < 1e-6, "{joint}");
        let first = |x: &Tensor| x.narrow(0, 0, 1).unwrap();
        let one = encode(1, &[("face", first(&face), &[true]), ("voice", first(&voice), &[true])]);
        assert!(max_difference(&first(&a), &one) < 1e-5, "{joint}");
        // The last row has only a face, as if the batch had no voice.
        let face_only = encode(3, &[("face", face.clone(), all)]);
        let last = |x: &Tensor| x.narrow(0, 2, 1).unwrap();
        assert!(max_difference(&last(&a), &last(&face_only)) < 1e-6, "{joint}");
        let set = multimodal_set(3, &[("face", face, all)]);
        let voice = model.reconstruct(&set, &Modality::from("voice")).unwrap().unwrap();
        assert_eq!(voice.shape(), [3, 4]);
        // A batch without any voice has a loss, a batch without any value has none.
        let none: &[bool] = &[false; 3];
        let set = multimodal_set(3, &[("face", randn(&[3, 3]), all), ("voice", randn(&[3, 4]), none)]);
        assert!(model.loss(&set, true).unwrap().is_some(), "{joint}");
        let set = multimodal_set(3, &[("face", randn(&[3, 3]), none), ("voice", randn(&[3, 4]), none)]);
        assert!(model.loss(&set, true).unwrap().is_none(), "{joint}");
    }
}

/// Config, inputs and the metric that training must decrease (`loss` for adversarial models, which need not converge).
type Case = (String, Vec<(&'static str, InputSpec)>, &'static str);

fn training_cases() -> Vec<Case> {
    let image = || vec![("image", spec(&[1, 8, 8], ValueType::UnitInterval))];
    let pair = || vec![("face", spec(&[6], ValueType::Real)), ("voice", spec(&[5], ValueType::Real))];
    let mlp = "network = { hidden_dims = [16] }";
    let conv = "network = { hidden_dims = [], channels = [8, 8] }";
    let error = "reconstruction_error";
    vec![
        (
            format!("kind = 'autoencoder'\nlatent_dim = 6\nnoise_std = 0.1\ncontractive_weight = 1e-4\n{mlp}"),
            image(),
            error,
        ),
        (format!("kind = 'vae'\nlatent_dim = 4\nkl_warmup_steps = 20\n{conv}"), image(), error),
        (format!("kind = 'vq_vae'\nnum_embeddings = 16\nembedding_dim = 4\n{conv}"), image(), error),
        (
            "kind = 'mae'\npatch_size = [2, 2]\nembed_dim = 16\nnum_heads = 2\nnum_layers = 1\n\
             decoder_embed_dim = 16\ndecoder_num_layers = 1\nmask_ratio = 0.5"
                .into(),
            image(),
            error,
        ),
        (format!("kind = 'adversarial_autoencoder'\nlatent_dim = 4\n{conv}"), image(), error),
        (format!("kind = 'bigan'\nlatent_dim = 4\n{conv}\ndiscriminator = {{ r1_gamma = 0.1 }}"), image(), "loss"),
        (
            "kind = 'sequence_autoencoder'\nlatent_dim = 8\nhidden_dim = 16\nnum_layers = 1\nnum_heads = 2".into(),
            vec![("image", spec(&[6], ValueType::Tokens(9)))],
            "cross_entropy",
        ),
        ("kind = 'multimodal_vae'\nlatent_dim = 4".into(), pair(), "negative_elbo"),
        ("kind = 'acmr'\nembed_dim = 8".into(), pair(), "label_loss_face"),
        ("kind = 'translation'\nlatent_dim = 8".into(), pair(), "paired_loss_face_voice"),
        (
            "kind = 'gan'\nlatent_dim = 4\ngenerator = { hidden_dims = [], channels = [8, 8] }\n\
             discriminator = { channels = [8, 8], gradient_penalty_weight = 1.0, loss = 'wasserstein' }"
                .into(),
            image(),
            "loss",
        ),
    ]
}

/// Rows whose modalities are functions of the same two factors; the label is the larger factor.
fn correlated_set(specs: &[(&str, InputSpec)]) -> InputSet {
    let rows = 24;
    let factors = randn(&[rows, 2]);
    let mut parts = BTreeMap::new();
    for (name, spec) in specs {
        let shape: Vec<i64> = std::iter::once(rows).chain(spec.shape.iter().copied()).collect();
        let values = factors.matmul(&randn(&[2, spec.numel()])).unwrap();
        let values = match spec.value_type {
            ValueType::UnitInterval => values.sigmoid().unwrap(),
            ValueType::Tokens(n) => {
                let tokens = values.abs().unwrap().mul_scalar(2.0).unwrap().clamp(0.0, n as f64 - 5.0).unwrap();
                tokens.to_dtype(DType::I64).unwrap().add_scalar(4.0).unwrap().to_dtype(DType::I64).unwrap()
            }
            _ => values,
        };
        let present = Tensor::from_slice(&[true; 24]).unwrap();
        parts.insert(Modality::from(*name), (Input { values: values.reshape(&shape).unwrap(), mask: None }, present));
    }
    InputSet { rows, parts, labels: Some(factors.argmax(1).unwrap()) }
}

/// Normalized gradient descent; the watched metric of each step.
fn train(model: &dyn RepresentationLearner, params: &Params, set: &InputSet, metric: &str) -> Vec<f64> {
    let named = params.named(&[Role::Trainable]);
    let mut history = Vec::new();
    for _ in 0..60 {
        named.iter().for_each(|(_, t)| t.zero_grad());
        let (loss, metrics) = model.loss(set, true).unwrap().unwrap();
        history.push(metrics.iter().find(|(n, _)| n == metric).map_or(loss.to_f64().unwrap(), |(_, v)| *v));
        assert!(loss.to_f64().unwrap().is_finite());
        loss.backward().unwrap();
        for (_, t) in &named {
            if let Some(g) = t.grad() {
                let norm = g.norm_all().unwrap().to_f64().unwrap().max(1.0);
                t.scale_add_(1.0, &g, -0.05 / norm).unwrap();
            }
        }
    }
    history
}

#[test]
fn training_improves_every_kind() {
    for (config, specs, metric) in training_cases() {
        manual_seed(5);
        let params = Params::new(Device::Cpu);
        let model = build(&params, &config, &specs, 3).unwrap();
        let set = correlated_set(&specs);
        let history = train(&*model, &params, &set, metric);
        if metric != "loss" {
            let (early, late) = (history[..5].iter().sum::<f64>(), history[55..].iter().sum::<f64>());
            assert!(late < early, "{config}: {early} then {late}");
        }
        no_grad(|| {
            assert_eq!(model.encode(&set).unwrap().shape(), [set.rows, model.dim()], "{config}");
            if let Some(decoder) = model.decoder()
                && let Some(latents) = decoder.sample_prior(3, None).unwrap()
            {
                let (name, spec) = &specs[0];
                let generated = decoder.decode(&latents, &Modality::from(*name)).unwrap();
                assert_eq!(generated.shape()[1..], spec.shape, "{config}");
            }
        });
        // A batch of one row, as the last of a data set may be.
        let parts = set.parts.iter().map(|(modality, (input, present))| {
            let input = Input { values: input.values.narrow(0, 0, 1).unwrap(), mask: None };
            (modality.clone(), (input, present.narrow(0, 0, 1).unwrap()))
        });
        let labels = Some(Tensor::from_slice(&[0i64]).unwrap());
        let one_row = InputSet { rows: 1, parts: parts.collect(), labels };
        if let Some((loss, _)) = model.loss(&one_row, true).unwrap() {
            assert!(loss.to_f64().unwrap().is_finite(), "{config}");
        }
    }
}

#[test]
fn invalid_settings_are_errors_with_a_remedy() {
    let vector = [("image", spec(&[6], ValueType::Real))];
    let both = [("image", spec(&[6], ValueType::Real)), ("text", spec(&[4], ValueType::Tokens(9)))];
    for (config, specs, expected) in [
        ("kind = 'autoencoder'\nlatent_dim = 6", &vector[..], "the identity is optimal"),
        ("kind = 'autoencoder'\nlatent_dim = 4\nsparsity = { top_k = 9 }", &vector, "1 to 4"),
        ("kind = 'autoencoder'\nlatent_dim = 4\nnetwork = { channels = [8] }", &vector, "images whose height"),
        ("kind = 'autoencodr'", &vector, "did you mean `autoencoder`"),
        ("kind = 'vae'\nwith = 4", &vector, "unknown field `with`"),
        ("latent_dim = 4", &vector, "one of acmr"),
        ("kind = 'mae'", &vector, "divides images"),
        ("kind = 'sequence_autoencoder'", &vector, "characters"),
        ("kind = 'multimodal_vae'", &vector, "two to six modalities"),
        ("kind = 'multimodal_vae'", &both, "numeric values"),
        ("kind = 'vae'", &both, "exactly one modality"),
        ("kind = 'gan'\ncondition = 'txt'", &both, "did you mean `text`"),
        ("kind = 'acmr'", &vector, "at least two modalities"),
    ] {
        let error = build(&Params::new(Device::Cpu), config, specs, 0).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{config}: {error}");
    }
}

/// The gradient of a linear discriminator is its weight, so both penalties follow from the weight's length.
#[test]
fn translation_adds_the_penalties_of_its_discriminators_in_training() {
    let specs = [("a", spec(&[3], ValueType::Real)), ("b", spec(&[4], ValueType::Real))];
    let losses = |penalties: &str, train: bool| {
        manual_seed(5);
        let params = Params::new(Device::Cpu);
        let config = format!(
            "kind = 'translation'\nlatent_dim = 2\nnetwork = {{ hidden_dims = [6], dropout = 0.0 }}\n\
             discriminator = {{ hidden_dims = [], spectral_norm = false, loss = 'least_squares'{penalties} }}"
        );
        let model = build(&params, &config, &specs, 0).unwrap();
        let set = multimodal_set(5, &[("a", randn(&[5, 3]), &[true; 5]), ("b", randn(&[5, 4]), &[true; 5])]);
        let (_, metrics) = model.loss(&set, train).unwrap().unwrap();
        let norm = |modality: &str| {
            let name = format!("{modality}.discriminator");
            let weights = params.named(&[Role::Trainable]);
            let (_, weight) = weights.iter().find(|(n, _)| n.starts_with(&name) && n.ends_with("weight")).unwrap();
            weight.pow(2.0).unwrap().sum().unwrap().to_f64().unwrap().sqrt()
        };
        ["a", "b"].map(|m| {
            let name = format!("discriminator_loss_{m}");
            (metrics.iter().find(|(n, _)| *n == name).unwrap().1, norm(m))
        })
    };
    let both = ", r1_gamma = 2.0, gradient_penalty_weight = 3.0";
    for (plain, with_penalties) in losses("", true).into_iter().zip(losses(both, true)) {
        let norm = plain.1;
        let expected = norm.powi(2) + 3.0 * (norm - 1.0).powi(2);
        let found = with_penalties.0 - plain.0;
        assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
    }
    assert_eq!(losses("", false).map(|l| l.0), losses(both, false).map(|l| l.0));
}
