//! Loading of checkpoints that are damaged, incomplete or used with unusual inputs.

mod common;

use common::{checkpoint_only, fixtures};
use mm_core::{Checkpoint, Input, Modality, Source, Tensor};
use mm_data::decode::Transparency;
use mm_repr::{LoadOptions, Pretrained};
use std::path::Path;

#[test]
fn zipped_and_legacy_pickles_are_equal_and_unsafe_ones_are_rejected() {
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
    // A pickle that is truncated anywhere is an error, not a panic.
    let bytes = std::fs::read(fixtures("legacy.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for length in (1..bytes.len()).step_by(97) {
        let file = folder.path().join("truncated.bin");
        std::fs::write(&file, &bytes[..length]).unwrap();
        assert!(Checkpoint::open(&file).is_err(), "{length} bytes");
    }
}

#[test]
fn incomplete_folders_are_errors() {
    let error = |folder: &Path| Pretrained::load(folder).map(drop).unwrap_err().to_string();
    let folder = tempfile::tempdir().unwrap();
    assert!(error(&folder.path().join("nowhere")).contains("no such folder"));
    assert!(error(folder.path()).contains("no config.json"));
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "brt"}"#).unwrap();
    std::fs::copy(fixtures("bert-plain/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    assert!(error(folder.path()).contains("did you mean `bert`"));
    // One layer more than the weights have: the error names each missing tensor.
    let text = std::fs::read_to_string(fixtures("bert-plain/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["num_hidden_layers"] = 3.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(fixtures("bert-plain/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert!(error(folder.path()).contains("missing encoder.layer.2.attention.self.query.weight [21, 21]"));
    config["num_hidden_layers"] = 2.into();
    config["hidden_size"] = 24.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    assert!(error(folder.path()).contains("found [33, 21]") || error(folder.path()).contains(", 21], expected"));
}

fn is_finite(vectors: &Tensor) -> bool {
    vectors.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite())
}

/// Loads a fixture of `xtask/parity/families.py`.
fn load_family(name: &str) -> Pretrained {
    let folder = fixtures("families").join(name);
    Pretrained::load(checkpoint_only(&folder).path()).or_else(|_| Pretrained::load(&folder)).unwrap()
}

#[test]
fn images_of_unusual_sizes_give_finite_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
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
        let images = ["dot.png", "line.png", "beam.png"].map(|n| Source::Path(file(n)));
        let vectors = load_family(name).embed(&Modality::IMAGE, &images, None).unwrap();
        assert!(is_finite(&vectors) && vectors.size(0).unwrap() == 3, "{name}");
    }
}

#[test]
fn transparency_is_ignored_as_the_reference_programs_do_or_blended_with_white() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let pixel = |x: u32, y: u32| [(x * 40) as u8, (y * 30) as u8, ((x + y) * 17) as u8];
    let alpha = |x: u32, y: u32| if (x + y).is_multiple_of(3) { 0 } else { 255 };
    let transparent = image::RgbaImage::from_fn(6, 8, |x, y| {
        let [r, g, b] = pixel(x, y);
        image::Rgba([r, g, b, alpha(x, y)])
    });
    transparent.save(file("transparent.png")).unwrap();
    image::RgbImage::from_fn(6, 8, |x, y| image::Rgb(pixel(x, y))).save(file("opaque.png")).unwrap();
    let over_white = |x, y| image::Rgb(if alpha(x, y) == 0 { [255; 3] } else { pixel(x, y) });
    image::RgbImage::from_fn(6, 8, over_white).save(file("white.png")).unwrap();
    let images = ["transparent.png", "opaque.png", "white.png"].map(|n| Source::Path(file(n)));
    for name in ["vit-classifier", "clip-eos-gelu", "timm-vit", "efficientnet-plain"] {
        let family = fixtures("families").join(name);
        for (transparency, equal, other) in
            [(None, 1, 2), (Some(Transparency::Ignore), 1, 2), (Some(Transparency::Blend), 2, 1)]
        {
            let options = LoadOptions { transparency, ..LoadOptions::default() };
            let copy = checkpoint_only(&family);
            let model =
                Pretrained::load_with(copy.path(), options).or_else(|_| Pretrained::load_with(&family, options));
            let vectors = model.unwrap().embed(&Modality::IMAGE, &images, None).unwrap();
            let row = |i: usize| vectors.select(0, i as i64).unwrap().to_vec::<f32>().unwrap();
            let difference = |i: usize| row(0).iter().zip(row(i)).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            let (equal, other) = (difference(equal), difference(other));
            assert!(equal < 1e-5 && other > 5.0 * equal + 1e-6, "{name} {transparency:?}: {equal} {other}");
        }
    }
}

#[test]
fn audio_of_unusual_lengths_gives_finite_embeddings_or_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let write_audio = |name: &str, samples: usize| {
        let samples: Vec<f32> = (0..samples).map(|i| (i as f32 * 0.05).sin() * 0.3).collect();
        mm_data::decode::write_wav(&file(name), &mm_data::decode::Audio { samples, sample_rate: 16_000 }).unwrap();
        Source::Path(file(name))
    };
    // Longer than every window (30 s) and than what wav2vec2 takes (300 s).
    let (short, long) = (write_audio("short.wav", 160), write_audio("long.wav", 16_000 * 310));
    for name in ["ast-overlap", "whisper-encoder", "clap-fused", "clap-unfused"] {
        let model = load_family(name);
        assert!(is_finite(&model.embed(&Modality::AUDIO, std::slice::from_ref(&short), None).unwrap()), "{name}");
        assert!(is_finite(&model.embed(&Modality::AUDIO, std::slice::from_ref(&long), None).unwrap()), "{name}");
        let truncated = model.tower(&Modality::AUDIO).unwrap().processor.truncated();
        // Fused CLAP uses the whole recording.
        assert_eq!(truncated.map(|t| t.0), (name != "clap-fused").then_some(1), "{name}");
    }
    for name in ["wav2vec2-group", "hubert-large"] {
        let model = load_family(name);
        let error = |s: &Source| model.embed(&Modality::AUDIO, std::slice::from_ref(s), None).unwrap_err().to_string();
        assert!(error(&long).contains("at most 300") && error(&long).contains("long.wav"), "{}", error(&long));
        let too_short = write_audio("too-short.wav", 9);
        assert!(error(&too_short).contains("needs at least"), "{}", error(&too_short));
    }
}

