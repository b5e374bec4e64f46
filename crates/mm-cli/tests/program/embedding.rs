//! Pretrained checkpoints: inspect, embed, classify, similarity.

use crate::{
    common::{Workspace, fixture, mm, refused},
    json, json_lines, ok,
};
use mm_core::Checkpoint;
use std::path::Path;

#[test]
fn checkpoint_folders_are_inspected_embedded_and_classified() {
    let workspace = Workspace::new();
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm-repr/tests/fixtures/families");
    for name in ["clip-eos-gelu", "convnext-v1"] {
        std::fs::create_dir(workspace.path().join(name)).unwrap();
        for file in
            ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
        {
            let from = families.join(name).join(file);
            if from.exists() {
                std::fs::copy(from, workspace.path().join(name).join(file)).unwrap();
            }
        }
    }
    let lines = |arguments: &[&str]| json_lines(&mm(arguments, workspace.path()));
    let about = &lines(&["inspect", "clip-eos-gelu", "--json"])[0];
    assert_eq!((about["family"].as_str(), about["dual_encoder"].as_bool()), (Some("clip"), Some(true)));
    // In the order of the command line, of unit length.
    let vectors =
        lines(&["embed", "--model", "clip-eos-gelu", "--text", "fox", "--image", "1.png", "--text", "a dog", "--json"]);
    assert_eq!(vectors.iter().map(|v| v["input"].as_str().unwrap()).collect::<Vec<_>>(), ["fox", "1.png", "a dog"]);
    for vector in &vectors {
        let sum: f64 = vector["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap().powi(2)).sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
    // Scores are a softmax of the logits, best first.
    let classes =
        &lines(&["classify", "--model", "convnext-v1", "--image", "1.png", "--k", "all", "--json"])[0]["results"];
    let of = |key: &str| classes.as_array().unwrap().iter().map(|c| c[key].as_f64().unwrap()).collect::<Vec<_>>();
    let (scores, logits) = (of("score"), of("logit"));
    assert_eq!(scores.len(), 5);
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-5 && logits.is_sorted_by(|a, b| a >= b));
    assert!((logits[0] - logits[1] - (scores[0] / scores[1]).ln()).abs() < 1e-4);
    let zero = &lines(&[
        "classify",
        "--model",
        "clip-eos-gelu",
        "--image",
        "1.png",
        "--candidates",
        "fox,dog",
        "--json",
    ])[0]["results"];
    assert_eq!(zero.as_array().unwrap().len(), 2);
    refused(&["classify", "--model", "clip-eos-gelu", "--image", "1.png"], workspace.path(), &["no classifier"]);
    refused(&["embed", "--model", "convnext-v1", "--text", "a"], workspace.path(), &["takes image, not text"]);
}

#[test]
fn checkpoints_are_inspected_with_their_classes_and_as_rerankers() {
    let workspace = Workspace::new();
    let model = |name: &str| fixture("mm-repr", &format!("families/{name}")).display().to_string();
    let about = |name: &str| json_lines(&mm(&["inspect", &model(name), "--json"], workspace.path())).remove(0);
    let classifier = about("distilbert-classifier");
    assert_eq!(
        (&classifier["classes"], &classifier["reranker"]),
        (&serde_json::json!(["thing 0", "thing 1"]), &false.into())
    );
    let reranker = about("bert-reranker");
    assert_eq!((&reranker["classes"], &reranker["reranker"]), (&serde_json::Value::Null, &true.into()));
    let text = |name: &str| ok(&mm(&["inspect", &model(name)], workspace.path()));
    assert!(
        text("bert-classifier-multi-label")
            .contains("\n  classes     5: thing 0, thing 1, thing 2, thing 3, thing 4\n")
    );
    let (plain, reranker) = (text("bert-gelu"), text("xlm-roberta-reranker"));
    assert!(reranker.contains("\n  reranker    ") && !reranker.contains("classes"), "{reranker}");
    assert!(!plain.contains("reranker") && !plain.contains("classes"), "{plain}");
}

#[test]
fn texts_are_classified_by_checkpoints_with_a_classifier() {
    let workspace = Workspace::new();
    let model = |name: &str| fixture("mm-repr", &format!("families/{name}")).display().to_string();
    let (pairs, several) = (model("distilbert-classifier"), model("bert-classifier-multi-label"));
    let texts = ["--text", "a dog", "--text", "the quick fox", "--json"];
    let found = json_lines(&mm(&[&["classify", "--model", &pairs][..], &texts].concat(), workspace.path()));
    assert_eq!(found.iter().map(|v| v["input"].as_str().unwrap()).collect::<Vec<_>>(), ["a dog", "the quick fox"]);
    for line in &found {
        let results = line["results"].as_array().unwrap();
        let score = |index: usize| results[index]["score"].as_f64().unwrap();
        assert_eq!((&line["modality"], results.len()), (&"text".into(), 2), "{line}");
        assert!((score(0) + score(1) - 1.0).abs() < 1e-6 && score(0) >= score(1), "{line}");
        assert!(results[0]["label"].as_str().unwrap().starts_with("thing "), "{line}");
    }
    let text = ok(&mm(&["classify", "--model", &several, "--text", "a dog", "--k", "3"], workspace.path()));
    assert_eq!(text.lines().next(), Some("a dog:"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" %  thing ")).count(), 3, "{text}");
    for (arguments, wanted) in [
        (["--model", &model("xlm-roberta-reranker"), "--text", "a dog"].as_slice(), "id2label: found 1 class"),
        (&["--model", "words", "--text", "a dog"], "no classifier"),
        (&["--model", &pairs, "--image", "1.png"], "takes text, not image"),
        (&["--model", &pairs, "--text", "a dog", "--candidates", "dog,fox"], "--candidates"),
        (&["--model", &pairs], "--text"),
    ] {
        refused(&[&["classify"], arguments].concat(), workspace.path(), &[wanted]);
    }
}

