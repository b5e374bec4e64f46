//! Compares mm-repr with its reference libraries: transformers, sentence-transformers, efficientnet_lite_pytorch.
//! `xtask/parity/repr_fixtures.py` writes the fixtures; `cargo xtask test` downloads the two pretrained checkpoints.

mod common;

use common::{checkpoint_only, fixtures};
use mm_core::{Checkpoint, DType, Modality, Pooling, ProcessContext, Source, Tensor};
use mm_repr::{LoadOptions, Pretrained, Relevance, locate};
use std::path::{Path, PathBuf};

/// The largest absolute difference, divided by the largest expected value.
fn relative_difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let found = found.to_device(mm_core::Device::Cpu).unwrap();
    let largest = expected.abs().unwrap().max().unwrap().to_f64().unwrap();
    found.sub(expected).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() / largest
}

/// Rows of different lengths, filled with -1, as the reference outputs are.
fn padded(mut rows: Vec<Vec<i64>>) -> Tensor {
    let longest = rows.iter().map(Vec::len).max().unwrap();
    rows.iter_mut().for_each(|row| row.resize(longest, -1));
    Tensor::from_vec(&rows.concat(), &[rows.len() as i64, longest as i64]).unwrap()
}

/// Load options with the device `MM_TEST_DEVICE`, by default the CPU.
fn options() -> LoadOptions {
    let device = std::env::var("MM_TEST_DEVICE").map_or(mm_core::Device::Cpu, |d| d.parse().unwrap());
    LoadOptions { device, ..LoadOptions::default() }
}

/// The folders that `xtask/parity/families.py` wrote: the committed ones, or those of `MM_PARITY`.
fn variants() -> (PathBuf, Vec<PathBuf>) {
    let top = std::env::var_os("MM_PARITY").map_or_else(|| fixtures("families"), PathBuf::from);
    let mut found: Vec<PathBuf> = std::fs::read_dir(&top)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("answers.safetensors").exists())
        .collect();
    found.sort();
    assert!(found.len() > 20 || std::env::var_os("MM_PARITY").is_some());
    (top, found)
}

/// The input files of all variants.
struct Inputs {
    texts: Vec<Source>,
    /// Queries and texts.
    pairs: Vec<(String, String)>,
    images: Vec<Source>,
    audio_16k: Vec<Source>,
    audio_48k: Vec<Source>,
    videos: Vec<Source>,
}

impl Inputs {
    fn open(folder: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let texts: Vec<String> = serde_json::from_str(&read("texts.json")).unwrap();
        let files = |names: &[&str]| -> Vec<Source> { names.iter().map(|n| Source::Path(folder.join(n))).collect() };
        Self {
            texts: texts.into_iter().map(Source::Text).collect(),
            pairs: serde_json::from_str(&read("pairs.json")).unwrap(),
            images: files(&["wide.png", "tall.jpg", "grey.png"]),
            audio_16k: files(&["long16.wav", "short16.wav"]),
            audio_48k: files(&["tone48.wav"]),
            videos: files(&["frames.mkv"]),
        }
    }

    /// CLAP expects 48 kHz, all other families 16 kHz.
    fn audio(&self, variant: &str) -> &[Source] {
        if variant.starts_with("clap") { &self.audio_48k } else { &self.audio_16k }
    }
}

/// Compares the outputs of one variant with those of its reference library, and collects the differences.
struct Comparison<'a> {
    name: &'a str,
    expected: Checkpoint,
    /// Number of expected outputs that were compared.
    compared: usize,
    failures: &'a mut Vec<String>,
}

