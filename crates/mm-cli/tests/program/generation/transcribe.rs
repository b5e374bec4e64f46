//! `mm transcribe`, and fine-tuning a speech model.

use super::{fixture, lines};
use crate::common::{find_metric, metric, mm, refused};
use mm_data::decode::{Audio, write_wav};
use serde_json::json;
use std::path::Path;

#[test]
fn speech_is_transcribed_with_timestamps() {
    let folder = std::env::temp_dir();
    let (model, audio) = (fixture("whisper-multilingual"), fixture("inputs/long16.wav"));
    let transcribe = ["transcribe", "--model", &model, "--audio", &audio, "--max-new-tokens", "6", "--json"];
    let found = lines(&[&transcribe, ["--language", "german", "--timestamps"].as_slice()].concat(), &folder);
    assert!(found[0]["text"].is_string() && !found[0]["segments"].as_array().unwrap().is_empty());
}

#[test]
fn silence_is_transcribed_and_invalid_requests_are_refused() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let (model, audio) = (fixture("whisper-multilingual"), fixture("inputs/long16.wav"));
    let silence = Audio { samples: vec![0.0; 16_000], sample_rate: 16_000 };
    write_wav(&folder.join("silence.wav"), &silence).unwrap();
    let quiet = ["transcribe", "--model", &model, "--audio", "silence.wav", "--max-new-tokens", "4", "--json"];
    let found = lines(&quiet, folder);
    assert_eq!((&found[0]["warnings"][0]["kind"], &found[0]["warnings"][0]["end"]), (&"silence".into(), &1.0.into()));
    let output = mm(&quiet[..quiet.len() - 1], folder);
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(warnings.contains("silence.wav: 0.0 s to 1.0 s is silent; text there is invented"), "{warnings}");
    let (caption, image) = (fixture("blip-caption"), fixture("inputs/wide.png"));
    refused(&["transcribe", "--model", &caption, "--audio", &image], folder, &["takes no audio"]);
    let language = ["transcribe", "--model", &model, "--audio", &audio, "--language", "klingon"];
    refused(&language, folder, &["klingon"]);
}

/// Writes a second of a tone at 16 kHz.
fn tone(path: &Path, hertz: f32, phase: f32) {
    let sample = |n: u16| (2.0 * std::f32::consts::PI * (hertz * f32::from(n) / 16e3 + phase)).sin() * 0.37;
    write_wav(path, &Audio { samples: (0..16_000).map(sample).collect(), sample_rate: 16_000 }).unwrap();
}

#[test]
fn whisper_is_fine_tuned_to_transcribe_tones() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let mut rows = String::new();
    for (split, count) in [("train", 10u8), ("test", 4)] {
        for n in 0..count {
            for (text, hertz) in [("fox", 300.0), ("the dog", 900.0), ("lazy", 2500.0)] {
                let file = format!("{split}-{n}-{hertz}.wav");
                let step = f32::from(n);
                tone(&folder.join(&file), hertz * (1.0 + 0.01 * step), 0.1 * step);
                rows += &format!("{}\n", json!({"id": file, "audio": file, "text": text, "split": split}));
            }
        }
    }
    std::fs::write(folder.join("tones.jsonl"), rows).unwrap();
    let config = format!(
        r#"
task = "finetuning"
model = {:?}
input_modality = "audio"
language = "en"
max_length = 8
[data]
manifest = "tones.jsonl"
[data.split]
column = "split"
[loader]
batch_size = 6
[train]
epochs = 40
max_grad_norm = 1.0
[train.optimizer]
lr = 5e-3
"#,
        fixture("whisper-multilingual")
    );
    std::fs::write(folder.join("tones.toml"), config).unwrap();
    lines(&["train", "tones.toml", "--out", "tones", "--threads", "1", "--json"], folder);
    let evaluation = lines(&["eval", "--model", "tones", "--json"], folder).remove(0);
    let prior = find_metric(&evaluation, "word_error_rate")["baselines"]["language_prior"].as_f64().unwrap();
    // The baseline gives one of the three texts for every clip, in which at most half of the words are correct.
    assert!(metric(&evaluation, "word_error_rate") < 0.15 && prior >= 0.5, "{evaluation}");
    let found = lines(&["transcribe", "--model", "tones/model", "--audio", "test-0-900.wav", "--json"], folder);
    assert_eq!(found[0]["text"].as_str().unwrap().trim(), "the dog", "{found:?}");
}