#[test]
fn damaged_videos_are_errors_that_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    // Those that ffmpeg can decode are embedded.
    let bytes = std::fs::read(fixtures("families/inputs/frames.mkv")).unwrap();
    let video = load_family("videomae-mean");
    let mut damaged = bytes.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 400].fill(0x5a);
    for (name, content) in
        [("damaged.mkv", damaged.as_slice()), ("truncated.mkv", &bytes[..bytes.len() / 2]), ("none.mkv", b"no video")]
    {
        std::fs::write(file(name), content).unwrap();
        match video.embed(&Modality::VIDEO, &[Source::Path(file(name))], None) {
            Ok(vectors) => assert!(is_finite(&vectors), "{name}"),
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
    }
}

#[test]
fn texts_in_any_script_give_finite_embeddings() {
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
        let model = load_family(name);
        let sources: Vec<Source> = texts.iter().cloned().map(Source::Text).collect();
        let vectors = model.embed(&Modality::TEXT, &sources, None).unwrap();
        assert!(is_finite(&vectors) && vectors.size(0).unwrap() == texts.len() as i64, "{name}");
        assert!(
            model.tower(&Modality::TEXT).unwrap().processor.truncated().is_some_and(|(count, _)| count >= 1),
            "{name}"
        );
    }
}

#[test]
fn a_layer_can_only_be_selected_from_stacks_of_equal_layers() {
    let options = LoadOptions { layer: Some(1), ..LoadOptions::default() };
    for (name, is_stack) in
        [("whisper-encoder", true), ("videomae-mean", true), ("resnet-v1", false), ("clap-fused", false)]
    {
        let folder = checkpoint_only(&fixtures("families").join(name));
        match Pretrained::load_with(folder.path(), options) {
            Ok(_) => assert!(is_stack, "{name}"),
            Err(error) => {
                assert!(!is_stack && error.to_string().contains("--layer cannot be used"), "{name}: {error}")
            }
        }
    }
}

#[test]
fn a_missing_shard_and_a_tokenizer_of_another_model_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let from = fixtures("families/bert-gelu");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    let index = r#"{"weight_map": {"embeddings.word_embeddings.weight": "model-00002-of-00002.safetensors"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let error = || Pretrained::load(folder.path()).map(drop).unwrap_err().to_string();
    assert!(error().contains("model-00002-of-00002.safetensors"), "{}", error());
    std::fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    std::fs::copy(fixtures("families/roberta-plain/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert!(error().contains("one of the two is of another model"), "{}", error());
}

/// Texts are truncated by the processor; ids that a caller makes may be too many.
#[test]
fn more_tokens_than_positions_are_an_error_in_every_text_model() {
    let mut checked = 0;
    for entry in std::fs::read_dir(fixtures("families")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "inputs" {
            continue;
        }
        let model = load_family(&name);
        let Ok(tower) = model.tower(&Modality::TEXT) else { continue };
        let values = Tensor::from_vec(&vec![7i64; 4000], &[1, 4000]).unwrap();
        let mask = Tensor::from_vec(&vec![true; 4000], &[1, 4000]).unwrap();
        let encoded = mm_core::no_grad(|| tower.encoder.encode(&Input { values, mask: Some(mask) }, false));
        let error = encoded.map(drop).unwrap_err().to_string();
        assert!(error.contains("4000") && error.contains("at most"), "{name}: {error}");
        let long = [Source::Text("the quick dog ".repeat(2000))];
        assert!(is_finite(&model.embed(&Modality::TEXT, &long, None).unwrap()), "{name}");
        checked += 1;
    }
    assert!(checked >= 20, "{checked}");
}

/// A scale that no layer reads (of a key and value cache, say) does not refuse the file; a weight does.
#[test]
fn a_weight_in_eight_bits_is_refused_where_the_model_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(fixtures("bert-plain").join(name), folder.path().join(name)).unwrap();
    }
    let bytes = std::fs::read(fixtures("bert-plain/model.safetensors")).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let load = |edit: &dyn Fn(&mut serde_json::Value), more: &[u8]| {
        let mut header = header.clone();
        edit(&mut header);
        let text = header.to_string();
        let parts = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[8 + length..], more].concat();
        std::fs::write(folder.path().join("model.safetensors"), parts).unwrap();
        Pretrained::load(folder.path())
    };
    let end = bytes.len() - 8 - length;
    let scale = serde_json::json!({"dtype": "F8_E4M3", "shape": [4], "data_offsets": [end, end + 4]});
    let with_scale = load(&|header| header["encoder.layer.0.kv_scale"] = scale.clone(), &[56; 4]).unwrap();
    assert!(with_scale.encode(&[Source::Text("a dog".into())]).is_ok());
    let name = "encoder.layer.0.attention.self.query.weight";
    let in_eight_bits = |header: &mut serde_json::Value| {
        let columns = header[name]["shape"][1].as_u64().unwrap();
        header[name]["shape"][1] = (4 * columns).into();
        header[name]["dtype"] = "F8_E4M3".into();
    };
    let error = load(&in_eight_bits, &[]).map(drop).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("F8_E4M3"), "{error}");
}
