//! Compares mm-data with the reference libraries: Pillow, torchvision, libsndfile, librosa, Kaldi, Whisper.
//! `xtask/parity/data_fixtures.py` writes the fixtures.

use image::RgbImage;
use mm_core::{Checkpoint, Tensor};
use mm_data::{
    decode::{ImageLimits, Transparency, decode_audio, decode_image},
    transform::{ImageTransform, Interpolation, LogScale, Mel, MelConfig, MelScale, PadMode, Resize, Window, resize},
};
use std::path::PathBuf;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(fixtures().join(name)).unwrap()
}

fn to_image(tensor: &Tensor) -> RgbImage {
    let shape = tensor.shape();
    RgbImage::from_raw(shape[1] as u32, shape[0] as u32, tensor.to_vec::<u8>().unwrap()).unwrap()
}

fn max_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn max_byte_difference(found: &RgbImage, expected: &Tensor) -> i32 {
    let expected = expected.to_vec::<u8>().unwrap();
    assert_eq!(found.as_raw().len(), expected.len());
    found.as_raw().iter().zip(expected).map(|(a, b)| (i32::from(*a) - i32::from(b)).abs()).max().unwrap()
}

#[test]
fn resizing_matches_pillow() {
    let reference = open("images.safetensors");
    let modes = [
        ("bilinear", Interpolation::Bilinear),
        ("bicubic", Interpolation::Bicubic),
        ("lanczos", Interpolation::Lanczos),
        ("nearest", Interpolation::Nearest),
    ];
    // For the last two Pillow resizes the height first.
    for number in 0..6 {
        let from = to_image(&reference.get(&format!("resize{number}.in")).unwrap());
        for (name, interpolation) in modes {
            let expected = reference.get(&format!("resize{number}.{name}")).unwrap();
            let found = resize(&from, expected.shape()[0] as u32, expected.shape()[1] as u32, interpolation).unwrap();
            let difference = max_byte_difference(&found, &expected);
            assert!(difference <= 1, "{name} {number}: {difference}/255");
            // With `pillow_exact` the pixels are equal.
            let size = Resize::Exact(expected.shape()[0] as u32, expected.shape()[1] as u32);
            let exact = ImageTransform {
                resize: Some(size),
                interpolation,
                pillow_exact: true,
                crop: None,
                mean: [0.0; 3],
                std: [1.0; 3],
                ..ImageTransform::default()
            };
            let found = exact.apply(&from).unwrap().permute(&[1, 2, 0]).unwrap().mul_scalar(255.0).unwrap();
            let expected: Vec<f32> = expected.to_vec().unwrap();
            assert!(max_difference(&found.to_vec().unwrap(), &expected) < 1e-3, "{name} {number}");
        }
    }
}

#[test]
fn image_transform_matches_torchvision() {
    let reference = open("images.safetensors");
    for (number, edge, crop) in [(0, 24, (20, 20)), (1, 23, (19, 22)), (2, 16, (28, 28))] {
        let transform = ImageTransform {
            resize: Some(Resize::ShortestEdge(edge)),
            interpolation: Interpolation::Bicubic,
            crop: Some(crop),
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            ..ImageTransform::default()
        };
        let found = transform.apply(&to_image(&reference.get(&format!("transform{number}.in")).unwrap())).unwrap();
        let expected = reference.get(&format!("transform{number}.out")).unwrap();
        assert_eq!(found.shape(), expected.shape());
        // 1/255 of a pixel value, divided by the smallest standard deviation.
        let difference = max_difference(&found.to_vec().unwrap(), &expected.to_vec().unwrap());
        assert!(difference <= 1.01 / 255.0 / 0.224, "transform {number}: {difference}");
    }
}

#[test]
fn decoded_images_match_pillow() {
    let reference = open("files.safetensors");
    for name in reference.names() {
        let found = decode_image(&fixtures().join(name), &ImageLimits::default()).unwrap();
        let expected = reference.get(name).unwrap();
        assert_eq!([i64::from(found.height()), i64::from(found.width()), 3], expected.shape()[..], "{name}");
        // Up to rounding; CMYK jpegs are decoded by another library, which rounds and upsamples chroma differently.
        let max = if name.contains("cmyk") { 6 } else { 1 };
        let difference = max_byte_difference(&found, &expected);
        assert!(difference <= max, "{name}: {difference}/255");
    }
}

#[test]
fn transparency_is_blended_or_ignored_as_pillow_does() {
    let reference = open("transparency.safetensors");
    for name in reference.names() {
        let (file, transparency) = match name.strip_suffix(".white") {
            Some(file) => (file, Transparency::Blend),
            None => (name, Transparency::Ignore),
        };
        let limits = ImageLimits { transparency, ..ImageLimits::default() };
        let found = decode_image(&fixtures().join("transparency").join(file), &limits).unwrap();
        let difference = max_byte_difference(&found, &reference.get(name).unwrap());
        // Pillow's blending rounds differently.
        let max = i32::from(transparency == Transparency::Blend);
        assert!(difference <= max, "{name}: {difference}/255");
    }
}

