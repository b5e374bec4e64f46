//! A retrieval run from files to a report, and its auxiliary losses.

use crate::{
    common::{Workspace, mm, refused},
    json, json_lines, ok,
};

/// A second search finds the same without embedding the data again, which it does when a value has changed, or where
/// nothing can be kept.
fn the_data_of_a_run_are_embedded_once(workspace: &Workspace, expected: &[serde_json::Value]) {
    let search = |text: &str, k: &str| {
        json_lines(&mm(&["search", "--model", "run", "--text", text, "--k", k, "--json"], workspace.path()))
    };
    let made = |split: &str| {
        std::fs::metadata(workspace.path().join("run/search").join(split).join("record.json"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let first = made("test");
    assert_eq!(search("a dog", "2"), expected);
    assert_eq!(made("test"), first);
    // The image of another row takes the place of one: it is found there.
    let score = |id: &str| {
        let all = search("a dog", "all");
        let hit = all.iter().find(|hit| hit["id"] == id && hit["modality"] == "image").unwrap();
        (hit["score"].as_f64().unwrap(), hit["split"].as_str().unwrap().to_owned())
    };
    let (image, kept) = (workspace.path().join("3.png"), std::fs::read(workspace.path().join("3.png")).unwrap());
    let (before, split) = score("3");
    assert_ne!(before, score("6").0);
    std::fs::copy(workspace.path().join("6.png"), &image).unwrap();
    assert_eq!(score("3").0, score("6").0);
    assert!(made(&split) > first);
    std::fs::write(&image, kept).unwrap();
    assert!((score("3").0 - before).abs() < 1e-9);
    // A file in place of the folder: it is an error, not a search that finds nothing.
    std::fs::remove_dir_all(workspace.path().join("run/search")).unwrap();
    workspace.write("run/search", "");
    refused(&["search", "--model", "run", "--text", "a dog"], workspace.path(), &["run/search"]);
    std::fs::remove_file(workspace.path().join("run/search")).unwrap();
}

#[test]
fn train_eval_search_embed_and_report_a_retrieval_run() {
    let workspace = Workspace::new();
    let inspected = json(&mm(&["inspect", "data.jsonl", "--json"], workspace.path()));
    assert_eq!((&inspected["rows"], &inspected["modalities"]["audio"]["rows"]), (&12.into(), &11.into()));
    assert_eq!(inspected["failed"]["count"], 0);
    let trained = json(&workspace.train("run", &["--json"]));
    assert_eq!((&trained["steps"], &trained["rows"], &trained["finished"]), (&6.into(), &8.into(), &true.into()));
    for name in [
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
    ] {
        assert!(workspace.path().join("run").join(name).exists(), "{name}");
    }
    recall_grows_with_k_and_chance_is_that_of_four_candidates(&workspace);
    let hits =
        json_lines(&mm(&["search", "--model", "run", "--text", "a dog", "--k", "2", "--json"], workspace.path()));
    assert_eq!(hits.len(), 4);
    assert!(hits[0]["score"].as_f64().unwrap() >= hits[1]["score"].as_f64().unwrap());
    the_data_of_a_run_are_embedded_once(&workspace, &hits);
    // Values are embedded in the order of the command line, whatever their modality.
    let vectors = json_lines(&mm(
        &["embed", "--model", "run", "--image", "1.png", "--text", "dog", "--image", "2.png", "--json"],
        workspace.path(),
    ));
    let inputs: Vec<&str> = vectors.iter().map(|v| v["input"].as_str().unwrap()).collect();
    assert_eq!(inputs, ["1.png", "dog", "2.png"]);
    // Embedding a whole data set gives the same vectors as one value at a time.
    let whole = ["embed", "--model", "run", "--data", "data.jsonl", "--modality", "image", "--out", "v.npy", "--json"];
    let summary = json(&mm(&whole, workspace.path()));
    assert_eq!((&summary["vectors"], &summary["dim"]), (&12.into(), &16.into()));
    let bytes = std::fs::read(workspace.path().join("v.npy")).unwrap();
    let values: Vec<f32> =
        bytes[bytes.len() - 12 * 16 * 4..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    for (a, b) in vectors[0]["embedding"].as_array().unwrap().iter().zip(&values[16..32]) {
        assert!((a.as_f64().unwrap() - f64::from(*b)).abs() < 1e-5);
    }
    let vector = json(&mm(&["embed", "--model", "words", "--text", "dog", "--json"], workspace.path()));
    assert_eq!(vector["embedding"].as_array().unwrap().len(), 21);
    ok(&mm(&["report", "--model", "run", "--out", "r.html"], workspace.path()));
    let page = std::fs::read_to_string(workspace.path().join("r.html")).unwrap();
    assert!(page.contains("audio_to_image") && page.contains("data:image/jpeg;base64,") && page.contains("<svg"));
    assert!(!page.contains("http://") || !page.contains("src=\"http"), "the page must load nothing from elsewhere");
    ok(&mm(&["doctor", "--json"], workspace.path()));
    assert!(ok(&mm(&["completions", "bash"], workspace.path())).contains("complete -F _mm"));
    ok(&mm(&["man", "--out", "pages"], workspace.path()));
    assert!(workspace.path().join("pages/mm-train.1").exists());
}

#[test]
fn training_stops_early_when_the_validation_metric_stops_improving() {
    let workspace = Workspace::new();
    let data = std::fs::read_to_string(workspace.path().join("data.jsonl")).unwrap();
    workspace.write("data.jsonl", data.replace("\"split\":\"test\"", "\"split\":\"valid\""));
    let more = [
        "--json",
        "--set",
        "train.epochs=40",
        "--set",
        "train.evaluate_every_epochs=1",
        "--set",
        "train.early_stopping.patience=2",
    ];
    let trained = json(&workspace.train("run", &more));
    // Among four candidates, recall at 10 is 1 from the first evaluation on: training stops `patience` evaluations
    // later.
    assert_eq!((&trained["epochs"], &trained["finished"], &trained["best"]), (&3.into(), &true.into(), &1.0.into()));
    let valid = mm_train::Run::read_metrics(&workspace.path().join("run"))
        .unwrap()
        .into_iter()
        .filter(|m| m.split == "valid")
        .count();
    assert_eq!(valid, 3);
}

#[test]
fn transcript_ngrams_soft_targets_and_robust_losses() {
    let workspace = Workspace::new();
    let data = std::fs::read_to_string(workspace.path().join("data.jsonl")).unwrap();
    let mut rows = String::new();
    #[rustfmt::skip]
    let words = [
        "un chien", "le renard vif", "paresseux", "brun", "par-dessus", "tasse de thé", "deux fois", "zèbre", "sauter", "il bondit",
        "chat", "mou",
    ];
    for (line, french) in data.lines().zip(words) {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        let english = row["text"].clone();
        row["text"] = serde_json::json!([{"text": english, "language": "en"}, {"text": french, "language": "fr"}]);
        rows += &format!("{row}\n");
    }
    workspace.write("data.jsonl", rows);
    let english = ["--set", "towers.text.languages=[\"en\"]"];
    // The metrics of the first and of the last logged step.
    let losses = |run: &str, more: &[&str]| -> [std::collections::BTreeMap<String, f64>; 2] {
        ok(&workspace.train(run, &[&english[..], more].concat()));
        let all = mm_train::Run::read_metrics(&workspace.path().join(run)).unwrap();
        let mut train = all.into_iter().filter(|m| m.split == "train").map(|m| m.values);
        let first = train.next().unwrap();
        [first.clone(), train.next_back().unwrap_or(first)]
    };
    let [_, plain] = losses("plain", &["--set", "train.epochs=20"]);
    let [first, last] = losses("ngrams", &["--set", "train.epochs=80", "--set", "transcript_ngram.modality=audio"]);
    assert!(!plain.contains_key("loss_transcript_ngram"), "{plain:?}");
    assert!(last["loss_transcript_ngram"] < 0.5 * first["loss_transcript_ngram"], "{first:?} {last:?}");
    ok(&mm(&["eval", "--model", "ngrams", "--json"], workspace.path()));
    // Of the three French texts that recordings were trained with, the recording's own comes first.
    let query = [
        "search",
        "--model",
        "ngrams",
        "--audio",
        "5.wav",
        "--transcript-language",
        "fr",
        "--split",
        "train",
        "--json",
    ];
    let results = json_lines(&mm(&query, workspace.path()));
    let french: Vec<&str> =
        results.iter().map(|s| s["id"].as_str().unwrap()).filter(|id| ["1", "5", "7"].contains(id)).collect();
    assert_eq!((french[0], french.len(), results.len()), ("5", 3, 8));
    assert!(results.iter().any(|s| s["value"] == "tasse de thé"));
    refused(
        &["search", "--model", "ngrams", "--audio", "5.wav", "--transcript-language", "frr"],
        workspace.path(),
        &["unknown language", "did you mean `fr`"],
    );
    refused(
        &["search", "--model", "plain", "--audio", "5.wav", "--transcript-language", "fr"],
        workspace.path(),
        &["transcript_ngram", "such a table"],
    );
    let [_, soft] = losses(
        "soft",
        &["--set", "train.epochs=20", "--set", "soft_targets.modality=text", "--set", "soft_targets.weight=1.0"],
    );
    assert!((soft["loss"] - plain["loss"]).abs() > 1e-3);
    let [_, robust] = losses("robust", &["--set", "robust.kind=soft_labels", "--set", "robust.warmup_steps=0"]);
    assert!(robust["loss"].is_finite());
    let bad = |more: &[&str], wanted: &[&str]| {
        let all = [&["train", "config.toml", "--out", "bad", "--device", "cpu", "--set"], more].concat();
        refused(&all, workspace.path(), wanted);
    };
    bad(&["transcript_ngram.modality=text"], &["transcript_ngram.modality", "a modality whose encoder is trained"]);
    bad(&["soft_targets.modality=audio"], &["soft_targets.modality", "frozen encoder"]);
    bad(&["robust.kind=soft_labels"], &["robust", "missing field `warmup_steps`"]);
    bad(
        &["robust.kind=soft_labels", "--set", "robust.warmup_steps=1", "--set", "robust.noise_rate=1.5"],
        &["robust", "noise_rate"],
    );
    workspace.write("data.jsonl", data);
    bad(&["transcript_ngram.modality=audio"], &["no value of audio in a language in which its row has a text"]);
}

#[test]
fn cross_attention_is_explained_and_memory_changes_embeddings() {
    let workspace = Workspace::new();
    let memory = "memory={modality=\"text\",apply_to=[\"image\"]}";
    ok(&workspace.train("image_attention", &["--set", "cross_attention.query_modality=text", "--set", memory]));
    ok(&workspace.train("audio_attention", &["--set", "cross_attention.key_modality=audio"]));
    ok(&workspace.train("plain", &[]));
    let table = ok(&mm(&["eval", "--model", "image_attention", "--split", "train"], workspace.path()));
    assert!(table.contains("text_to_image, cross attention + cosine"), "{table}");
    for (run, within) in [("image_attention", "image"), ("audio_attention", "audio")] {
        let search = [
            "search",
            "--model",
            run,
            "--text",
            "a dog",
            "--modality",
            within,
            "--split",
            "train",
            "--explain",
            "attention.png",
        ];
        ok(&mm(&search, workspace.path()));
        // The value itself, and next to it an overlay for each of at least two words.
        let image = image::open(workspace.path().join("attention.png")).unwrap().into_rgb8();
        let colored = image.pixels().filter(|p| p.0[0].abs_diff(p.0[2]) > 60).count();
        assert!(image.width() > 300 && colored > 500, "{run}: {:?}, {colored}", image.dimensions());
    }
    ok(&mm(&["report", "--model", "image_attention", "--split", "train", "--out", "attention.html"], workspace.path()));
    let page = std::fs::read_to_string(workspace.path().join("attention.html")).unwrap();
    assert!(page.contains("Attention of text over image"));
    // The memory changes embeddings of images and no others.
    let vector = |modality: &str, value: &str| {
        let line = json(&mm(&["embed", "--model", "image_attention", modality, value, "--json"], workspace.path()));
        serde_json::from_value::<Vec<f64>>(line["embedding"].clone()).unwrap()
    };
    let before = (vector("--image", "1.png"), vector("--text", "a dog"));
    std::fs::remove_file(workspace.path().join("image_attention/memory.safetensors")).unwrap();
    let after = (vector("--image", "1.png"), vector("--text", "a dog"));
    assert!(before.0.iter().zip(&after.0).any(|(a, b)| (a - b).abs() > 1e-3) && before.1 == after.1);
    let explain = |run: &str, query: [&str; 2], wanted: &[&str]| {
        refused(&["search", "--model", run, query[0], query[1], "--explain", "no.png"], workspace.path(), wanted);
    };
    explain("plain", ["--text", "a dog"], &["has no attention map", "[cross_attention]"]);
    explain("image_attention", ["--audio", "1.wav"], &["a query of audio", "text attends to image"]);
    for (setting, wanted) in [
        ("memory={modality=\"text\",apply_to=[\"text\"]}", "expected modalities other than memory.modality"),
        ("memory={modality=\"text\",apply_to=[\"image\"],weight=2.0}", "weight"),
        ("cross_attention.key_modality=text", "two different modalities"),
        ("cross_attention.inverse_temperature=0.0", "a positive number"),
    ] {
        let all = ["train", "config.toml", "--out", "bad", "--device", "cpu", "--set", setting];
        refused(&all, workspace.path(), &[wanted]);
    }
}

fn recall_grows_with_k_and_chance_is_that_of_four_candidates(workspace: &Workspace) {
    let evaluation = json(&mm(&["eval", "--model", "run", "--json"], workspace.path()));
    assert_eq!((&evaluation["split"], &evaluation["rows"]), (&"test".into(), &4.into()));
    let metrics = evaluation["metrics"].as_array().unwrap();
    let mut directions = 0;
    for first in metrics.iter().filter(|m| m["id"] == "recall_at_1" && !m["scope"].as_str().unwrap().contains('/')) {
        let find = |id: &str| metrics.iter().find(|m| m["id"] == id && m["scope"] == first["scope"]).unwrap();
        let [at_1, at_5, at_10] =
            ["recall_at_1", "recall_at_5", "recall_at_10"].map(|id| find(id)["value"].as_f64().unwrap());
        // All four candidates are among the first five; at 1 the value is a count of hits out of four queries.
        assert!(at_5 > 0.999 && at_10 > 0.999, "{first}");
        assert!((at_1 * 4.0 - (at_1 * 4.0).round()).abs() < 1e-9 && at_1 <= 1.0, "{first}");
        assert_eq!(
            (&first["baselines"]["chance"], &find("recall_at_10")["baselines"]["chance"]),
            (&0.25.into(), &1.0.into())
        );
        let rank = find("median_rank")["value"].as_f64().unwrap();
        assert!((1.0..=4.0).contains(&rank) && (at_1 < 1.0 || rank == 1.0), "{first}: median rank {rank}");
        directions += 1;
    }
    assert_eq!(directions, 6, "{evaluation}");
}

#[test]
fn an_evaluation_counts_the_values_that_cannot_be_read() {
    let workspace = Workspace::new();
    workspace.write("broken.png", b"not an image");
    let rows = std::fs::read_to_string(workspace.path().join("data.jsonl")).unwrap();
    let broken = r#"{"id": "12", "image": "broken.png", "text": "a dog", "audio": null, "split": "test"}"#;
    workspace.write("data.jsonl", rows + broken + "\n");
    ok(&workspace.train("run", &["--set", "train.epochs=1"]));
    let found = json(&mm(&["eval", "--model", "run", "--json"], workspace.path()));
    assert_eq!(
        (&found["failed"]["count"], &found["failed"]["examples"][0]["id"]),
        (&1.into(), &"12".into()),
        "{found}"
    );
    // Runs of other configs are not averaged.
    ok(&workspace.train("wider", &["--set", "train.epochs=1", "--set", "embed_dim=8"]));
    ok(&workspace.train("again", &["--set", "train.epochs=1", "--set", "train.seed=5"]));
    let report = |other: &str| mm(&["report", "--model", "run", other, "--out", "r.html"], workspace.path());
    ok(&report("again"));
    crate::common::assert_refused(
        &report("wider"),
        &["report"],
        &["embed_dim: found 8, expected 16 as in", "seeds alone"],
    );
}
