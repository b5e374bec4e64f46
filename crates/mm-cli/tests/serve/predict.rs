//! Runs of `mm fit` over HTTP: the predictions of `mm predict`, and no file of the server; classes of texts by
//! checkpoints.

use crate::{
    Server, assert_close, common,
    common::{fixture, mm},
    data_uri, model,
};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use std::path::Path;

/// A table of images, texts and numbers that agree on the label.
fn table(folder: &Path) {
    let mut lines = "photo,review,price,mood\n".to_owned();
    for row in 0..60u8 {
        let is_glad = row % 2 == 0;
        let color = if is_glad { Rgb([220, 200, row]) } else { Rgb([20, row, 60]) };
        RgbImage::from_pixel(24, 24, color).save(folder.join(format!("{row}.png"))).unwrap();
        let (word, mood) = if is_glad { ("superb", "glad") } else { ("awful", "sad") };
        lines +=
            &format!("{row}.png,\"a {word} day {row}\",{},{mood}\n", if is_glad { 90 + row } else { 10 + row / 9 });
    }
    std::fs::write(folder.join("train.csv"), lines).unwrap();
}

#[test]
fn rows_are_predicted_as_the_program_does_without_files_of_the_server() {
    let workspace = tempfile::tempdir().unwrap();
    let folder = workspace.path();
    table(folder);
    let cache = folder.join("cache").display().to_string();
    let fit = ["fit", "--data", "train.csv", "--label-column", "mood", "--preset", "fast", "--out", "run"];
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(fit)
        .current_dir(folder)
        .envs([("XDG_CACHE_HOME", &cache), ("HF_HUB_CACHE", &cache)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", common::text(&output));
    let rows = "{\"photo\":\"4.png\",\"review\":\"a superb day\",\"price\":95}\n{\"photo\":null,\"review\":\"awful\",\"price\":null}\n";
    std::fs::write(folder.join("new.jsonl"), rows).unwrap();
    let output = mm(&["predict", "--model", "run", "--data", "new.jsonl", "--json", "--device", "cpu"], folder);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(expected.len(), 2, "{}", common::text(&output));

    let server = Server::start(&["--model", "mood=run"], folder, &[]);
    assert_eq!(server.get("/v1/models").json()["data"][0]["capabilities"], json!(["predict"]));
    let photo = data_uri(&folder.join("4.png"), "image/png");
    let row = json!({"photo": photo, "review": "a superb day", "price": 95});
    let empty = json!({"photo": null, "review": "awful", "price": "NA"});
    let answer = server.post("/predict/mood", &json!({"rows": [row, empty]})).json();
    for (found, expected) in answer["data"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!((&found["prediction"], &found["present"]), (&expected["prediction"], &expected["present"]));
        for (class, probability) in expected["probabilities"].as_object().unwrap() {
            let difference = found["probabilities"][class].as_f64().unwrap() - probability.as_f64().unwrap();
            assert!(difference.abs() < 1e-6, "{found} {expected}");
        }
    }
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert_eq!(answer["data"][0]["prediction"], "glad");

    // A path is no image, whatever it names.
    let path = folder.join("4.png");
    for photo in [path.to_str().unwrap(), "4.png", "../run/report.html", &format!("file://{}", path.display())] {
        let answer = server.post("/predict/mood", &json!({"rows": [{"photo": photo, "review": "a", "price": 1}]}));
        answer.refused(400, "rows: image");
    }
    // What is no image is said, and the row is predicted from the rest.
    let broken = json!({"rows": [{"photo": "data:image/png;base64,aGk=", "review": "superb", "price": 99}]});
    let answer = server.post("/predict/mood", &broken).json();
    assert_eq!((&answer["failed"][0]["modality"], &answer["data"][0]["prediction"]), (&json!("image"), &json!("glad")));
    let without = server.post("/predict/mood", &json!({"rows": [{"review": "a", "price": 1}]}));
    without.refused(400, "`photo` (image)");
    let rows = json!({"rows": [{"review": "superb", "price": 99}], "exclude_modalities": ["image"]});
    assert_eq!(server.post("/predict/mood", &rows).json()["data"][0]["prediction"], "glad");
    server.post("/predict/moods", &rows).refused(404, "did you mean `mood`");
    server.post("/predict/mood", &json!({"rows": []})).refused(400, "no inputs");

    // Texts in the form of text-embeddings-inference.
    let one = server.post("/predict", &json!({"inputs": "an awful day"})).json();
    assert_eq!((one.as_array().unwrap().len(), &one[0]["label"]), (2, &json!("sad")), "{one}");
    let several = server.post("/predict", &json!({"inputs": [["superb"], ["awful"]]})).json();
    assert_eq!([&several[0][0]["label"], &several[1][0]["label"]], ["glad", "sad"], "{several}");
    let whole = server.post("/predict", &json!({"inputs": "superb", "truncate": false}));
    whole.refused_by_tei(422, "Validation", "truncate: found false, expected true");
}

#[test]
fn a_checkpoint_with_a_classifier_answers_for_texts_on_both_routes() {
    let workspace = tempfile::tempdir().unwrap();
    let folder = workspace.path();
    let models = [
        ("words", "families/bert-gelu"),
        ("score", "families/xlm-roberta-reranker"),
        ("mood", "families/distilbert-classifier"),
        ("tags", "families/bert-classifier-multi-label"),
    ]
    .map(|(name, path)| model(name, "mm-repr", path));
    let options: Vec<&str> = models.iter().flat_map(|model| ["--model", model]).collect();
    let server = Server::start(&options, folder, &[]);
    let listed = server.get("/v1/models").json();
    let can = |index: usize| listed["data"][index]["capabilities"].clone();
    assert_eq!([can(0), can(1), can(2)], [json!(["embed"]), json!(["rerank"]), json!(["embed", "classify"])]);

    let path = fixture("mm-repr", "families/distilbert-classifier").display().to_string();
    let arguments = ["classify", "--model", &path, "--text", "a dog", "--text", "the quick fox", "--json"];
    let output = mm(&[&arguments[..], &["--device", "cpu"]].concat(), folder);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(expected.len(), 2, "{}", common::text(&output));

    // Without a name, the first that classifies texts; as `mm classify`.
    let answer = server.post("/classify", &json!({"text": ["a dog", "the quick fox"]})).json();
    assert_eq!(answer["model"], "mood");
    let several = server.post("/predict", &json!({"inputs": [["a dog"], ["the quick fox"]]})).json();
    let raw = server.post("/predict", &json!({"inputs": "a dog", "raw_scores": true})).json();
    assert_eq!(several.as_array().unwrap().len(), 2, "{several}");
    for (index, line) in expected.iter().enumerate() {
        for (rank, class) in line["results"].as_array().unwrap().iter().enumerate() {
            let (classified, predicted) = (&answer["data"][index]["results"][rank], &several[index][rank]);
            assert_eq!((&classified["label"], &predicted["label"]), (&class["label"], &class["label"]));
            assert_close(&[classified["score"].as_f64().unwrap()], &[class["score"].as_f64().unwrap()]);
            assert_close(&[predicted["score"].as_f64().unwrap()], &[class["score"].as_f64().unwrap()]);
            assert!(
                index > 0 || (raw[rank]["score"].as_f64().unwrap() - class["logit"].as_f64().unwrap()).abs() < 1e-5
            );
        }
    }
    let tags = server.post("/predict", &json!({"inputs": "a dog", "model": "tags"})).json();
    assert_eq!(tags.as_array().unwrap().len(), 5, "{tags}");
    let one = server.post("/classify", &json!({"text": "a dog", "model": "tags", "k": 2})).json();
    assert_eq!(one["data"][0]["results"][1]["label"], tags[1]["label"], "{one}");

    server.post("/predict", &json!({"inputs": "a", "model": "score"})).refused_by_tei(
        422,
        "Validation",
        "which reranks",
    );
    server.post("/predict", &json!({"inputs": "a", "model": "moo"})).refused_by_tei(404, "Validation", "`mood`");
    server.post("/classify", &json!({"text": "a", "candidates": ["dog"]})).refused(400, "labels for texts");
    server.post("/classify", &json!({"text": "a", "image": "b"})).refused(400, "several modalities");
    server.post("/classify", &json!({"text": " "})).refused(400, "an empty text");
    server.post("/classify", &json!({"text": "a", "k": 0})).refused(400, "k: found 0, expected at least 1");
    server.post("/classify", &json!({"text": "a", "templates": ["the {}"]})).refused(400, "templates: found 1 without");
    server.post("/classify", &json!({"text": "a", "candidate": ["b"]})).refused(400, "unknown field `candidate`");
}

#[test]
fn texts_to_be_classified_are_read_as_text_embeddings_inference_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let mood = model("mood", "mm-repr", "families/distilbert-classifier");
    let server = Server::start(&["--model", &mood], folder.path(), &[]);
    let post = |body: Value| server.post("/predict", &body);
    // A list of one text is that text; lists in a list are several.
    let one = post(json!({"inputs": "a dog"})).json();
    assert_eq!(one, post(json!({"inputs": ["a dog"]})).json());
    assert_eq!(json!([one]), post(json!({"inputs": [["a dog"]]})).json());
    let long = "a dog ".repeat(100);
    assert_eq!(post(json!({"inputs": [["a"], [long]]})).json().as_array().unwrap().len(), 2);
    let several = "[[\"a\"], [\"b\"]]";
    for (body, status, wanted) in [
        (json!({"inputs": ["a", "b"]}), 422, "inputs: found a pair of texts"),
        (json!({"inputs": ["a", "b"]}), 422, several),
        (json!({"inputs": [["a"], ["a", "b"]]}), 422, "inputs[1]: found a pair of texts"),
        (json!({"inputs": ["a", "b", "c"]}), 422, "inputs: found 3 texts in one list"),
        (json!({"inputs": []}), 422, "inputs: found no text"),
        (json!({"inputs": ["a", ["b"]]}), 422, several),
        (json!({"inputs": [["a"], [long]], "truncate": false}), 413, "inputs[1]: found a longer text"),
        (json!({"inputs": "a", "truncation_direction": "left"}), 422, "truncation_direction: found left"),
        (json!({"inputs": "a", "prompt_name": "query"}), 422, "prompt_name: found \"query\""),
    ] {
        post(body).refused_by_tei(status, "Validation", wanted);
    }
}