#[test]
fn decoded_audio_matches_libsndfile() {
    let reference = open("audio.safetensors");
    for name in reference.names() {
        let found = decode_audio(&fixtures().join(name), None).unwrap().samples;
        let expected = reference.get(name).unwrap().to_vec::<f32>().unwrap();
        if name == "mono.mp3" {
            // Decoders differ in how much of the encoder's delay they remove; the middle is compared at the best shift.
            let middle = &expected[4000..9000];
            let best = (0..=4000)
                .map(|s| (0..5000).map(|i| (found[i + 2000 + s] - middle[i]).abs()).fold(0f32, f32::max))
                .fold(f32::MAX, f32::min);
            assert!(best < 0.01, "{name}: {best}");
            continue;
        }
        let difference = max_difference(&found, &expected);
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[test]
fn spectrograms_match_librosa_kaldi_and_whisper() {
    let reference = open("mels.safetensors");
    let audio = reference.get("sound").unwrap().to_vec::<f32>().unwrap();
    let padded = reference.get("whisper.sound").unwrap().to_vec::<f32>().unwrap();
    let htk = MelConfig {
        sample_rate: 16_000,
        n_fft: 512,
        win_length: 400,
        hop_length: 160,
        n_mels: 48,
        f_min: 60.0,
        f_max: Some(7600.0),
        mel_scale: MelScale::Htk,
        window: Window::Hann,
        pad_mode: PadMode::Reflect,
        preemphasis: None,
        log: LogScale::Natural { floor: 1e-6 },
    };
    for (name, config, audio) in [
        ("librosa", MelConfig::librosa(16_000), &audio),
        ("htk", htk, &audio),
        ("kaldi", MelConfig::kaldi(16_000, 40), &audio),
        ("whisper", MelConfig::whisper(80), &padded),
    ] {
        let expected = reference.get(name).unwrap();
        let found = Mel::new(config).unwrap().apply(audio).unwrap();
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let (found, expected) = (found.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap());
        let largest = expected.iter().map(|v| v.abs()).fold(0f32, f32::max);
        let difference = max_difference(&found, &expected) / largest;
        assert!(difference < 1e-4, "{name}: {difference} of the largest value");
    }
}

/// `xtask/parity/multimodal_sentiment_fixtures.py` writes these fixtures: pickles and HDF5 files as NumPy and h5py
/// write them, and the rows expected from them.
#[test]
fn multimodal_sentiment_is_read_in_every_published_format() {
    let source = fixtures().join("multimodal_sentiment");
    let all_expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(source.join("expected.json")).unwrap()).unwrap();
    for (name, expected) in all_expected.as_object().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("m.jsonl");
        let count = mm_data::datasets::prepare("mosei", &source.join(name), &manifest).unwrap();
        let text = std::fs::read_to_string(&manifest).unwrap();
        let found: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let expected = expected.as_array().unwrap();
        assert_eq!((found.len(), count), (expected.len(), expected.len()), "{name}");
        for (found, expected) in found.iter().zip(expected) {
            let is_close = |a: &serde_json::Value, b: &serde_json::Value| match (a.as_f64(), b.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() < 2e-5,
                _ => a == b,
            };
            for (field, expected) in expected.as_object().unwrap() {
                let Some(steps) = expected.as_array() else {
                    assert!(is_close(&found[field], expected), "{name} {field}: {} {expected}", found[field]);
                    continue;
                };
                let at = |key: &str| found[field][key].as_u64().unwrap() as usize;
                let path = PathBuf::from(found[field]["array"].as_str().unwrap());
                let lines = mm_data::read_npy_rows(&path, at("from"), at("length")).unwrap();
                assert_eq!(lines.size(0).unwrap() as usize, steps.len(), "{name} {field}");
                let flat: Vec<f32> =
                    steps.iter().flat_map(|s| s.as_array().unwrap()).map(|v| v.as_f64().unwrap() as f32).collect();
                assert!(max_difference(&lines.to_vec::<f32>().unwrap(), &flat) < 2e-5, "{name} {field}");
            }
            let missing = |field: &str| expected.get(field).is_none() && found.get(field).is_some();
            assert!(!["words", "voice", "face", "frames"].iter().any(|f| missing(f)), "{name}: {found}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("m.jsonl");
    let error = |from: PathBuf| mm_data::datasets::prepare("mosei", &from, &manifest).unwrap_err().to_string();
    let unsafe_pickle = error(source.join("evil.pkl"));
    assert!(
        unsafe_pickle.contains("builtins.print") && unsafe_pickle.contains("nothing was executed"),
        "{unsafe_pickle}"
    );
    // A file that is truncated anywhere, or of another format, is an error, not a panic.
    let whole = std::fs::read(source.join("mmsa.pkl")).unwrap();
    for part in 0..40 {
        let truncated = folder.path().join("cut.pkl");
        std::fs::write(&truncated, &whole[..whole.len() * part / 40]).unwrap();
        assert!(error(truncated).contains("cut.pkl"));
    }
    std::fs::write(folder.path().join("broken.csd"), &whole).unwrap();
    std::fs::remove_file(folder.path().join("cut.pkl")).unwrap();
    assert!(error(folder.path().to_owned()).contains("broken.csd"));
}
