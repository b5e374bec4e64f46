//! Rerankers: pairs that are truncated, batches, and what is refused. Tokens and scores are compared with those of
//! transformers and sentence-transformers in `references.rs`.

mod common;

use common::{checkpoint_only, fixtures};
use mm_core::{Modality, Source};
use mm_repr::Pretrained;
use serde_json::{Value, json};
use std::path::Path;

fn load(name: &str) -> Pretrained {
    Pretrained::load(&fixtures("families").join(name)).unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = std::fs::read_to_string(file).map_or(json!({}), |text| serde_json::from_str(&text).unwrap());
    change(&mut value);
    std::fs::write(file, value.to_string()).unwrap();
}

/// A copy of a fixture of which one JSON file is changed.
fn changed(name: &str, file: &str, change: impl FnOnce(&mut Value)) -> mm_repr::Result<Pretrained> {
    let folder = checkpoint_only(&fixtures("families").join(name));
    edit(&folder.path().join(file), change);
    Pretrained::load(folder.path())
}

fn refused(model: mm_repr::Result<Pretrained>, wanted: &str) {
    let error = model.err().expect(wanted).to_string();
    assert!(error.contains(wanted), "{error}");
}

#[test]
fn a_pair_has_the_same_score_alone_and_in_a_padded_batch() {
    for name in ["bert-reranker", "xlm-roberta-reranker"] {
        let model = load(name);
        assert!(model.is_reranker() && !model.has_classifier(&Modality::TEXT), "{name}");
        let texts = texts(&["a dog", "the lazy dog jumps over the quick brown fox", "naive cafe, twice!", "fox"]);
        let together = model.relevance("the quick dog", &texts).unwrap();
        for (text, together) in texts.iter().zip(&together) {
            let alone = model.relevance("the quick dog", std::slice::from_ref(text)).unwrap()[0];
            assert!((alone.logit - together.logit).abs() < 1e-4, "{name} {text}: {alone:?} {together:?}");
            assert!((together.score() - 1.0 / (1.0 + f64::from(-together.logit).exp())).abs() < 1e-9, "{name}");
        }
        let swapped = model.relevance(&texts[1], &["the quick dog".to_owned()]).unwrap()[0];
        assert!((swapped.logit - together[1].logit).abs() > 1e-3, "{name}: the order of a pair has no effect");
        assert!(model.relevance("a dog", &[]).unwrap().is_empty());
    }
}

#[test]
fn long_pairs_are_cut_to_the_models_length_and_say_so() {
    for (name, max_length) in [("bert-reranker", 20), ("xlm-roberta-reranker", 27)] {
        let model = load(name);
        let long = "dog and fox ".repeat(20_000);
        let pairs = model.tokenize_pairs("a dog", &[long.clone(), "a fox".to_owned()]).unwrap();
        assert_eq!((pairs[0].ids.len(), pairs[0].is_truncated), (max_length, true), "{name}");
        assert!(pairs[1].ids.len() < max_length && !pairs[1].is_truncated, "{name}");
        // Both are long: parts that are cut off are not combined with each other.
        let both = &model.tokenize_pairs(&long, std::slice::from_ref(&long)).unwrap()[0];
        assert_eq!(
            (both.ids.len(), both.token_types.len(), both.is_truncated),
            (max_length, max_length, true),
            "{name}"
        );
        assert!(model.relevance(&long, std::slice::from_ref(&long)).unwrap()[0].logit.is_finite(), "{name}");
    }
}

#[test]
fn token_types_are_those_of_the_tokenizer_unless_its_config_leaves_them_out() {
    let types = |model: Pretrained| model.tokenize_pairs("a dog", &texts(&["a fox"])).unwrap().remove(0).token_types;
    assert_eq!(types(load("bert-reranker")), [0, 0, 0, 0, 1, 1, 1]);
    let without = changed("bert-reranker", "tokenizer_config.json", |config| {
        config["model_input_names"] = json!(["input_ids", "attention_mask"]);
    });
    assert_eq!(types(without.unwrap()), [0; 7]);
}

#[test]
fn what_a_reranker_cannot_be_is_refused_by_name() {
    let prompts = |config: &mut Value| *config = json!({"prompts": {"q": "query: "}, "default_prompt_name": "q"});
    refused(
        changed("bert-reranker", "config_sentence_transformers.json", prompts),
        "config_sentence_transformers.json: default_prompt_name: found a prompt",
    );
    let short = |config: &mut Value| config["model_max_length"] = json!(4);
    refused(
        changed("bert-reranker", "tokenizer_config.json", short),
        "maximum length: found 4 tokens, expected more than",
    );
    // A second type, for which XLM-RoBERTa has no vector.
    let second_type = |tokenizer: &mut Value| {
        let pieces = tokenizer["post_processor"]["pair"].as_array_mut().unwrap();
        let second = pieces.iter_mut().find(|piece| piece["Sequence"]["id"] == "B").unwrap();
        second["Sequence"]["type_id"] = json!(1);
    };
    refused(changed("xlm-roberta-reranker", "tokenizer.json", second_type), "type_vocab_size: found 1");
}

#[test]
fn other_checkpoints_are_no_rerankers() {
    let regression = changed("bert-reranker", "config.json", |config| config["problem_type"] = json!("regression"));
    let token = |config: &mut Value| config["architectures"] = json!(["BertForTokenClassification"]);
    for (model, architecture) in [
        (regression.unwrap(), "BertForSequenceClassification"),
        (changed("bert-reranker", "config.json", token).unwrap(), "BertForTokenClassification"),
        (load("distilbert-classifier"), "DistilBertForSequenceClassification"),
        (load("bert-gelu"), "BertModel"),
    ] {
        assert!(!model.is_reranker(), "{architecture}");
        let error = model.relevance("a dog", &texts(&["a fox"])).unwrap_err().to_string();
        assert!(error.contains(&format!("architectures: found {architecture}, expected a reranker")), "{error}");
        assert!(model.encode(&[Source::Text("a dog".into())]).is_ok());
    }
    assert!(!load("convnext-v1").is_reranker());
}
