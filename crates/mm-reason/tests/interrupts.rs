//! Work whose result is no longer wanted ends early.

use mm_core::{Modality, Source};
use mm_reason::{Pipeline, Request, generate::GenerationConfig, pretrained::Transcript};
use mm_repr::LoadOptions;
use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A transcript that is no longer wanted ends, and those of its batch are as they were.
#[test]
fn unwanted_recordings_are_not_transcribed() {
    mm_core::set_num_threads(1);
    let fixtures = fixtures();
    let model = Pipeline::load(&fixtures.join("whisper-multilingual"), LoadOptions::default()).unwrap();
    let names = ["short16.wav", "long5.wav", "tone48.wav"];
    let sources = names.map(|name| Source::Path(fixtures.join("inputs").join(name)));
    let config = GenerationConfig { num_beams: 1, max_new_tokens: 7, max_length: None, ..model.generation.clone() };
    let transcribe = |is_unwanted: &dyn Fn(usize) -> bool| -> Vec<Transcript> {
        let found = model.transcribe_batch(&sources, None, false, &config, is_unwanted);
        found.into_iter().map(Result::unwrap).collect()
    };
    let wanted = transcribe(&|_| false);
    let asked = Cell::new(0);
    let unwanted = transcribe(&|_| {
        asked.set(asked.get() + 1);
        true
    });
    assert!(unwanted.iter().all(|transcript| transcript.truncated && transcript.text.is_empty()), "{unwanted:?}");
    assert_eq!(asked.get(), 3);
    // The long one, after some tokens of its first window.
    let steps = Cell::new(0);
    let found = transcribe(&|place| {
        steps.set(steps.get() + usize::from(place == 1));
        place == 1 && steps.get() > 5
    });
    assert_eq!((&found[0], &found[2]), (&wanted[0], &wanted[2]));
    assert!(found[1].truncated && found[1].text.len() < wanted[1].text.len(), "{:?} {:?}", found[1], wanted[1]);
    assert!(steps.get() < 12, "{}", steps.get());
}

/// Answers that are no longer wanted are not ranked, and the others are.
#[test]
fn unwanted_answers_are_not_ranked() {
    mm_core::set_num_threads(1);
    let fixtures = fixtures();
    let model = Pipeline::load(&fixtures.join("blip-vqa"), LoadOptions::default()).unwrap();
    let source = Source::Path(fixtures.join("inputs/wide.png"));
    let media = model.encode_media(&Modality::IMAGE, &[source]).unwrap();
    let questions = ["the", "the quick"].map(|question| (Some(&media), Request::Question(question)));
    let choices: Vec<String> = (0..50).map(|n| format!("dog {n}")).collect();
    let asked = Cell::new(0);
    let is_unwanted = |place: usize| {
        asked.set(asked.get() + usize::from(place == 0));
        place == 0 && asked.get() > 2
    };
    let found = model.answer_batch(&questions, &choices, &model.generation, &is_unwanted);
    assert_eq!(found[0].as_ref().unwrap(), &[]);
    let (media, request) = questions[1];
    let alone = model.answer(media, request, &choices, &model.generation).unwrap();
    assert_eq!((found[1].as_ref().unwrap(), alone.len()), (&alone, 50));
    assert_eq!(asked.get(), 3);
}
