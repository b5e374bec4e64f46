//! Constraints on generated text: regular expressions, JSON schemas and stop strings.

use super::{fixture, lines};
use crate::common::refused;
use serde_json::Value;

#[test]
fn text_matches_a_regular_expression() {
    let folder = std::env::temp_dir();
    let image = fixture("inputs/wide.png");
    // A byte-level tokenizer within a prompt, and a WordPiece tokenizer.
    for model in ["llava-clip-llama", "blip-vqa"] {
        let model = fixture(model);
        let answer =
            ["answer", "--model", &model, "--image", &image, "--question", "fox", "--json", "--max-new-tokens", "12"];
        for beams in ["1", "3"] {
            let regex = ["--regex", "(fox|dog)s?|lazy dog", "--num-beams", beams, "--k", "1"];
            let found = lines(&[&answer, regex.as_slice()].concat(), &folder).remove(0);
            let text = found["answer"].as_str().unwrap();
            assert!(["fox", "foxs", "dog", "dogs", "lazy dog"].contains(&text.trim()), "{found}");
        }
    }
}

#[test]
fn text_matches_a_json_schema_and_invalid_constraints_are_refused() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let (image, model) = (fixture("inputs/wide.png"), fixture("llava-clip-llama"));
    let answer =
        ["answer", "--model", &model, "--image", &image, "--question", "fox", "--json", "--max-new-tokens", "40"];
    let schema = r#"{"type": "object", "properties": {"animal": {"enum": ["dog", "fox"]}, "count": {"type": "integer", "minimum": 2, "maximum": 9}},
        "required": ["animal", "count"], "additionalProperties": false}"#;
    std::fs::write(folder.join("schema.json"), schema).unwrap();
    let found = lines(&[&answer, ["--json-schema", "schema.json"].as_slice()].concat(), folder).remove(0);
    let object: Value = serde_json::from_str(found["answer"].as_str().unwrap()).unwrap();
    assert!(object["animal"] == "dog" || object["animal"] == "fox", "{object}");
    assert!((2..=9).contains(&object["count"].as_i64().unwrap()));
    refused(&[&answer, ["--regex", "(fox"].as_slice()].concat(), folder, &["--regex"]);
    std::fs::write(folder.join("schema.json"), r#"{"type": "thing"}"#).unwrap();
    refused(&[&answer, ["--json-schema", "schema.json"].as_slice()].concat(), folder, &["--json-schema"]);
    refused(&[&answer, ["--json-schema", "none.json"].as_slice()].concat(), folder, &["none.json cannot be read"]);
    let vilt = fixture("vilt-vqa");
    let classifier = ["answer", "--model", &vilt, "--image", &image, "--question", "fox", "--regex", "a"];
    refused(&classifier, folder, &["chooses among the answers"]);
}

#[test]
fn text_ends_before_a_stop_string() {
    let folder = std::env::temp_dir();
    let (image, model) = (fixture("inputs/wide.png"), fixture("vision-encoder-decoder-trocr"));
    let caption = ["caption", "--model", &model, "--image", &image, "--json", "--max-new-tokens", "9"];
    let whole = lines(&caption, &folder).remove(0);
    let text = whole["text"].as_str().unwrap();
    let (position, letter) = text.char_indices().skip(1).find(|(_, c)| c.is_alphanumeric()).expect("a letter");
    let stop = letter.to_string();
    let stopped = lines(&[&caption, ["--stop", &stop].as_slice()].concat(), &folder).remove(0);
    assert_eq!(stopped["text"].as_str().unwrap(), &text[..text.find(letter).unwrap_or(position)]);
    assert!(stopped["tokens"].as_u64() <= whole["tokens"].as_u64());
}
