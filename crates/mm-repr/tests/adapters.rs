//! Adapters of PEFT and tokenizers from bare vocabularies, compared with PEFT and transformers.
//! `xtask/parity/adapter_fixtures.py` writes the fixtures.

mod common;

use common::fixtures;
use mm_core::{Checkpoint, Modality, ProcessContext, Source, Tensor};
use mm_repr::{LoadOptions, Pretrained, merge_adapter, text::TextProcessor};
use std::path::Path;

fn max_difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    found.sub(expected).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap()
}

/// The adapter folder, and PEFT's outputs.
fn adapter(name: &str) -> (std::path::PathBuf, Checkpoint) {
    let folder = fixtures("adapters").join(name);
    let answers = Checkpoint::open(folder.join("answers.safetensors")).unwrap();
    (folder, answers)
}

fn texts(file: &Path) -> Vec<Source> {
    let texts: Vec<String> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    texts.into_iter().map(Source::Text).collect()
}

#[test]
fn adapters_whose_initialization_changed_the_base_weights_match_peft() {
    let texts = texts(&fixtures("families/inputs/texts.json"));
    for name in ["bert-pissa", "bert-olora"] {
        let (folder, answers) = adapter(name);
        let found = Pretrained::load(&folder).unwrap().encode(&texts).unwrap();
        let difference = max_difference(&found, &answers.get("text").unwrap());
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[test]
fn an_adapters_own_tokenizer_and_added_rows_are_used_and_merged() {
    let (folder, answers) = adapter("bert-added-rows");
    let texts = texts(&folder.join("answers.json"));
    let found = Pretrained::load(&folder).unwrap().encode(&texts).unwrap();
    assert!(max_difference(&found, &answers.get("text").unwrap()) < 1e-4);
    let out = tempfile::tempdir().unwrap();
    let merged = out.path().join("merged");
    merge_adapter(&folder, &merged).unwrap();
    let found = Pretrained::load(&merged).unwrap().encode(&texts).unwrap();
    assert!(max_difference(&found, &answers.get("text").unwrap()) < 1e-4);
}

#[test]
fn an_adapter_with_the_names_of_transformers_5_is_applied_to_a_vit() {
    let (folder, answers) = adapter("vit-version-5");
    let images = ["wide.png", "tall.jpg"].map(|name| Source::Path(fixtures("families/inputs").join(name)));
    let model = Pretrained::load_with(&folder, LoadOptions::default()).unwrap();
    let vectors = model.embed(&Modality::IMAGE, &images, None).unwrap();
    assert!(max_difference(&vectors, &answers.get("image").unwrap()) < 2e-4);
    let logits = model.logits(&Modality::IMAGE, &images).unwrap();
    assert!(max_difference(&logits, &answers.get("image_logits").unwrap()) < 1e-3);
}

#[test]
fn bare_vocabularies_with_special_and_added_tokens_give_the_ids_of_transformers() {
    let cases: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(fixtures("tokens.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in case["files"].as_object().unwrap() {
            std::fs::write(folder.path().join(name), text.as_str().unwrap()).unwrap();
        }
        let processor = TextProcessor::from_folder(folder.path(), 64).unwrap();
        for (text, ids) in case["texts"].as_array().unwrap().iter().zip(case["ids"].as_array().unwrap()) {
            let expected: Vec<i64> = ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
            let found = processor.encode(text.as_str().unwrap()).unwrap();
            assert_eq!(found, expected, "{} {text}", case["name"]);
        }
    }
}

#[test]
fn added_tokens_whose_ids_do_not_follow_the_vocabulary_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n");
    write("added_tokens.json", r#"{"<extra>": 9}"#);
    let error = TextProcessor::from_folder(folder.path(), 8).map(drop).unwrap_err().to_string();
    assert!(error.contains("`<extra>`: found id 6") && error.contains("expected 9"), "{error}");
}

#[test]
fn texts_are_tokenized_as_they_are_written_unless_the_checkpoint_normalizes_them() {
    // RoBERTa's byte-level tokenizer has no normalizer: a decomposed letter has other bytes.
    let model = Pretrained::load(&fixtures("families/roberta-bare-merges")).map_or_else(
        |_| {
            let folder = common::checkpoint_only(&fixtures("families/roberta-bare-merges"));
            Pretrained::load(folder.path()).ok()
        },
        Some,
    );
    let processor = model.unwrap().tower(&Modality::TEXT).unwrap().processor.clone();
    let ids = |text: &str| {
        processor.process(&Source::Text(text.into()), &mut ProcessContext::eval()).unwrap().to_vec::<i64>().unwrap()
    };
    assert_ne!(ids("caf\u{e9}"), ids("cafe\u{301}"));
    // From a file as from a text.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    std::fs::write(&file, "cafe\u{301}").unwrap();
    let from_file = processor.process(&Source::Path(file), &mut ProcessContext::eval()).unwrap();
    assert_eq!(from_file.to_vec::<i64>().unwrap(), ids("cafe\u{301}"));
}