impl Comparison<'_> {
    fn fail(&mut self, text: impl std::fmt::Display) {
        self.failures.push(format!("{}: {text}", self.name));
    }

    fn has(&self, output: &str) -> bool {
        self.expected.shape(output).is_some()
    }

    /// Compares an output to a relative difference of 1e-4, if the reference has it.
    fn check(&mut self, output: &str, found: mm_repr::Result<Tensor>) {
        self.check_within(1e-4, output, found);
    }

    fn check_within(&mut self, limit: f64, output: &str, found: mm_repr::Result<Tensor>) {
        let Ok(expected) = self.expected.get(output) else { return };
        self.compared += 1;
        match found {
            Ok(found) if found.shape() == expected.shape() => {
                let difference = relative_difference(&found, &expected);
                // `!(difference < limit)`, so that NaN fails too.
                if !matches!(difference.partial_cmp(&limit), Some(std::cmp::Ordering::Less)) {
                    self.fail(format!("{output} differs by {difference}"));
                }
            }
            Ok(found) => self.fail(format!("{output}: found {found:?}, expected {expected:?}")),
            Err(error) => self.fail(format!("{output}: {error}")),
        }
    }

    fn check_text(&mut self, model: &Pretrained, folder: &Path, texts: &[Source]) {
        let Ok(tower) = model.tower(&Modality::TEXT) else { return };
        let ids: Vec<Vec<i64>> = texts
            .iter()
            .map(|t| tower.processor.process(t, &mut ProcessContext::eval()).unwrap().to_vec().unwrap())
            .collect();
        let longest = ids.iter().map(Vec::len).max().unwrap();
        self.check("text_ids", Ok(padded(ids)));
        self.check("text", model.embed(&Modality::TEXT, texts, None));
        for (output, pooling) in [("text_cls", Pooling::Cls), ("text_max", Pooling::Max), ("text_last", Pooling::Last)]
        {
            self.check(output, model.embed(&Modality::TEXT, texts, Some(pooling)));
        }
        // In batches, whose padding is left out of the features.
        let samples: Vec<Tensor> =
            texts.iter().map(|t| tower.processor.process(t, &mut ProcessContext::eval()).unwrap()).collect();
        let hidden = model.features_of_samples(&Modality::TEXT, &samples).and_then(|features| {
            let pad = |x: &Tensor| x.pad(&[0, 0, 0, longest as i64 - x.size(0)?], 0.0);
            let rows = features.iter().map(pad).collect::<mm_core::Result<Vec<_>>>()?;
            Ok(Tensor::stack(&rows.iter().collect::<Vec<_>>(), 0)?)
        });
        self.check("text_hidden", hidden);
        if self.has("text_logits") {
            self.check("text_logits", model.logits(&Modality::TEXT, texts));
        }
        let first_layer = LoadOptions { layer: Some(1), ..options() };
        if self.has("text_layer1") {
            self.check("text_layer1", Pretrained::load_with(folder, first_layer).and_then(|m| m.encode(texts)));
        }
    }

    /// Tokens and scores of a reranker.
    fn check_pairs(&mut self, model: &Pretrained, pairs: &[(String, String)]) {
        if !self.has("pair_logits") {
            return;
        }
        let tokenize = |(query, text): &(String, String)| model.tokenize_pairs(query, std::slice::from_ref(text));
        let tokens: mm_repr::Result<Vec<_>> = pairs.iter().map(tokenize).collect();
        let tokens = tokens.unwrap_or_else(|error| panic!("{}: {error}", self.name)).concat();
        self.check("pair_ids", Ok(padded(tokens.iter().map(|pair| pair.ids.clone()).collect())));
        self.check("pair_types", Ok(padded(tokens.iter().map(|pair| pair.token_types.clone()).collect())));
        // In one batch, with padding.
        let relevance = model.relevance_of_pairs(&tokens).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let values =
            |value: fn(&Relevance) -> f32| Tensor::from_slice(&relevance.iter().map(value).collect::<Vec<_>>());
        self.check("pair_logits", values(|one| one.logit).map_err(Into::into));
        self.check("pair_scores", values(|one| one.score() as f32).map_err(Into::into));
    }

    fn check_images(&mut self, model: &Pretrained, images: &[Source]) {
        let Ok(tower) = model.tower(&Modality::IMAGE) else { return };
        for (number, image) in images.iter().enumerate() {
            let flat = tower.processor.process(image, &mut ProcessContext::eval()).and_then(|x| x.reshape(&[-1]));
            self.check_within(1e-5, &format!("pixels{number}"), flat.map_err(Into::into));
        }
        self.check("image", model.embed(&Modality::IMAGE, images, None));
        if self.has("image_mean") {
            self.check("image_mean", model.embed(&Modality::IMAGE, images, Some(Pooling::Mean)));
        }
        if self.has("image_logits") {
            self.check("image_logits", model.logits(&Modality::IMAGE, images));
        }
    }

    fn check_audio_and_video(&mut self, model: &Pretrained, audio: &[Source], videos: &[Source]) {
        for (modality, input, sources, label) in
            [(Modality::AUDIO, "sound", audio, "audio"), (Modality::VIDEO, "frames", videos, "video")]
        {
            let Ok(tower) = model.tower(&modality) else { continue };
            for (number, source) in sources.iter().enumerate() {
                let flat = tower.processor.process(source, &mut ProcessContext::eval()).and_then(|x| x.reshape(&[-1]));
                let output = if input == "sound" { format!("{input}{number}") } else { input.to_owned() };
                self.check(&output, flat.map_err(Into::into));
            }
            self.check(label, model.embed(&modality, sources, None));
            if self.has("audio_batched") {
                self.check("audio_batched", model.embed(&modality, sources, None));
            }
            if self.has(&format!("{label}_logits")) {
                self.check(&format!("{label}_logits"), model.logits(&modality, sources));
            }
        }
    }

    /// The embeddings in bfloat16 are close to those in float32. (Those of trained models are closer than these random
    /// ones.)
    fn check_bfloat16(&mut self, model: &Pretrained, folder: &Path, inputs: &Inputs) {
        let half = Pretrained::load_with(folder, LoadOptions { dtype: DType::BF16, ..options() }).unwrap();
        for (modality, sources) in [
            (Modality::TEXT, inputs.texts.as_slice()),
            (Modality::IMAGE, &inputs.images),
            (Modality::AUDIO, inputs.audio(self.name)),
            (Modality::VIDEO, &inputs.videos),
        ] {
            let Ok(tower) = model.tower(&modality) else { continue };
            let unit = |m: &Pretrained| m.embed(&modality, sources, None).and_then(|x| Ok(x.normalize()?));
            match (unit(model), unit(&half)) {
                (Ok(a), Ok(b)) => {
                    let dim = tower.encoder.embedding_dim();
                    if a.size(-1).unwrap() != dim {
                        self.fail(format!("{modality}: found {a:?}, expected dimension {dim}"));
                    }
                    let least = a.mul(&b).unwrap().sum_dim(&[-1], false).unwrap().min().unwrap().to_f64().unwrap();
                    // `!(least > 0.97)`, so that NaN fails too.
                    if !matches!(least.partial_cmp(&0.97), Some(std::cmp::Ordering::Greater)) {
                        self.fail(format!("{modality} in bfloat16: cosine {least} to float32"));
                    }
                }
                (_, Err(error)) => self.fail(format!("{modality} in bfloat16: {error}")),
                (Err(_), _) => {}
            }
        }
    }

    /// Saved weights equal those that were loaded, name by name and bit by bit.
    fn check_round_trip(&mut self, model: &Pretrained, folder: &Path, variant: &Path) {
        let saved = folder.join("again.safetensors");
        model.save_weights(&saved).unwrap();
        if std::env::var_os("MM_PARITY_SAVE").is_some() {
            std::fs::copy(&saved, variant.join("again.safetensors")).unwrap();
        }
        let names = ["open_clip_model.safetensors", "pytorch_model.bin"];
        let original = names.into_iter().find(|n| folder.join(n).exists()).unwrap_or("model.safetensors");
        let (saved, original) =
            (Checkpoint::open(&saved).unwrap(), Checkpoint::open(model.folder().join(original)).unwrap());
        for tensor in original.names().filter(|n| !model.unexpected_keys.iter().any(|u| u == n)) {
            let found = saved.get(tensor).map(|t| (t.shape(), t.to_bytes().unwrap()));
            let stored = original.get(tensor).unwrap();
            let buffers = [
                "num_batches_tracked",
                "position_ids",
                "token_type_ids",
                "relative_position_index",
                "masked_spec_embed",
            ];
            let is_buffer = buffers.iter().any(|k| tensor.ends_with(k));
            if !is_buffer && found.ok() != Some((stored.shape(), stored.to_bytes().unwrap())) {
                self.fail(format!("{tensor} is not equal after saving"));
            }
        }
    }
}

