//! A temporary folder with a small data set (images, captions and tones of twelve rows) and tiny pretrained encoders,
//! for tests that run the program.
#![allow(missing_docs, dead_code)]

use image::{Rgb, RgbImage};
use mm_data::decode::{Audio, write_wav};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub struct Workspace {
    pub folder: tempfile::TempDir,
}

pub fn mm(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mm")).args(arguments).current_dir(folder).output().unwrap()
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs mm on bad input: see [`assert_refused`].
pub fn refused(arguments: &[&str], folder: &Path, wanted: &[&str]) {
    assert_refused(&mm(arguments, folder), arguments, wanted);
}

/// Asserts that a command failed as bad input must: one clear message that contains all of `wanted`, exit code 1 or 2,
/// no panic.
pub fn assert_refused(output: &Output, arguments: &[&str], wanted: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?} ended with {:?}: {stderr}", output.status);
    assert!(!stderr.contains("panicked"), "{stderr}");
    let messages = stderr.lines().filter(|l| l.starts_with("error: ")).count();
    assert_eq!(messages, 1, "expected one message: {stderr}");
    for part in wanted {
        assert!(stderr.contains(part), "expected `{part}` in: {stderr}");
    }
}

/// The entry of a metric without a scope in the JSON of an evaluation.
pub fn find_metric<'a>(evaluation: &'a serde_json::Value, id: &str) -> &'a serde_json::Value {
    let metrics = evaluation["metrics"].as_array().unwrap_or_else(|| panic!("no metrics in {evaluation}"));
    let found = metrics.iter().find(|m| m["id"] == id && m["scope"].is_null());
    found.unwrap_or_else(|| panic!("no {id} in {evaluation}"))
}

/// The value of a metric without a scope.
pub fn metric(evaluation: &serde_json::Value, id: &str) -> f64 {
    find_metric(evaluation, id)["value"].as_f64().unwrap()
}

/// The path of a test fixture of a crate.
pub fn fixture(crate_name: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(crate_name).join("tests/fixtures").join(name)
}

impl Workspace {
    pub fn new() -> Self {
        let workspace = Self { folder: tempfile::tempdir().unwrap() };
        let folder = workspace.path();
        for (model, files) in [
            ("words", ["config.json", "tokenizer.json", "model.safetensors"]),
            ("eyes", ["config.json", "preprocessor_config.json", "weights.pth"]),
        ] {
            std::fs::create_dir_all(folder.join(model)).unwrap();
            let from = fixture("mm-repr", if model == "words" { "bert-plain" } else { "efficientnet-lite" });
            for file in files {
                std::fs::copy(from.join(file), folder.join(model).join(file)).unwrap();
            }
        }
        let names = [
            "a dog",
            "the quick fox",
            "lazy dog",
            "brown fox",
            "over the dog",
            "a cafe",
            "twice",
            "elan naive",
            "jump",
            "jumps over",
            "quick dog",
            "lazy cafe",
        ];
        let mut manifest = String::new();
        for (number, name) in names.iter().enumerate() {
            let (a, b) = ((number * 20) as u8, (number * 53 % 256) as u8);
            RgbImage::from_fn(40, 36, |x, y| if (x / 5 + y / 7) % 2 == 0 { Rgb([a, b, 90]) } else { Rgb([b, 200, a]) })
                .save(folder.join(format!("{number}.png")))
                .unwrap();
            let samples =
                (0..4000 + number * 300).map(|i| (i as f32 * (0.05 + 0.02 * number as f32)).sin() * 0.4).collect();
            write_wav(&folder.join(format!("{number}.wav")), &Audio { samples, sample_rate: 8000 }).unwrap();
            let audio = if number == 3 {
                "null".to_owned()
            } else {
                format!(
                    "[{{\"file\":\"{number}.wav\",\"language\":\"{}\"}}]",
                    if number % 2 == 0 { "en" } else { "fr" }
                )
            };
            let split = if number >= 8 { "test" } else { "train" };
            manifest += &format!(
                "{{\"id\":\"{number}\",\"image\":\"{number}.png\",\"text\":\"{name}\",\"audio\":{audio},\"split\":\"{split}\"}}\n"
            );
        }
        std::fs::write(folder.join("data.jsonl"), manifest).unwrap();
        std::fs::write(folder.join("config.toml"), CONFIG).unwrap();
        workspace
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    pub fn train(&self, run: &str, more: &[&str]) -> Output {
        mm(&[&["train", "config.toml", "--out", run, "--device", "cpu", "--threads", "1"], more].concat(), self.path())
    }
}

const CONFIG: &str = r#"
task = "retrieval"
embed_dim = 16
cache_dir = "cache"
[data]
manifest = "data.jsonl"
split = { column = "split" }
[loader]
batch_size = 4
[towers.image]
num_views = 1
encoder = { kind = "pretrained", path = "eyes" }
projection = { hidden_dim = 16, dropout = 0.1 }
[towers.text]
encoder = { kind = "pretrained", path = "words" }
projection = { hidden_dim = 16, dropout = 0.1 }
[towers.audio]
projection = { hidden_dim = 16, dropout = 0.1 }
[towers.audio.encoder]
kind = "audio_cnn"
processor = { max_seconds = 1.0, normalize = true, spec_augment = { max_time_stretch = 0.1 }, mel = { sample_rate = 8000, n_fft = 256, win_length = 200, hop_length = 80, n_mels = 16, f_min = 20.0, mel_scale = "htk", window = "hann", pad_mode = "reflect", log = { natural = { floor = 1e-6 } } } }
network = { channels = [16, 16], downsample_layers = 1 }
[train]
epochs = 3
log_every_steps = 1
ema_decay = 0.9
"#;