#[test]
fn texts_are_ranked_by_their_relevance_to_a_query() {
    let workspace = Workspace::new();
    let model = |name: &str| fixture("mm-repr", &format!("families/{name}")).display().to_string();
    let reranker = model("bert-reranker");
    let texts = ["lazy cafe", "the quick brown fox", "naive dogs"];
    let mut arguments = vec!["rerank", "--model", &reranker, "--query", "a dog"];
    arguments.extend(texts.iter().flat_map(|text| ["--text", text]));
    let found = json(&mm(&[&arguments[..], &["--json"]].concat(), workspace.path()));
    let results = found["results"].as_array().unwrap();
    assert_eq!((&found["query"], results.len()), (&"a dog".into(), 3), "{found}");
    let number = |result: &serde_json::Value, key: &str| result[key].as_f64().unwrap();
    assert!(results.is_sorted_by(|a, b| number(a, "logit") >= number(b, "logit")), "{found}");
    for (rank, result) in results.iter().enumerate() {
        assert_eq!(result["rank"], rank + 1, "{found}");
        assert_eq!(result["text"], texts[result["index"].as_u64().unwrap() as usize], "{found}");
        let expected = 1.0 / (1.0 + (-number(result, "logit")).exp());
        assert!((number(result, "score") - expected).abs() < 1e-6, "{found}");
    }
    let text = ok(&mm(&[&arguments[..], &["--k", "1"]].concat(), workspace.path()));
    assert_eq!(
        (text.lines().count(), text.trim_end().ends_with(results[0]["text"].as_str().unwrap())),
        (1, true),
        "{text}"
    );
    let long = "dog ".repeat(100);
    let output =
        mm(&["rerank", "--model", &reranker, "--query", "a", "--text", &long, "--text", "b"], workspace.path());
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && warning.contains("1 of 2 texts were truncated"), "{warning}");
    assert!(warning.contains("at most 20 tokens"), "{warning}");
    for (name, wanted) in [
        ("distilbert-classifier", "found DistilBertForSequenceClassification, expected a reranker"),
        ("convnext-v1", "takes image, not text"),
    ] {
        let arguments = ["rerank", "--model", &model(name), "--query", "a", "--text", "b"];
        refused(&arguments, workspace.path(), &[wanted]);
    }
}

