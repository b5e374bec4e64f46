//! mm-repr against its reference programs: transformers, sentence-transformers, efficientnet_lite_pytorch.
//! `xtask/parity/repr_fixtures.py` makes the fixtures; the two real checkpoints are fetched by `cargo xtask test`.

use mm_core::{Checkpoint, Encoder, Input, Params, SampleContext, Source, Tensor, without_grad};
use mm_data::collate;
use mm_repr::{
    Pretrained,
    image::{EfficientNet, EfficientNetConfig},
    locate,
    text::{Bert, BertConfig},
};
use std::path::{Path, PathBuf};

const TEXTS: [&str; 7] = [
    "a dog",
    "",
    "   ",
    "The Quick brown fox jumps over the lazy dog, twice!",
    "élan naïve café",
    "unknownword 你好 42",
    "DOGS",
];

fn fixtures(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The largest difference over the largest value.
fn off(found: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(found.shape(), wanted.shape());
    let largest = wanted.abs().unwrap().max().unwrap().to_f64().unwrap();
    found.sub(wanted).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() / largest
}

fn texts() -> Vec<Source> {
    let mut texts: Vec<String> = TEXTS.iter().map(ToString::to_string).collect();
    texts[6] = "dog ".repeat(60);
    texts.into_iter().map(Source::Text).collect()
}

fn batch(model: &Pretrained) -> Input {
    let samples: Vec<Tensor> =
        texts().iter().map(|t| model.processor.process(t, &mut SampleContext::plain()).unwrap()).collect();
    collate(&samples, model.processor.as_ref()).unwrap()
}

#[test]
fn bert_gives_what_transformers_gives_from_text_to_features() {
    for name in ["bert-plain", "bert-one-head", "sentence-max"] {
        let answers = Checkpoint::open(fixtures(name).join("answers.safetensors")).unwrap();
        let model = Pretrained::load(fixtures(name).as_path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let input = batch(&model);
        let mask = answers.get("mask").unwrap();
        assert_eq!(
            input.values.to_vec::<i64>().unwrap(),
            answers.get("ids").unwrap().to_vec::<i64>().unwrap(),
            "{name}: token ids"
        );
        assert_eq!(input.mask.as_ref().unwrap().to_vec::<i64>().unwrap(), mask.to_vec::<i64>().unwrap());
        let features = without_grad(|| model.encoder.encode(&input, false)).unwrap();
        // Padded positions hold nothing that anyone reads.
        let keep = mask.to_dtype(mm_core::DType::F32).unwrap().unsqueeze(-1).unwrap();
        let (found, wanted) = (features.values.mul(&keep).unwrap(), answers.get("hidden").unwrap().mul(&keep).unwrap());
        assert!(off(&found, &wanted) < 1e-4, "{name}: {}", off(&found, &wanted));
        let pooled = model.encode(&texts()).unwrap();
        let wanted = match name {
            "sentence-max" => answers.get("max").unwrap().normalize().unwrap(),
            _ => answers.get("mean").unwrap(),
        };
        assert!(off(&pooled, &wanted) < 1e-4, "{name} pooled: {}", off(&pooled, &wanted));
    }
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
fn efficientnet_gives_what_its_reference_gives_from_file_to_logits_folded_or_not() {
    for name in ["efficientnet-lite", "efficientnet-plain"] {
        let folder = fixtures(name);
        let answers = Checkpoint::open(folder.join("answers.safetensors")).unwrap();
        let weights = folder.join("weights.pth");
        let config: EfficientNetConfig =
            serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        for frozen in [true, false] {
            let params = Params::from_checkpoint(
                Checkpoint::open(&weights).unwrap(),
                mm_core::Device::Cpu,
                mm_core::DType::F32,
                ToOwned::to_owned,
            );
            let scope = if frozen { params.scope().frozen() } else { params.scope() };
            let network = EfficientNet::new(&scope, &config).unwrap();
            assert!(params.finish().unwrap().iter().all(|n| n.ends_with("num_batches_tracked")));
            let input = Input { values: answers.get("pixels").unwrap(), mask: None };
            let places: i64 = answers.get("places").unwrap().to_vec::<i64>().unwrap().iter().product();
            without_grad(|| {
                let features = network.encode(&input, false).unwrap();
                assert_eq!(features.values.size(1).unwrap(), places);
                let pooled = network.embed(&input, false).unwrap();
                assert!(off(&pooled, &answers.get("pooled").unwrap()) < 1e-4, "{name} folded {frozen}");
                let logits = network.logits(&input).unwrap().unwrap();
                assert!(off(&logits, &answers.get("logits").unwrap()) < 1e-4, "{name} folded {frozen}");
            });
        }
        // From the file: pixels may be one in 255 off, which features feel a little.
        let model = Pretrained::load(&folder_with_weights(&folder)).unwrap();
        let pixels =
            model.processor.process(&Source::File(folder.join("input.png")), &mut SampleContext::plain()).unwrap();
        let apart = pixels
            .sub(&answers.get("pixels").unwrap().select(0, 0).unwrap())
            .unwrap()
            .abs()
            .unwrap()
            .max()
            .unwrap()
            .to_f64()
            .unwrap();
        assert!(apart <= 1.01 / 255.0 / 0.2, "{name}: {apart}");
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
fn what_is_saved_under_the_checkpoints_names_is_what_was_loaded() {
    let folder = fixtures("bert-plain");
    let original = Checkpoint::open(folder.join("model.safetensors")).unwrap();
    let model = Pretrained::load(&folder).unwrap();
    for (name, tensor) in model.params.named(&[mm_core::Role::Frozen]) {
        let theirs = original.get(&Bert::rename(&name)).unwrap();
        assert_eq!(theirs.to_bytes().unwrap(), tensor.to_bytes().unwrap(), "{name}");
    }
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
    let _: BertConfig = serde_json::from_str(&text).unwrap();
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
    let found = model.encode(&[Source::File(fixtures("photo.png"))]).unwrap();
    let wanted = answers.get("lite0").unwrap();
    // Pixels may be one in 255 off after the resize: features are held to what that can do, and to 1e-4 on equal pixels above.
    assert!(off(&found, &wanted) < 1e-2, "{}", off(&found, &wanted));
}
