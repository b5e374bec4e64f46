//! mm-data against the field's reference programs: Pillow, torchvision, libsndfile, librosa, Kaldi, Whisper.
//! `xtask/parity/data_fixtures.py` makes the fixtures.

use image::RgbImage;
use mm_core::{Checkpoint, Tensor};
use mm_data::{
    decode::{ImageLimits, decode_audio, decode_image},
    transform::{ImageTransform, Interpolation, LogScale, Mel, MelConfig, MelScale, PadMode, Resize, Window, resize},
};
use std::path::PathBuf;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(fixtures().join(name)).unwrap()
}

fn picture(tensor: &Tensor) -> RgbImage {
    let shape = tensor.shape();
    RgbImage::from_raw(shape[1] as u32, shape[0] as u32, tensor.to_vec::<u8>().unwrap()).unwrap()
}

fn furthest(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn bytes_apart(found: &RgbImage, wanted: &Tensor) -> i32 {
    let wanted = wanted.to_vec::<u8>().unwrap();
    assert_eq!(found.as_raw().len(), wanted.len());
    found.as_raw().iter().zip(wanted).map(|(a, b)| (i32::from(*a) - i32::from(b)).abs()).max().unwrap()
}

#[test]
fn resizing_is_pillows() {
    let reference = open("pictures.safetensors");
    let kinds = [
        ("bilinear", Interpolation::Bilinear),
        ("bicubic", Interpolation::Bicubic),
        ("lanczos", Interpolation::Lanczos),
        ("nearest", Interpolation::Nearest),
    ];
    // The last two are of the kinds whose height Pillow does first.
    for number in 0..6 {
        let from = picture(&reference.get(&format!("resize{number}.in")).unwrap());
        for (name, how) in kinds {
            let wanted = reference.get(&format!("resize{number}.{name}")).unwrap();
            let found = resize(&from, wanted.shape()[0] as u32, wanted.shape()[1] as u32, how).unwrap();
            let off = bytes_apart(&found, &wanted);
            assert!(off <= 1, "{name} {number}: {off}/255");
            // Where it must be Pillow's own pixels, it is.
            let size = Resize::Exact(wanted.shape()[0] as u32, wanted.shape()[1] as u32);
            let exact = ImageTransform {
                resize: Some(size),
                interpolation: how,
                pillow_exact: true,
                crop: None,
                mean: [0.0; 3],
                std: [1.0; 3],
                ..ImageTransform::default()
            };
            let found = exact.apply(&from).unwrap().permute(&[1, 2, 0]).unwrap().mul_scalar(255.0).unwrap();
            let wanted: Vec<f32> = wanted.to_vec().unwrap();
            assert!(furthest(&found.to_vec().unwrap(), &wanted) < 1e-3, "{name} {number}");
        }
    }
}

#[test]
fn the_whole_transform_is_torchvisions() {
    let reference = open("pictures.safetensors");
    for (number, edge, crop) in [(0, 24, (20, 20)), (1, 23, (19, 22)), (2, 16, (28, 28))] {
        let transform = ImageTransform {
            resize: Some(Resize::ShortestEdge(edge)),
            interpolation: Interpolation::Bicubic,
            crop: Some(crop),
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            ..ImageTransform::default()
        };
        let found = transform.apply(&picture(&reference.get(&format!("transform{number}.in")).unwrap())).unwrap();
        let wanted = reference.get(&format!("transform{number}.out")).unwrap();
        assert_eq!(found.shape(), wanted.shape());
        // One part in 255 of the pixel, over the smallest deviation.
        let off = furthest(&found.to_vec().unwrap(), &wanted.to_vec().unwrap());
        assert!(off <= 1.01 / 255.0 / 0.224, "transform {number}: {off}");
    }
}

#[test]
fn files_of_every_kind_are_read_as_pillow_reads_them() {
    let reference = open("files.safetensors");
    for name in reference.names() {
        let found = decode_image(&fixtures().join(name), &ImageLimits::default()).unwrap();
        let wanted = reference.get(name).unwrap();
        assert_eq!([i64::from(found.height()), i64::from(found.width()), 3], wanted.shape()[..], "{name}");
        // To the last rounding; jpegs of four colours go through another decoder, which rounds and smooths colour otherwise.
        let most = if name.contains("cmyk") { 6 } else { 1 };
        let off = bytes_apart(&found, &wanted);
        assert!(off <= most, "{name}: {off}/255");
    }
}

#[test]
fn sounds_of_every_kind_are_read_as_libsndfile_reads_them() {
    let reference = open("sounds.safetensors");
    for name in reference.names() {
        let found = decode_audio(&fixtures().join(name), None).unwrap().samples;
        let wanted = reference.get(name).unwrap().to_vec::<f32>().unwrap();
        if name == "mono.mp3" {
            // Decoders differ in how much of the encoder's delay they cut off: compared where both have sound, at the best shift.
            let middle = &wanted[4000..9000];
            let best = (0..=4000)
                .map(|s| (0..5000).map(|i| (found[i + 2000 + s] - middle[i]).abs()).fold(0f32, f32::max))
                .fold(f32::MAX, f32::min);
            assert!(best < 0.01, "{name}: {best}");
            continue;
        }
        let off = furthest(&found, &wanted);
        assert!(off < 1e-4, "{name}: {off}");
    }
}

#[test]
fn spectrograms_are_those_of_librosa_kaldi_and_whisper() {
    let reference = open("mels.safetensors");
    let sound = reference.get("sound").unwrap().to_vec::<f32>().unwrap();
    let whole = reference.get("whisper.sound").unwrap().to_vec::<f32>().unwrap();
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
    for (name, config, sound) in [
        ("librosa", MelConfig::librosa(16_000), &sound),
        ("htk", htk, &sound),
        ("kaldi", MelConfig::kaldi(16_000, 40), &sound),
        ("whisper", MelConfig::whisper(80), &whole),
    ] {
        let wanted = reference.get(name).unwrap();
        let found = Mel::new(config).unwrap().apply(sound).unwrap();
        assert_eq!(found.shape(), wanted.shape(), "{name}");
        let (found, wanted) = (found.to_vec::<f32>().unwrap(), wanted.to_vec::<f32>().unwrap());
        let largest = wanted.iter().map(|v| v.abs()).fold(0f32, f32::max);
        let off = furthest(&found, &wanted) / largest;
        assert!(off < 1e-4, "{name}: {off} of the largest value");
    }
}

/// `xtask/parity/multimodal_sentiment_fixtures.py` makes these: pickles and HDF5 files as NumPy and h5py write them, and what they read in them.
#[test]
fn sentiment_is_read_in_every_layout_that_it_is_passed_around_in() {
    let place = fixtures().join("multimodal_sentiment");
    let told: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(place.join("expected.json")).unwrap()).unwrap();
    for (name, wanted) in told.as_object().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("m.jsonl");
        let count = mm_data::datasets::prepare("mosei", &place.join(name), &manifest).unwrap();
        let text = std::fs::read_to_string(&manifest).unwrap();
        let found: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let wanted = wanted.as_array().unwrap();
        assert_eq!((found.len(), count), (wanted.len(), wanted.len()), "{name}");
        for (found, wanted) in found.iter().zip(wanted) {
            let near = |a: &serde_json::Value, b: &serde_json::Value| match (a.as_f64(), b.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() < 2e-5,
                _ => a == b,
            };
            for (field, wanted) in wanted.as_object().unwrap() {
                let Some(steps) = wanted.as_array() else {
                    assert!(near(&found[field], wanted), "{name} {field}: {} {wanted}", found[field]);
                    continue;
                };
                let at = |key: &str| found[field][key].as_u64().unwrap() as usize;
                let path = PathBuf::from(found[field]["array"].as_str().unwrap());
                let lines = mm_data::read_npy_rows(&path, at("from"), at("length")).unwrap();
                assert_eq!(lines.size(0).unwrap() as usize, steps.len(), "{name} {field}");
                let flat: Vec<f32> =
                    steps.iter().flat_map(|s| s.as_array().unwrap()).map(|v| v.as_f64().unwrap() as f32).collect();
                assert!(furthest(&lines.to_vec::<f32>().unwrap(), &flat) < 2e-5, "{name} {field}");
            }
            let missing = |field: &str| wanted.get(field).is_none() && found.get(field).is_some();
            assert!(!["words", "voice", "face", "frames"].iter().any(|f| missing(f)), "{name}: {found}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("m.jsonl");
    let refused = |from: PathBuf| mm_data::datasets::prepare("mosei", &from, &manifest).unwrap_err().to_string();
    let evil = refused(place.join("evil.pkl"));
    assert!(evil.contains("builtins.print") && evil.contains("nothing was executed"), "{evil}");
    // A file that is cut, or of another kind, is told and nothing panics, wherever it is cut.
    let whole = std::fs::read(place.join("mmsa.pkl")).unwrap();
    for part in 0..40 {
        let cut = folder.path().join("cut.pkl");
        std::fs::write(&cut, &whole[..whole.len() * part / 40]).unwrap();
        assert!(refused(cut).contains("cut.pkl"));
    }
    std::fs::write(folder.path().join("broken.csd"), &whole).unwrap();
    std::fs::remove_file(folder.path().join("cut.pkl")).unwrap();
    assert!(refused(folder.path().to_owned()).contains("broken.csd"));
}
