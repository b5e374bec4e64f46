//! mm-repr against its reference programs: transformers, sentence-transformers, efficientnet_lite_pytorch.
//! `xtask/parity/repr_fixtures.py` makes the fixtures; the two real checkpoints are fetched by `cargo xtask test`.

use mm_core::{Checkpoint, Modality, Pooling, ProcessContext, Source, Tensor};
use mm_repr::{LoadOptions, Pretrained, locate};
use std::path::{Path, PathBuf};

fn fixtures(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The largest difference over the largest value.
fn off(found: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(found.shape(), wanted.shape());
    let found = found.to_device(mm_core::Device::Cpu).unwrap();
    let largest = wanted.abs().unwrap().max().unwrap().to_f64().unwrap();
    found.sub(wanted).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() / largest
}

/// Where these tests compute: `MM_TEST_DEVICE`, else the processor (docs/performance.md: what was held on a GPU).
fn options() -> LoadOptions {
    let device = std::env::var("MM_TEST_DEVICE").map_or(mm_core::Device::Cpu, |d| d.parse().unwrap());
    LoadOptions { device, ..LoadOptions::default() }
}

/// The folders that `xtask/parity/families.py` filled, each with its answers: the committed ones, or those of `MM_PARITY`.
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

/// A variant without its answers, which lie beside the weights, as mm would find it on a hub.
fn bare(variant: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap().path()) {
            let target = to.join(entry.file_name().unwrap());
            if entry.is_dir() {
                copy(&entry, &target);
            } else if !entry.file_name().unwrap().to_string_lossy().starts_with("answers.") {
                std::fs::copy(&entry, target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(variant, folder.path());
    folder
}

#[test]
fn every_family_gives_what_its_reference_program_gives_from_raw_files_to_numbers() {
    let (top, variants) = variants();
    let inputs = top.join("inputs");
    let texts: Vec<String> =
        serde_json::from_str(&std::fs::read_to_string(inputs.join("texts.json")).unwrap()).unwrap();
    let texts: Vec<Source> = texts.into_iter().map(Source::Text).collect();
    let files = |names: &[&str]| -> Vec<Source> { names.iter().map(|n| Source::Path(inputs.join(n))).collect() };
    let (sounds16, sounds48) = (files(&["long16.wav", "short16.wav"]), files(&["tone48.wav"]));
    let images = files(&["wide.png", "tall.jpg", "grey.png"]);
    let videos = files(&["frames.mkv"]);
    let wrong = std::cell::RefCell::new(Vec::new());
    let report = |text: String| wrong.borrow_mut().push(text);
    for variant in variants {
        let name = variant.file_name().unwrap().to_string_lossy().into_owned();
        let answers = Checkpoint::open(variant.join("answers.safetensors")).unwrap();
        let folder = bare(&variant);
        let model = match Pretrained::load_with(folder.path(), options()) {
            Ok(model) => model,
            Err(error) => {
                report(format!("{name}: {error}"));
                continue;
            }
        };
        let held = std::cell::Cell::new(0);
        let hold_to = |limit: f64, what: &str, found: mm_repr::Result<Tensor>| {
            let Ok(wanted) = answers.get(what) else { return };
            held.set(held.get() + 1);
            match found {
                Ok(found) if found.shape() == wanted.shape() => {
                    let apart = off(&found, &wanted);
                    // Not less than: a NaN is wrong too.
                    if !matches!(apart.partial_cmp(&limit), Some(std::cmp::Ordering::Less)) {
                        report(format!("{name}: {what} is {apart} off"));
                    }
                }
                Ok(found) => report(format!("{name}: {what}: found {found:?}, wanted {wanted:?}")),
                Err(error) => report(format!("{name}: {what}: {error}")),
            }
        };
        let hold = |what: &str, found| hold_to(1e-4, what, found);
        if let Ok(tower) = model.tower(&Modality::TEXT) {
            let ids: Vec<Vec<i64>> = texts
                .iter()
                .map(|t| tower.processor.process(t, &mut ProcessContext::eval()).unwrap().to_vec().unwrap())
                .collect();
            let longest = ids.iter().map(Vec::len).max().unwrap();
            let flat: Vec<i64> = ids
                .into_iter()
                .flat_map(|mut r| {
                    r.resize(longest, -1);
                    r
                })
                .collect();
            hold("text_ids", Ok(Tensor::from_vec(&flat, &[texts.len() as i64, longest as i64]).unwrap()));
            hold("text", model.embed(&Modality::TEXT, &texts, None));
            for (what, pool) in [("text_cls", Pooling::Cls), ("text_max", Pooling::Max), ("text_last", Pooling::Last)] {
                hold(what, model.embed(&Modality::TEXT, &texts, Some(pool)));
            }
            let hidden = |text: &Source| {
                let x = model.features(&Modality::TEXT, text)?;
                Ok(x.pad(&[0, 0, 0, longest as i64 - x.size(0)?], 0.0)?)
            };
            let hidden: mm_repr::Result<Vec<Tensor>> = texts.iter().map(hidden).collect();
            hold("text_hidden", hidden.and_then(|h| Ok(Tensor::stack(&h.iter().collect::<Vec<_>>(), 0)?)));
            let cut = LoadOptions { layer: Some(1), ..options() };
            if answers.shape("text_layer1").is_some() {
                hold("text_layer1", Pretrained::load_with(folder.path(), cut).and_then(|m| m.encode(&texts)));
            }
        }
        if let Ok(tower) = model.tower(&Modality::IMAGE) {
            for (number, image) in images.iter().enumerate() {
                let flat = tower.processor.process(image, &mut ProcessContext::eval()).and_then(|x| x.reshape(&[-1]));
                hold_to(1e-5, &format!("pixels{number}"), flat.map_err(Into::into));
            }
            hold("image", model.embed(&Modality::IMAGE, &images, None));
            if answers.shape("image_logits").is_some() {
                hold("image_logits", model.logits(&Modality::IMAGE, &images));
            }
        }
        let audio = if name.starts_with("clap") { &sounds48 } else { &sounds16 };
        for (modality, what, sources, label) in
            [(Modality::AUDIO, "sound", audio, "audio"), (Modality::VIDEO, "frames", &videos, "video")]
        {
            let Ok(tower) = model.tower(&modality) else { continue };
            for (number, source) in sources.iter().enumerate() {
                let flat = tower.processor.process(source, &mut ProcessContext::eval()).and_then(|x| x.reshape(&[-1]));
                let key = if what == "sound" { format!("{what}{number}") } else { what.to_owned() };
                hold(&key, flat.map_err(Into::into));
            }
            hold(label, model.embed(&modality, sources, None));
            if answers.shape("audio_batched").is_some() {
                hold("audio_batched", model.embed(&modality, sources, None));
            }
            if answers.shape(&format!("{label}_logits")).is_some() {
                hold(&format!("{label}_logits"), model.logits(&modality, sources));
            }
        }
        // In bfloat16 every family computes, and near what it computes in float32 (these nets are random: a trained one is nearer).
        let half = LoadOptions { dtype: mm_core::DType::BF16, ..options() };
        let half = Pretrained::load_with(folder.path(), half).unwrap();
        for (modality, sources) in
            [(Modality::TEXT, &texts), (Modality::IMAGE, &images), (Modality::AUDIO, audio), (Modality::VIDEO, &videos)]
        {
            if model.tower(&modality).is_ok() {
                let unit = |m: &Pretrained| m.embed(&modality, sources, None).and_then(|x| Ok(x.normalize()?));
                match (unit(&model), unit(&half)) {
                    (Ok(a), Ok(b)) => {
                        let told = model.tower(&modality).unwrap().encoder.embedding_dim();
                        if a.size(-1).unwrap() != told {
                            report(format!("{name}: {modality} says {told} wide, gives {a:?}"));
                        }
                        let least = a.mul(&b).unwrap().sum_dim(&[-1], false).unwrap().min().unwrap().to_f64().unwrap();
                        // Not less than: a NaN is wrong too.
                        if !matches!(least.partial_cmp(&0.97), Some(std::cmp::Ordering::Greater)) {
                            report(format!("{name}: {modality} in bfloat16: cosine {least} to float32"));
                        }
                    }
                    (_, Err(error)) => report(format!("{name}: {modality} in bfloat16: {error}")),
                    (Err(_), _) => {}
                }
            }
        }
        // An answer that nothing was held against would be a hole in the proof.
        let asked = answers.names().filter(|n| *n != "logits").count();
        if held.get() != asked {
            report(format!("{name}: {} of {asked} answers were held against mm", held.get()));
        }
        // Round trip: what is written again holds what was read, name by name, bit by bit.
        let again = folder.path().join("again.safetensors");
        model.save_weights(&again).unwrap();
        if std::env::var_os("MM_PARITY_SAVE").is_some() {
            std::fs::copy(&again, variant.join("again.safetensors")).unwrap();
        }
        let (mine, theirs) = (
            Checkpoint::open(&again).unwrap(),
            Checkpoint::open(model.folder().join(if folder.path().join("open_clip_model.safetensors").exists() {
                "open_clip_model.safetensors"
            } else if folder.path().join("pytorch_model.bin").exists() {
                "pytorch_model.bin"
            } else {
                "model.safetensors"
            }))
            .unwrap(),
        );
        for tensor in theirs.names().filter(|n| !model.unexpected_keys.iter().any(|u| u == n)) {
            let same = mine.get(tensor).map(|t| (t.shape(), t.to_bytes().unwrap()));
            let stored = theirs.get(tensor).unwrap();
            let skipped = [
                "num_batches_tracked",
                "position_ids",
                "token_type_ids",
                "relative_position_index",
                "masked_spec_embed",
            ];
            let skipped = skipped.iter().any(|k| tensor.ends_with(k));
            if !skipped && same.ok() != Some((stored.shape(), stored.to_bytes().unwrap())) {
                report(format!("{name}: {tensor} is not what it was when written again"));
            }
        }
    }
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn zipped_and_legacy_pickles_hold_the_same_and_an_evil_one_is_refused_unexecuted() {
    let zipped = Checkpoint::open(fixtures("sentence-max").join("pytorch_model.bin")).unwrap();
    let legacy = Checkpoint::open(fixtures("legacy.bin")).unwrap();
    assert!(zipped.names().eq(legacy.names()) && zipped.names().count() > 30);
    for name in zipped.names() {
        assert_eq!(
            zipped.get(name).unwrap().to_bytes().unwrap(),
            legacy.get(name).unwrap().to_bytes().unwrap(),
            "{name}"
        );
    }
    let text = Checkpoint::open(fixtures("evil.bin")).map(drop).unwrap_err().to_string();
    assert!(text.contains("posix.system") && text.contains("nothing was executed"), "{text}");
    assert!(!Path::new("/tmp/mm-was-executed").exists());
    // A pickle that is cut anywhere is an error, never a panic.
    let whole = std::fs::read(fixtures("legacy.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for cut in (1..whole.len()).step_by(97) {
        let file = folder.path().join("cut.bin");
        std::fs::write(&file, &whole[..cut]).unwrap();
        assert!(Checkpoint::open(&file).is_err(), "cut at {cut}");
    }
}

#[test]
fn efficientnet_gives_what_its_reference_gives_from_file_to_logits() {
    for name in ["efficientnet-lite", "efficientnet-plain"] {
        let folder = fixtures(name);
        let answers = Checkpoint::open(folder.join("answers.safetensors")).unwrap();
        let model = Pretrained::load(&folder_with_weights(&folder)).unwrap();
        let source = [Source::Path(folder.join("input.png"))];
        let tower = model.tower(&Modality::IMAGE).unwrap();
        let pixels = tower.processor.process(&source[0], &mut ProcessContext::eval()).unwrap();
        let wanted = answers.get("pixels").unwrap().select(0, 0).unwrap();
        let apart = pixels.sub(&wanted).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        assert!(apart <= 1.01 / 255.0 / 0.2, "{name}: {apart}");
        // On equal pixels, to 1e-4.
        let input = mm_core::Input { values: answers.get("pixels").unwrap(), mask: None };
        mm_core::no_grad(|| {
            let pooled = tower.encoder.embed(&input, false).unwrap();
            assert!(off(&pooled, &answers.get("pooled").unwrap()) < 1e-4, "{name}");
            let logits = tower.encoder.logits(&input).unwrap().unwrap();
            assert!(off(&logits, &answers.get("logits").unwrap()) < 1e-4, "{name}");
        });
    }
}

/// Fixture folders hold their answers as safetensors beside the weights; a checkpoint folder holds weights alone.
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

#[test]
fn folders_that_are_not_whole_are_told() {
    let told = |folder: &Path| Pretrained::load(folder).map(drop).unwrap_err().to_string();
    let folder = tempfile::tempdir().unwrap();
    assert!(told(&folder.path().join("nowhere")).contains("no such folder"));
    assert!(told(folder.path()).contains("no config.json"));
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "brt"}"#).unwrap();
    std::fs::copy(fixtures("bert-plain/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    assert!(told(folder.path()).contains("did you mean `bert`"));
    // One layer more than the weights have: each missing tensor is named.
    let text = std::fs::read_to_string(fixtures("bert-plain/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["num_hidden_layers"] = 3.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(fixtures("bert-plain/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert!(told(folder.path()).contains("missing encoder.layer.2.attention.self.query.weight [21, 21]"));
    config["num_hidden_layers"] = 2.into();
    config["hidden_size"] = 24.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    assert!(told(folder.path()).contains("found [33, 21]") || told(folder.path()).contains(", 21], wanted"));
}

fn real(name: &str) -> Option<Pretrained> {
    let folder = locate(name.as_ref(), Path::new("."));
    if !folder.is_dir() {
        eprintln!("skipped: {name} is not in the cache; `cargo xtask models pull {name}` fetches it");
        return None;
    }
    Some(Pretrained::load(&folder).unwrap())
}

#[test]
fn the_real_minilm_gives_what_sentence_transformers_gives() {
    let Some(model) = real("all-MiniLM-L6-v2") else { return };
    let answers = Checkpoint::open(fixtures("real.safetensors")).unwrap();
    let about: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(fixtures("real.json")).unwrap()).unwrap();
    let text = |v: &serde_json::Value| Source::Text(v.as_str().unwrap().to_owned());
    let sentences: Vec<Source> = about["sentences"].as_array().unwrap().iter().map(text).collect();
    let found = model.encode(&sentences).unwrap();
    assert!(off(&found, &answers.get("minilm").unwrap()) < 1e-4, "{}", off(&found, &answers.get("minilm").unwrap()));
    for (pair, wanted) in
        about["pairs"].as_array().unwrap().iter().zip(answers.get("similarity").unwrap().to_vec::<f64>().unwrap())
    {
        let both = model.encode(&[text(&pair[0]), text(&pair[1])]).unwrap();
        let found =
            both.select(0, 0).unwrap().mul(&both.select(0, 1).unwrap()).unwrap().sum().unwrap().to_f64().unwrap();
        assert!((found - wanted).abs() < 1e-4);
    }
}

#[test]
fn the_real_efficientnet_lite0_gives_what_its_reference_gives() {
    let Some(model) = real("efficientnet-lite0") else { return };
    let answers = Checkpoint::open(fixtures("real.safetensors")).unwrap();
    let found = model.encode(&[Source::Path(fixtures("photo.png"))]).unwrap();
    let wanted = answers.get("lite0").unwrap();
    // Pixels may be one in 255 off after the resize: features are held to what that can do, and to 1e-4 on equal pixels above.
    assert!(off(&found, &wanted) < 1e-2, "{}", off(&found, &wanted));
}

fn finite(vectors: &Tensor) -> bool {
    vectors.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite())
}

#[test]
fn odd_inputs_give_numbers_or_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let families = fixtures("families");
    let load = |name: &str| Pretrained::load(&families.join(name));
    // Fixtures hold their answers beside the weights, under a name that is no weights' name.
    let open = |name: &str| Pretrained::load(bare(&families.join(name)).path()).or_else(|_| load(name)).unwrap();

    for (name, width, height) in [("dot.png", 1, 1), ("line.png", 1, 5000), ("beam.png", 5000, 1)] {
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x % 256) as u8, (y % 256) as u8, 7]))
            .save(file(name))
            .unwrap();
    }
    for name in [
        "vit-classifier",
        "resnet-bottleneck",
        "convnext-v1",
        "dinov2-odd",
        "clip-eos-gelu",
        "efficientnet-plain",
        "timm-vit",
    ] {
        let pictures = ["dot.png", "line.png", "beam.png"].map(|n| Source::Path(file(n)));
        let vectors = open(name).embed(&Modality::IMAGE, &pictures, None).unwrap();
        assert!(finite(&vectors) && vectors.size(0).unwrap() == 3, "{name}");
    }

    let sound = |name: &str, samples: usize| {
        let samples: Vec<f32> = (0..samples).map(|i| (i as f32 * 0.05).sin() * 0.3).collect();
        mm_data::decode::write_wav(&file(name), &mm_data::decode::Audio { samples, sample_rate: 16_000 }).unwrap();
        Source::Path(file(name))
    };
    let (blink, hour) = (sound("blink.wav", 160), sound("hour.wav", 16_000 * 3600));
    for name in ["ast-overlap", "whisper-encoder", "clap-fused", "clap-unfused"] {
        let model = open(name);
        assert!(finite(&model.embed(&Modality::AUDIO, std::slice::from_ref(&blink), None).unwrap()), "{name}");
        assert!(finite(&model.embed(&Modality::AUDIO, std::slice::from_ref(&hour), None).unwrap()), "{name}");
        let cut = model.tower(&Modality::AUDIO).unwrap().processor.truncated();
        // Fused CLAP hears the whole.
        assert_eq!(cut.map(|c| c.0), (name != "clap-fused").then_some(1), "{name}");
    }
    for name in ["wav2vec2-group", "hubert-large"] {
        let model = open(name);
        let told = |s: &Source| model.embed(&Modality::AUDIO, std::slice::from_ref(s), None).unwrap_err().to_string();
        assert!(told(&hour).contains("at most 300") && told(&hour).contains("hour.wav"), "{}", told(&hour));
        let short = sound("short.wav", 9);
        assert!(told(&short).contains("needs at least"), "{}", told(&short));
    }

    // A video whose middle is broken is told by its name, or what ffmpeg makes of it is embedded; one cut short likewise.
    let whole = std::fs::read(families.join("inputs/frames.mkv")).unwrap();
    let video = open("videomae-mean");
    let mut middle = whole.clone();
    let place = middle.len() / 2;
    middle[place..place + 400].fill(0x5a);
    for (name, bytes) in
        [("middle.mkv", middle.as_slice()), ("half.mkv", &whole[..whole.len() / 2]), ("none.mkv", b"no video")]
    {
        std::fs::write(file(name), bytes).unwrap();
        match video.embed(&Modality::VIDEO, &[Source::Path(file(name))], None) {
            Ok(vectors) => assert!(finite(&vectors), "{name}"),
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
    }

    let mut texts: Vec<String> = [
        "latin",
        "ελληνικά",
        "кириллица",
        "עברית",
        "العربية",
        "हिन्दी",
        "ไทย",
        "日本語のテキスト",
        "한국어",
        "中文文本",
        "ქართული",
        "አማርኛ",
        "👩‍👩‍👧‍👦🏳️‍🌈",
        "    \t \u{a0}\u{3000}",
        "\u{0}\u{7}\u{202e}",
        "a\u{301}\u{302}\u{303}",
    ]
    .map(ToOwned::to_owned)
    .to_vec();
    texts.push("word ".repeat(20_000));
    for name in [
        "bert-gelu",
        "roberta-plain",
        "xlm-roberta-unigram",
        "distilbert-learned",
        "mpnet-plain",
        "clip-eos-gelu",
        "siglip-base",
        "clap-unfused",
    ] {
        let model = open(name);
        let sources: Vec<Source> = texts.iter().cloned().map(Source::Text).collect();
        let vectors = model.embed(&Modality::TEXT, &sources, None).unwrap();
        assert!(finite(&vectors) && vectors.size(0).unwrap() == texts.len() as i64, "{name}");
        assert!(
            model.tower(&Modality::TEXT).unwrap().processor.truncated().is_some_and(|(count, _)| count >= 1),
            "{name}"
        );
    }
}

#[test]
fn a_layer_is_asked_of_stacks_alone() {
    let cut = LoadOptions { layer: Some(1), ..LoadOptions::default() };
    for (name, stack) in
        [("whisper-encoder", true), ("videomae-mean", true), ("resnet-v1", false), ("clap-fused", false)]
    {
        let folder = bare(&fixtures("families").join(name));
        match Pretrained::load_with(folder.path(), cut) {
            Ok(_) => assert!(stack, "{name}"),
            Err(error) => {
                assert!(!stack && error.to_string().contains("--layer cannot be used"), "{name}: {error}")
            }
        }
    }
}

#[test]
fn a_missing_shard_and_a_tokenizer_of_another_model_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let from = fixtures("families/bert-gelu");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    let index = r#"{"weight_map": {"embeddings.word_embeddings.weight": "model-00002-of-00002.safetensors"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let told = || Pretrained::load(folder.path()).map(drop).unwrap_err().to_string();
    assert!(told().contains("model-00002-of-00002.safetensors"), "{}", told());
    std::fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    std::fs::copy(fixtures("families/roberta-plain/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert!(told().contains("one of the two is of another model"), "{}", told());
}
