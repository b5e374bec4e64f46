//! Prompts of videos, and prompts that are longer than the model.

use mm_core::{Modality, Source};
use mm_reason::{
    Pipeline, Request,
    generate::{GenerationConfig, LogitsProcessors},
};
use mm_repr::LoadOptions;
use serde_json::Value;
use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap().path()).filter(|e| e.is_file()) {
        std::fs::copy(&entry, to.join(entry.file_name().unwrap())).unwrap();
    }
}

/// Two frames are one temporal patch, as an image is; they are a video all the same.
#[test]
fn a_video_of_two_frames_takes_the_tokens_of_videos() {
    if mm_data::decode::ffmpeg().is_err() {
        println!("skipped: no ffmpeg");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    copy_files(&fixtures().join("qwen2_vl-image"), folder.path());
    let settings = folder.path().join("video_preprocessor_config.json");
    let mut video: Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
    video["num_frames"] = 2.into();
    std::fs::write(&settings, video.to_string()).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(folder.path().join("config.json")).unwrap()).unwrap();
    let token = |kind: &str| config[format!("{kind}_token_id")].as_i64().unwrap();
    let pipeline = Pipeline::load(folder.path(), LoadOptions::default()).unwrap();
    for (modality, file, own, other) in
        [(Modality::VIDEO, "frames.mkv", "video", "image"), (Modality::IMAGE, "wide.png", "image", "video")]
    {
        let media = pipeline.encode_media(&modality, &[Source::Path(fixtures().join("inputs").join(file))]).unwrap();
        let request = Request::Question("what is it");
        let ids = pipeline.prompt(Some(&media), request).unwrap().decoder_input_ids;
        let count = |kind: &str| ids.iter().filter(|id| **id == token(kind)).count();
        assert!(count(own) > 1 && count(other) == 0, "{modality}: {} and {}", count(own), count(other));
        let config = GenerationConfig { max_new_tokens: 2, ..pipeline.generation.clone() };
        let generated = pipeline.generate(Some(&media), request, &config, &LogitsProcessors::default(), &mut |_, _| {});
        assert!(generated.is_ok(), "{modality}");
    }
}

#[test]
fn more_tokens_than_positions_are_refused_by_every_generator() {
    let mut checked = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap().map(|e| e.unwrap().path()) {
        if !entry.join("config.json").exists() {
            continue;
        }
        let pipeline = Pipeline::load(&entry, LoadOptions::default()).unwrap();
        if !pipeline.can_generate() {
            continue;
        }
        let name = entry.file_name().unwrap().to_string_lossy();
        let is_speech = pipeline.processor(&Modality::IMAGE).is_err();
        let (modality, file) = if is_speech { (Modality::AUDIO, "short16.wav") } else { (Modality::IMAGE, "wide.png") };
        let media = pipeline.encode_media(&modality, &[Source::Path(fixtures().join("inputs").join(file))]).unwrap();
        let request = match name.as_ref() {
            _ if is_speech => Request::Transcribe { language: None, timestamps: false },
            name if name.contains("vqa") => Request::Question("what is it"),
            _ => Request::Caption(None),
        };
        let config = GenerationConfig { max_new_tokens: 1_000_000, max_length: None, ..pipeline.generation.clone() };
        let generated = pipeline.generate(Some(&media), request, &config, &LogitsProcessors::default(), &mut |_, _| {});
        let error = generated.map(drop).unwrap_err().to_string();
        assert!(error.contains("1000000 new tokens") && error.contains("positions"), "{name}: {error}");
        checked += 1;
    }
    assert!(checked >= 10, "{checked}");
}

#[test]
fn a_batch_ends_early_where_it_is_told_to_and_refuses_rows_alone() {
    let pipeline = Pipeline::load(&fixtures().join("git-caption"), LoadOptions::default()).unwrap();
    let image = Source::Path(fixtures().join("inputs/wide.png"));
    let media = pipeline.encode_media(&Modality::IMAGE, &[image]).unwrap();
    let long = "the ".repeat(5000);
    for num_beams in [1, 3] {
        let config = GenerationConfig {
            num_beams,
            max_new_tokens: 6,
            min_new_tokens: 6,
            max_length: None,
            min_length: 0,
            ..pipeline.generation.clone()
        };
        let rows = [None, Some("the"), Some(long.as_str())].map(|start| (Some(&media), Request::Caption(start)));
        let texts = |processors: &LogitsProcessors<'_>| pipeline.generate_text_batch(&rows, &config, processors);
        let whole = texts(&LogitsProcessors::default());
        for (row, found) in rows.iter().zip(&whole).take(2) {
            let alone = pipeline.generate_text_batch(std::slice::from_ref(row), &config, &LogitsProcessors::default());
            let (found, alone) = (found.as_ref().unwrap(), alone[0].as_ref().unwrap());
            assert_eq!((&found.text, found.num_tokens), (&alone.text, 6));
        }
        assert!(whole[2].as_ref().unwrap_err().to_string().contains("positions"), "{:?}", whole[2]);
        // Prompts that were tokenized before give the same.
        let prompts = rows.map(|(media, request)| (media, pipeline.prompt(media, request).unwrap())).to_vec();
        let lengths: Vec<_> = prompts.iter().map(|(_, prompt)| prompt.decoder_input_ids.len()).collect();
        assert!(lengths[1] <= pipeline.max_positions().unwrap() && lengths[2] > pipeline.max_positions().unwrap());
        let again = pipeline.generate_text_batch_from_prompts(prompts, &config, &LogitsProcessors::default());
        for (whole, again) in whole.iter().zip(again) {
            assert_eq!(whole.as_ref().ok(), again.as_ref().ok());
            assert_eq!(whole.as_ref().map_err(ToString::to_string).err(), again.map_err(|e| e.to_string()).err());
        }
        let steps = Cell::new(0);
        let is_third = || {
            steps.set(steps.get() + 1);
            steps.get() == 3
        };
        let stopped = texts(&LogitsProcessors { interrupt: Some(&is_third), ..LogitsProcessors::default() });
        assert_eq!(stopped[0].as_ref().unwrap().num_tokens, 3, "{num_beams} beams");
        assert_eq!(steps.get(), 3);
    }
}