#[test]
fn embedding_a_data_set_resumes_with_its_failed_rows() {
    let workspace = Workspace::new();
    let line = |output: std::process::Output| json(&output);
    let rows = [
        r#"{"id": "a", "image": "1.png", "text": "a dog"}"#,
        r#"{"id": "b", "image": "gone.png", "text": "the fox"}"#,
        r#"{"id": "c", "image": "2.png", "text": ["lazy", "over the dog"]}"#,
    ];
    std::fs::write(workspace.path().join("m.jsonl"), rows.join("\n")).unwrap();
    let embed = |more: &[&str]| {
        mm(&[&["embed", "--model", "eyes", "--data", "m.jsonl", "--json", "--out"], more].concat(), workspace.path())
    };
    let first = line(embed(&["v.npy"]));
    assert_eq!(
        (&first["vectors"], &first["failed"]["count"], &first["resumed"]),
        (&2.into(), &1.into(), &0.into()),
        "{first}"
    );
    let index = || std::fs::read_to_string(workspace.path().join("v.rows.jsonl")).unwrap();
    assert!(index().lines().nth(1).unwrap().contains("gone.png: cannot be read"), "{}", index());
    refused(
        &["embed", "--model", "eyes", "--data", "m.jsonl", "--out", "v.npy", "--normalize"],
        workspace.path(),
        &["other options: normalize false, expected true"],
    );
    // With the missing file in place, only the failed row is embedded again.
    std::fs::copy(workspace.path().join("1.png"), workspace.path().join("gone.png")).unwrap();
    let second = line(embed(&["v.npy"]));
    assert_eq!(
        (&second["vectors"], &second["failed"]["count"], &second["resumed"]),
        (&3.into(), &0.into(), &2.into()),
        "{second}"
    );
    assert!(!workspace.path().join("v.npy.part").exists() && !index().contains("error"));
    let bytes = std::fs::read(workspace.path().join("v.npy")).unwrap();
    let dim = second["dim"].as_u64().unwrap() as usize;
    assert!(bytes.starts_with(b"\x93NUMPY") && bytes.len() == 128 + 3 * dim * 4);
    // The same image gives the same vector.
    assert_eq!(bytes[128..128 + dim * 4], bytes[128 + dim * 4..128 + 2 * dim * 4]);
    let tensors = line(embed(&["v.safetensors"]));
    assert_eq!(tensors["vectors"], 3);
    let stored = Checkpoint::open(workspace.path().join("v.safetensors")).unwrap();
    assert_eq!(stored.get("image").unwrap().to_bytes().unwrap(), bytes[128..]);
    let texts =
        mm(&["embed", "--model", "words", "--data", "m.jsonl", "--out", "t.parquet", "--json"], workspace.path());
    assert_eq!(line(texts)["vectors"], 4);
    refused(
        &["embed", "--model", "eyes", "--data", "m.jsonl", "--out", "v.csv"],
        workspace.path(),
        &[".npy, .parquet"],
    );
    refused(
        &["embed", "--model", "words", "--data", "m.jsonl", "--modality", "image", "--out", "x.npy"],
        workspace.path(),
        &["the model takes text"],
    );
    std::fs::remove_file(workspace.path().join("gone.png")).unwrap();
    refused(
        &["embed", "--model", "eyes", "--data", "m.jsonl", "--out", "f.npy", "--on-error", "fail"],
        workspace.path(),
        &["gone.png"],
    );

    let pair =
        line(mm(&["similarity", "--model", "words", "--text", "a dog", "--text", "a dog", "--json"], workspace.path()));
    assert!((pair["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    let three = mm(
        &["similarity", "--model", "words", "--text", "a dog", "--text", "fox", "--text", "lazy", "--json"],
        workspace.path(),
    );
    assert_eq!(ok(&three).lines().count(), 3);
    refused(&["similarity", "--model", "words", "--text", "a"], workspace.path(), &["at least two"]);
}

#[test]
fn rows_without_a_value_keep_their_index() {
    let workspace = Workspace::new();
    let rows = [
        r#"{"id": "a", "image": "1.png", "text": "a dog"}"#,
        r#"{"id": "b", "image": null, "text": "the fox"}"#,
        r#"{"id": "c", "image": "2.png", "text": ""}"#,
        r#"{"id": "d", "image": "3.png", "text": "lazy"}"#,
    ];
    workspace.write("m.jsonl", rows.join("\n"));
    let embed = |model: &str, modality: &str, out: &str| {
        let command = ["embed", "--model", model, "--data", "m.jsonl", "--modality", modality, "--json", "--out", out];
        json(&mm(&command, workspace.path()))
    };
    for (model, modality, out, missing_row, id) in
        [("eyes", "image", "i.npy", 1, "b"), ("words", "text", "t.npy", 2, "c")]
    {
        let found = embed(model, modality, out);
        assert_eq!(
            (&found["vectors"], &found["failed"]["count"], &found["missing"]["count"]),
            (&3.into(), &0.into(), &1.into())
        );
        assert_eq!(found["missing"]["examples"][0]["row"], id, "{found}");
        let array = mm_data::read_npy(&workspace.path().join(out)).unwrap();
        let dim = array.size(1).unwrap() as usize;
        let values = array.to_vec::<f32>().unwrap();
        let is_missing = |row: &[f32]| row.iter().all(|v| v.is_nan());
        let missing: Vec<bool> = values.chunks(dim).map(is_missing).collect();
        assert_eq!(missing, (0..4).map(|row| row == missing_row).collect::<Vec<_>>(), "{out}");
        let index = std::fs::read_to_string(workspace.path().join(out).with_extension("rows.jsonl")).unwrap();
        assert!(index.lines().nth(missing_row).unwrap().contains(&format!("the row has no {modality}")), "{index}");
        assert!(!workspace.path().join(format!("{out}.part")).exists());
    }
    assert_eq!(embed("eyes", "image", "i.parquet")["missing"]["count"], 1);
    let options = mm_data::TableOptions::default();
    let table = mm_data::Table::read(&workspace.path().join("i.parquet"), &options).unwrap().rows;
    let ids: Vec<&str> = table.iter().map(|cells| cells.get("id").unwrap()).collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    assert_eq!(table[1].get("error"), Some("the row has no image"));
    // Arrays of other rows are refused.
    workspace.write("m.jsonl", rows[1..].join("\n"));
    embed("words", "text", "shorter.npy");
    refused(
        &["diagnose", "--a", "i.npy", "--b", "shorter.npy"],
        workspace.path(),
        &["row 1 is id `a` in i.rows.jsonl (4 rows) and id `b` in shorter.rows.jsonl (3 rows)"],
    );
}