#[test]
fn every_family_matches_its_reference_library() {
    let (top, variants) = variants();
    let inputs = Inputs::open(&top.join("inputs"));
    let mut failures = Vec::new();
    for variant in variants {
        let name = variant.file_name().unwrap().to_string_lossy().into_owned();
        let expected = Checkpoint::open(variant.join("answers.safetensors")).unwrap();
        let folder = checkpoint_only(&variant);
        let mut comparison = Comparison { name: &name, expected, compared: 0, failures: &mut failures };
        let model = match Pretrained::load_with(folder.path(), options()) {
            Ok(model) => model,
            Err(error) => {
                comparison.fail(error);
                continue;
            }
        };
        comparison.check_text(&model, folder.path(), &inputs.texts);
        comparison.check_pairs(&model, &inputs.pairs);
        comparison.check_images(&model, &inputs.images);
        comparison.check_audio_and_video(&model, inputs.audio(&name), &inputs.videos);
        comparison.check_bfloat16(&model, folder.path(), &inputs);
        // Every expected output must be compared.
        let count = comparison.expected.names().filter(|n| *n != "logits").count();
        if comparison.compared != count {
            comparison.fail(format!("compared {} of {count} outputs", comparison.compared));
        }
        comparison.check_round_trip(&model, folder.path(), &variant);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn efficientnet_matches_its_reference_implementation() {
    for name in ["efficientnet-lite", "efficientnet-plain"] {
        let folder = fixtures(name);
        let expected = Checkpoint::open(folder.join("answers.safetensors")).unwrap();
        let model = Pretrained::load(&folder_with_weights(&folder)).unwrap();
        let source = [Source::Path(folder.join("input.png"))];
        let tower = model.tower(&Modality::IMAGE).unwrap();
        let pixels = tower.processor.process(&source[0], &mut ProcessContext::eval()).unwrap();
        let expected_pixels = expected.get("pixels").unwrap().select(0, 0).unwrap();
        let difference = pixels.sub(&expected_pixels).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        assert!(difference <= 1.01 / 255.0 / 0.2, "{name}: {difference}");
        // On equal pixels the outputs agree to 1e-4.
        let input = mm_core::Input { values: expected.get("pixels").unwrap(), mask: None };
        mm_core::no_grad(|| {
            let pooled = tower.encoder.embed(&input, false).unwrap();
            assert!(relative_difference(&pooled, &expected.get("pooled").unwrap()) < 1e-4, "{name}");
            let logits = tower.encoder.logits(&input).unwrap().unwrap();
            assert!(relative_difference(&logits, &expected.get("logits").unwrap()) < 1e-4, "{name}");
        });
    }
}

/// A copy of a checkpoint folder without the reference outputs, which are safetensors too.
fn folder_with_weights(folder: &Path) -> PathBuf {
    let target = std::env::temp_dir().join(format!(
        "mm-fixture-{}-{}",
        std::process::id(),
        folder.file_name().unwrap().to_string_lossy()
    ));
    std::fs::create_dir_all(&target).unwrap();
    for name in ["config.json", "preprocessor_config.json", "weights.pth"] {
        std::fs::copy(folder.join(name), target.join(name)).unwrap();
    }
    target
}

/// A model with published weights, if it is in the cache.
fn pretrained(name: &str) -> Option<Pretrained> {
    let folder = locate(name.as_ref(), Path::new("."));
    if !folder.is_dir() {
        eprintln!("skipped: {name} is not in the cache; run `cargo xtask models pull {name}`");
        return None;
    }
    Some(Pretrained::load(&folder).unwrap())
}

#[test]
fn all_minilm_matches_sentence_transformers() {
    let Some(model) = pretrained("all-MiniLM-L6-v2") else { return };
    let expected = Checkpoint::open(fixtures("real.safetensors")).unwrap();
    let inputs: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(fixtures("real.json")).unwrap()).unwrap();
    let text = |v: &serde_json::Value| Source::Text(v.as_str().unwrap().to_owned());
    let sentences: Vec<Source> = inputs["sentences"].as_array().unwrap().iter().map(text).collect();
    let found = model.encode(&sentences).unwrap();
    assert!(
        relative_difference(&found, &expected.get("minilm").unwrap()) < 1e-4,
        "{}",
        relative_difference(&found, &expected.get("minilm").unwrap())
    );
    for (pair, similarity) in
        inputs["pairs"].as_array().unwrap().iter().zip(expected.get("similarity").unwrap().to_vec::<f64>().unwrap())
    {
        let both = model.encode(&[text(&pair[0]), text(&pair[1])]).unwrap();
        let found =
            both.select(0, 0).unwrap().mul(&both.select(0, 1).unwrap()).unwrap().sum().unwrap().to_f64().unwrap();
        assert!((found - similarity).abs() < 1e-4);
    }
}

#[test]
fn efficientnet_lite0_matches_its_reference_implementation() {
    let Some(model) = pretrained("efficientnet-lite0") else { return };
    let expected = Checkpoint::open(fixtures("real.safetensors")).unwrap();
    let found = model.encode(&[Source::Path(fixtures("photo.png"))]).unwrap();
    let expected = expected.get("lite0").unwrap();
    // Pixels may differ by 1/255 after resizing, which limits the agreement of the features; on equal pixels they agree
    // to 1e-4, as tested above.
    assert!(relative_difference(&found, &expected) < 1e-2, "{}", relative_difference(&found, &expected));
}
