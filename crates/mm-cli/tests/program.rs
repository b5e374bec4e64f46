//! The program from outside: a whole run, what it writes, and what it does when it is stopped.
#![allow(missing_docs)]

mod common;
mod fitting;
mod speaking;

use common::{World, mm, refused, text};
use mm_core::Checkpoint;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

fn ok(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn from_files_to_a_report_with_every_command_on_the_way() {
    let world = World::new();
    let inspected = ok(&mm(&["inspect", "data.jsonl", "--json"], world.path()));
    let found: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!((&found["rows"], &found["modalities"]["audio"]["rows"]), (&12.into(), &11.into()));
    assert_eq!(found["failed"]["count"], 0);
    let trained: serde_json::Value = serde_json::from_str(&ok(&world.train("run", &["--json"]))).unwrap();
    assert_eq!((&trained["steps"], &trained["rows"], &trained["finished"]), (&6.into(), &8.into(), &true.into()));
    for name in [
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
    ] {
        assert!(world.path().join("run").join(name).exists(), "{name}");
    }
    let evaluated: serde_json::Value =
        serde_json::from_str(&ok(&mm(&["eval", "--model", "run", "--json"], world.path()))).unwrap();
    let directions = evaluated["directions"].as_object().unwrap();
    assert_eq!(directions.len(), 6);
    assert!(
        directions.values().all(|d| d["recall"][2].as_f64().unwrap() > 0.999 && d["gallery"].as_u64().unwrap() == 4)
    );
    let hits = ok(&mm(&["search", "--model", "run", "--text", "a dog", "--k", "2", "--json"], world.path()));
    let hits: Vec<serde_json::Value> = hits.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(hits.len(), 4);
    assert!(hits[0]["score"].as_f64().unwrap() >= hits[1]["score"].as_f64().unwrap());
    // Values keep the order they were given in, whatever their kind; a run and a checkpoint folder both embed.
    let lines = ok(&mm(
        &["embed", "--model", "run", "--image", "1.png", "--text", "dog", "--image", "2.png", "--json"],
        world.path(),
    ));
    let order: Vec<String> = lines
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["input"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["1.png", "dog", "2.png"]);
    // A whole data set through a run, as through a checkpoint folder: the same vectors as one by one.
    let whole = ["embed", "--model", "run", "--data", "data.jsonl", "--modality", "image", "--out", "v.npy", "--json"];
    let done: serde_json::Value = serde_json::from_str(&ok(&mm(&whole, world.path()))).unwrap();
    assert_eq!((&done["vectors"], &done["dim"]), (&12.into(), &16.into()));
    let bytes = std::fs::read(world.path().join("v.npy")).unwrap();
    let numbers: Vec<f32> =
        bytes[bytes.len() - 12 * 16 * 4..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    for (a, b) in first["embedding"].as_array().unwrap().iter().zip(&numbers[16..32]) {
        assert!((a.as_f64().unwrap() - f64::from(*b)).abs() < 1e-5);
    }
    let line: serde_json::Value =
        serde_json::from_str(&ok(&mm(&["embed", "--model", "words", "--text", "dog", "--json"], world.path())))
            .unwrap();
    assert_eq!(line["embedding"].as_array().unwrap().len(), 21);
    ok(&mm(&["report", "--model", "run", "--out", "r.html"], world.path()));
    let page = std::fs::read_to_string(world.path().join("r.html")).unwrap();
    assert!(page.contains("audio → image") && page.contains("data:image/jpeg;base64,") && page.contains("<svg"));
    assert!(!page.contains("http://") || !page.contains("src=\"http"), "the page must hold everything itself");
    ok(&mm(&["doctor", "--json"], world.path()));
    assert!(ok(&mm(&["completions", "bash"], world.path())).contains("complete -F _mm"));
    ok(&mm(&["man", "--out", "pages"], world.path()));
    assert!(world.path().join("pages/mm-train.1").exists());
}

#[test]
fn help_has_an_example_for_each_command() {
    let folder = std::env::temp_dir();
    for command in ["inspect", "train", "eval", "embed", "search", "report", "prepare"] {
        let said = ok(&mm(&[command, "--help"], &folder));
        assert!(said.contains("Example") && said.contains(&format!("mm {command}")), "{said}");
    }
}

#[test]
fn a_validation_side_is_watched_and_training_stops_when_it_no_longer_grows() {
    let world = World::new();
    let data = std::fs::read_to_string(world.path().join("data.jsonl")).unwrap();
    world.write("data.jsonl", data.replace("\"split\":\"test\"", "\"split\":\"valid\""));
    let more = [
        "--json",
        "--set",
        "train.epochs=40",
        "--set",
        "train.evaluate_every_epochs=1",
        "--set",
        "train.early_stopping.patience=2",
    ];
    let ended: serde_json::Value = serde_json::from_str(&ok(&world.train("run", &more))).unwrap();
    // Four candidates: recall at 10 is whole from the first evaluation on, so two more are waited for and no others.
    assert_eq!((&ended["epochs"], &ended["finished"], &ended["best"]), (&4.into(), &true.into(), &1.0.into()));
    let valid = mm_train::Run::read_metrics(&world.path().join("run"))
        .unwrap()
        .into_iter()
        .filter(|m| m.split == "valid")
        .count();
    assert_eq!(valid, 4);
}

#[test]
fn voices_learn_what_is_written_captions_are_soft_targets_and_pairs_are_doubted() {
    let world = World::new();
    let data = std::fs::read_to_string(world.path().join("data.jsonl")).unwrap();
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
    world.write("data.jsonl", rows);
    let english = ["--set", "towers.text.languages=[\"en\"]"];
    // Of the first and of the last step that was written down.
    let losses = |run: &str, more: &[&str]| -> [std::collections::BTreeMap<String, f64>; 2] {
        ok(&world.train(run, &[&english[..], more].concat()));
        let all = mm_train::Run::read_metrics(&world.path().join(run)).unwrap();
        let mut train = all.into_iter().filter(|m| m.split == "train").map(|m| m.values);
        let first = train.next().unwrap();
        [first.clone(), train.next_back().unwrap_or(first)]
    };
    let [_, plain] = losses("plain", &["--set", "train.epochs=20"]);
    let [begun, spelled] = losses("spelled", &["--set", "train.epochs=80", "--set", "spelling.modality=audio"]);
    assert!(!plain.contains_key("loss_spelling"), "{plain:?}");
    assert!(spelled["loss_spelling"] < 0.5 * begun["loss_spelling"], "{begun:?} {spelled:?}");
    // Such a run is loaded like any other; what helped it learn is no part of an answer.
    ok(&mm(&["eval", "--model", "spelled", "--json"], world.path()));
    // Of the three French texts that a voice was heard with, its own comes first.
    let said = [
        "search",
        "--model",
        "spelled",
        "--audio",
        "5.wav",
        "--transcript-language",
        "fr",
        "--split",
        "train",
        "--json",
    ];
    let said: Vec<serde_json::Value> =
        ok(&mm(&said, world.path())).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let heard: Vec<&str> =
        said.iter().map(|s| s["id"].as_str().unwrap()).filter(|id| ["1", "5", "7"].contains(id)).collect();
    assert_eq!((heard[0], heard.len(), said.len()), ("5", 3, 8));
    assert!(said.iter().any(|s| s["value"] == "tasse de thé"));
    refused(
        &["search", "--model", "spelled", "--audio", "5.wav", "--transcript-language", "frr"],
        world.path(),
        &["unknown language", "did you mean `fr`"],
    );
    refused(
        &["search", "--model", "plain", "--audio", "5.wav", "--transcript-language", "fr"],
        world.path(),
        &["did not learn what is written"],
    );
    let [_, soft] =
        losses("soft", &["--set", "train.epochs=20", "--set", "soft.modality=text", "--set", "soft.share=1.0"]);
    assert!((soft["loss"] - plain["loss"]).abs() > 1e-3);
    let [_, doubted] = losses("doubted", &["--set", "robust.kind=soft_labels", "--set", "robust.warmup_steps=0"]);
    assert!(doubted["loss"].is_finite());
    let bad = |more: &[&str], wanted: &[&str]| {
        let all = [&["train", "config.toml", "--out", "bad", "--device", "cpu", "--set"], more].concat();
        refused(&all, world.path(), wanted);
    };
    bad(&["spelling.modality=text"], &["spelling.modality", "wanted a modality whose tower learns"]);
    bad(&["soft.modality=audio"], &["soft.modality", "frozen encoder"]);
    bad(&["robust.kind=soft_labels"], &["robust", "missing field `warmup_steps`"]);
    bad(
        &["robust.kind=soft_labels", "--set", "robust.warmup_steps=1", "--set", "robust.noise_rate=1.5"],
        &["robust", "noise_rate"],
    );
    world.write("data.jsonl", data);
    bad(&["spelling.modality=audio"], &["no value of audio has a language in which its row has a text"]);
}

#[test]
fn words_look_at_pictures_and_sounds_and_what_was_learned_completes_vectors() {
    let world = World::new();
    let memory = "memory={modality=\"text\",apply_to=[\"image\"]}";
    ok(&world.train("looks", &["--set", "attention.queries=text", "--set", memory]));
    ok(&world.train("hears", &["--set", "attention.keys=audio"]));
    ok(&world.train("plain", &[]));
    let table = ok(&mm(&["eval", "--model", "looks", "--split", "train"], world.path()));
    assert!(table.contains("text → image, attention and vectors"), "{table}");
    for (run, within) in [("looks", "image"), ("hears", "audio")] {
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
            "gaze.png",
        ];
        ok(&mm(&search, world.path()));
        // The value itself and, beside it, the value under the gaze of each of two words at least.
        let drawn = image::open(world.path().join("gaze.png")).unwrap().into_rgb8();
        let coloured = drawn.pixels().filter(|p| p.0[0].abs_diff(p.0[2]) > 60).count();
        assert!(drawn.width() > 300 && coloured > 500, "{run}: {:?}, {coloured}", drawn.dimensions());
    }
    ok(&mm(&["report", "--model", "looks", "--split", "train", "--out", "looks.html"], world.path()));
    let page = std::fs::read_to_string(world.path().join("looks.html")).unwrap();
    assert!(page.contains("Where text looks in image"));
    // What is remembered moves pictures, and nothing else.
    let vector = |modality: &str, value: &str| {
        let told = ok(&mm(&["embed", "--model", "looks", modality, value, "--json"], world.path()));
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        serde_json::from_value::<Vec<f64>>(told["embedding"].clone()).unwrap()
    };
    let before = (vector("--image", "1.png"), vector("--text", "a dog"));
    std::fs::remove_file(world.path().join("looks/memory.safetensors")).unwrap();
    let after = (vector("--image", "1.png"), vector("--text", "a dog"));
    assert!(before.0.iter().zip(&after.0).any(|(a, b)| (a - b).abs() > 1e-3) && before.1 == after.1);
    let explain = |run: &str, query: [&str; 2], wanted: &[&str]| {
        refused(&["search", "--model", run, query[0], query[1], "--explain", "no.png"], world.path(), wanted);
    };
    explain("plain", ["--text", "a dog"], &["has no attention map", "[attention]"]);
    explain("looks", ["--audio", "1.wav"], &["a query of audio", "text attends to image"]);
    for (setting, wanted) in [
        ("memory={modality=\"text\",apply_to=[\"text\"]}", "expected towers of this config"),
        ("memory={modality=\"text\",apply_to=[\"image\"],weight=2.0}", "weight"),
        ("attention.keys=text", "wanted two towers of this config"),
        ("attention.sharpness=0.0", "a positive number"),
    ] {
        let all = ["train", "config.toml", "--out", "bad", "--device", "cpu", "--set", setting];
        refused(&all, world.path(), &[wanted]);
    }
}

fn tensors(run: &Path) -> Vec<(String, Vec<u8>)> {
    let checkpoint = Checkpoint::open(run.join("checkpoints/last.safetensors")).unwrap();
    checkpoint.names().map(|n| (n.to_owned(), checkpoint.get(n).unwrap().to_bytes().unwrap())).collect()
}

fn start(world: &World, run: &str, more: &[&str]) -> std::process::Child {
    let arguments = [
        &[
            "train",
            "config.toml",
            "--out",
            run,
            "--device",
            "cpu",
            "--threads",
            "1",
            "--set",
            "train.epochs=12",
            "--set",
            "train.save_every_steps=1",
            "--set",
            "train.keep_last=2",
        ],
        more,
    ]
    .concat();
    Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(arguments)
        .current_dir(world.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the run has made some steps, so that it is stopped in the middle of things.
fn wait_for_steps(run: &Path, steps: usize) {
    let begun = Instant::now();
    while std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |t| t.lines().count()) < steps {
        assert!(begun.elapsed() < Duration::from_secs(60), "no steps were made");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_weights_of_one_that_was_not() {
    let world = World::new();
    // Doubt begins in the middle: that it has begun is part of what is taken up again.
    let doubt = ["--set", "robust.kind=small_loss", "--set", "robust.noise_rate=0.3", "--set", "robust.warmup_steps=9"];
    assert!(start(&world, "whole", &doubt).wait().unwrap().success());
    let run = world.path().join("broken");
    for (round, steps) in [3, 7, 11, 16].into_iter().enumerate() {
        let mut child = start(&world, "broken", &[&doubt[..], if round == 0 { &[] } else { &["--resume"] }].concat());
        wait_for_steps(&run, steps);
        child.kill().unwrap(); // SIGKILL: nothing can be tidied up
        child.wait().unwrap();
        // Whatever the instant was, what lies there loads.
        if run.join("checkpoints/last.safetensors").exists() {
            tensors(&run);
        }
    }
    assert!(start(&world, "broken", &[&doubt[..], &["--resume"]].concat()).wait().unwrap().success());
    let (whole, broken) = (tensors(&world.path().join("whole")), tensors(&run));
    assert_eq!(whole.len(), broken.len());
    for (a, b) in whole.iter().zip(&broken) {
        assert!(a == b, "{} differs", a.0);
    }
    // The figures are there once each, too.
    let steps = |run: &Path| {
        mm_train::Run::read_metrics(run)
            .unwrap()
            .into_iter()
            .filter(|m| m.split == "train")
            .map(|m| m.step)
            .collect::<Vec<_>>()
    };
    assert_eq!(steps(&run), (1..=24).collect::<Vec<_>>());
    assert_eq!(std::fs::read_dir(run.join("checkpoints")).unwrap().count(), 4);
}

#[test]
fn ctrl_c_saves_and_stops_and_resume_goes_on() {
    let world = World::new();
    let mut child = start(&world, "run", &["--set", "train.epochs=400", "--set", "train.save_every_steps=0"]);
    wait_for_steps(&world.path().join("run"), 4);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let (_, saved) = mm_train::Run::open_checkpoint(&world.path().join("run"), "last").unwrap();
    assert!(saved.step >= 4 && !saved.finished);
    assert!(!world.path().join("run/checkpoints/best.safetensors").exists());
}

#[test]
fn checkpoint_folders_are_inspected_embedded_and_classified() {
    let world = World::new();
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm-repr/tests/fixtures/families");
    for name in ["clip-eos-gelu", "convnext-v1"] {
        std::fs::create_dir(world.path().join(name)).unwrap();
        for file in
            ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
        {
            let from = families.join(name).join(file);
            if from.exists() {
                std::fs::copy(from, world.path().join(name).join(file)).unwrap();
            }
        }
    }
    let lines = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let output = mm(arguments, world.path());
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let about = &lines(&["inspect", "clip-eos-gelu", "--json"])[0];
    assert_eq!((about["family"].as_str(), about["dual_encoder"].as_bool()), (Some("clip"), Some(true)));
    // In the order given, of unit length.
    let vectors =
        lines(&["embed", "--model", "clip-eos-gelu", "--text", "fox", "--image", "1.png", "--text", "a dog", "--json"]);
    assert_eq!(vectors.iter().map(|v| v["input"].as_str().unwrap()).collect::<Vec<_>>(), ["fox", "1.png", "a dog"]);
    for vector in &vectors {
        let sum: f64 = vector["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap().powi(2)).sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
    // Scores are a softmax of the logits, best first; 0 shows all.
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
    refused(&["classify", "--model", "clip-eos-gelu", "--image", "1.png"], world.path(), &["no classifier"]);
    refused(&["embed", "--model", "convnext-v1", "--text", "a"], world.path(), &["takes image, not text"]);
}

#[test]
fn a_data_set_becomes_vectors_whose_holes_are_tried_again_and_values_are_compared() {
    let world = World::new();
    let line =
        |output: std::process::Output| -> serde_json::Value { serde_json::from_str(ok(&output).trim()).unwrap() };
    let rows = [
        r#"{"id": "a", "image": "1.png", "text": "a dog"}"#,
        r#"{"id": "b", "image": "gone.png", "text": "the fox"}"#,
        r#"{"id": "c", "image": "2.png", "text": ["lazy", "over the dog"]}"#,
    ];
    std::fs::write(world.path().join("m.jsonl"), rows.join("\n")).unwrap();
    let embed = |more: &[&str]| {
        mm(&[&["embed", "--model", "eyes", "--data", "m.jsonl", "--json", "--out"], more].concat(), world.path())
    };
    let first = line(embed(&["v.npy"]));
    assert_eq!(
        (&first["vectors"], &first["failed"]["count"], &first["resumed"]),
        (&2.into(), &1.into(), &0.into()),
        "{first}"
    );
    let index = || std::fs::read_to_string(world.path().join("v.rows.jsonl")).unwrap();
    assert!(index().lines().nth(1).unwrap().contains("gone.png: cannot be read"), "{}", index());
    refused(
        &["embed", "--model", "eyes", "--data", "m.jsonl", "--out", "v.npy", "--normalize"],
        world.path(),
        &["other options"],
    );
    // The file came: only the hole is done, and nothing is left to do.
    std::fs::copy(world.path().join("1.png"), world.path().join("gone.png")).unwrap();
    let second = line(embed(&["v.npy"]));
    assert_eq!(
        (&second["vectors"], &second["failed"]["count"], &second["resumed"]),
        (&3.into(), &0.into(), &2.into()),
        "{second}"
    );
    assert!(!world.path().join("v.npy.part").exists() && !index().contains("error"));
    let bytes = std::fs::read(world.path().join("v.npy")).unwrap();
    let width = second["dim"].as_u64().unwrap() as usize;
    assert!(bytes.starts_with(b"\x93NUMPY") && bytes.len() == 128 + 3 * width * 4);
    // The same picture gives the same vector.
    assert_eq!(bytes[128..128 + width * 4], bytes[128 + width * 4..128 + 2 * width * 4]);
    let tensors = line(embed(&["v.safetensors"]));
    assert_eq!(tensors["vectors"], 3);
    let stored = Checkpoint::open(world.path().join("v.safetensors")).unwrap();
    assert_eq!(stored.get("image").unwrap().to_bytes().unwrap(), bytes[128..]);
    let texts = mm(&["embed", "--model", "words", "--data", "m.jsonl", "--out", "t.parquet", "--json"], world.path());
    assert_eq!(line(texts)["vectors"], 4);
    refused(&["embed", "--model", "eyes", "--data", "m.jsonl", "--out", "v.csv"], world.path(), &[".npy, .parquet"]);
    refused(
        &["embed", "--model", "words", "--data", "m.jsonl", "--modality", "image", "--out", "x.npy"],
        world.path(),
        &["the model takes text"],
    );
    std::fs::remove_file(world.path().join("gone.png")).unwrap();
    refused(
        &["embed", "--model", "eyes", "--data", "m.jsonl", "--out", "f.npy", "--on-error", "fail"],
        world.path(),
        &["gone.png"],
    );

    let pair =
        line(mm(&["similarity", "--model", "words", "--text", "a dog", "--text", "a dog", "--json"], world.path()));
    assert!((pair["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    let three = mm(
        &["similarity", "--model", "words", "--text", "a dog", "--text", "fox", "--text", "lazy", "--json"],
        world.path(),
    );
    assert_eq!(ok(&three).lines().count(), 3);
    refused(&["similarity", "--model", "words", "--text", "a"], world.path(), &["at least two"]);
}

#[test]
fn words_are_learned_asked_and_measured() {
    let world = World::new();
    let mut corpus = String::new();
    for i in 0..600 {
        corpus += ["cat purrs softly indoors\n", "dog barks loudly outdoors\n"][i % 2];
    }
    std::fs::write(world.path().join("corpus.txt"), corpus).unwrap();
    let train = [
        "words",
        "train",
        "--data",
        "corpus.txt",
        "--out",
        "w.txt",
        "--vector-size",
        "12",
        "--threads",
        "1",
        "--sample",
        "0",
        "--json",
    ];
    let made: serde_json::Value = serde_json::from_str(ok(&mm(&train, world.path())).trim()).unwrap();
    assert_eq!(made["words"], 8);
    let said = ok(&mm(&["words", "similar", "--model", "w.txt", "--word", "cat", "--k", "3"], world.path()));
    assert!(["purrs", "softly", "indoors"].iter().all(|w| said.contains(w)), "{said}");
    std::fs::write(
        world.path().join("pairs.tsv"),
        "# pairs\ncat\tpurrs\t9\nCAT\tbarks\t1\ndog\tbarks\t8\ncat\tzebra\t5\n",
    )
    .unwrap();
    let held = ok(&mm(&["words", "eval", "--model", "w.txt", "--pairs", "pairs.tsv", "--json"], world.path()));
    let held: serde_json::Value = serde_json::from_str(held.trim()).unwrap();
    assert_eq!((&held["pairs"], &held["out_of_vocabulary"]), (&3.into(), &1.into()));
    assert!(held["metrics"][0]["value"].as_f64().unwrap() >= 0.5, "{held}");
    refused(&["words", "similar", "--model", "w.txt", "--word", "cats"], world.path(), &["did you mean `cat`"]);
    refused(&["words", "train", "--data", "nowhere.txt", "--out", "x.bin"], world.path(), &["nowhere.txt"]);
    refused(
        &["words", "similar", "--model", "corpus.txt", "--word", "cat"],
        world.path(),
        &["corpus.txt", "two integers"],
    );
    std::fs::write(world.path().join("empty.txt"), "").unwrap();
    refused(&["words", "train", "--data", "empty.txt", "--out", "x.bin"], world.path(), &["0 words"]);
}

const LEARNER: &str = "task = \"representation\"\n[data]\nmanifest = \"data.jsonl\"\ncolumns = { modalities = { image = \"image\" } }\nsplit = { column = \"split\" }\n\
    [loader]\nbatch_size = 4\n[inputs.image]\nkind = \"image\"\nimage_size = 8\n[model]\nkind = \"vae\"\nlatent_dim = 3\nnetwork = { hidden_dims = [16] }\n[train]\nepochs = 3\nlog_every_steps = 1\n";

#[test]
fn a_representation_is_learned_measured_embedded_reported_and_used_by_another_run() {
    let world = World::new();
    world.write("vae.toml", LEARNER);
    let folder = world.path();
    ok(&mm(&["train", "vae.toml", "--out", "runs/vae", "--num-seeds", "2"], folder));
    let figures: serde_json::Value =
        serde_json::from_str(&ok(&mm(&["eval", "--model", "runs/vae/seed-0", "--json"], folder))).unwrap();
    let error = &figures["figures"]["image: squared error"];
    assert!(error["model"].as_f64().unwrap() > 0.0 && error["beside"]["pca"].as_f64().unwrap() >= 0.0, "{figures}");
    assert!(figures["figures"]["log-likelihood of a row in nats (64 samples)"]["model"].is_f64(), "{figures}");
    let embed = ["embed", "--model", "runs/vae/seed-0", "--image", "0.png", "--image", "1.png", "--json"];
    let rows = ok(&mm(&embed, folder));
    let first: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!((first["modality"].as_str(), first["embedding"].as_array().unwrap().len()), (Some("image"), 3));
    ok(&mm(&["report", "--model", "runs/vae", "--out", "vae.html"], folder));
    let html = std::fs::read_to_string(folder.join("vae.html")).unwrap();
    assert!(html.contains("drawn from the prior") && html.contains("data:image/png;base64") && html.contains("±"));
    // Interrupted and resumed it goes on; and its code is an encoder like any other.
    let other = "task = \"representation\"\n[data]\nmanifest = \"data.jsonl\"\ncolumns = { modalities = { image = \"image\", text = \"text\" } }\nsplit = { column = \"split\" }\n\
        [inputs.image]\nkind = \"features\"\nencoder = { kind = \"learned\", run = \"runs/vae/seed-0\" }\n[inputs.text]\nkind = \"bag_of_words\"\nmin_df = 1\n\
        [model]\nkind = \"multimodal_vae\"\njoint_posterior = \"product_of_experts\"\nlatent_dim = 2\n[train]\nepochs = 2\n";
    world.write("both.toml", other);
    ok(&mm(&["train", "both.toml", "--out", "runs/both"], folder));
    let figures = ok(&mm(&["eval", "--model", "runs/both"], folder));
    assert!(figures.contains("image from text: squared error") && figures.contains("nearest neighbour"), "{figures}");
    let code = ok(&mm(&["embed", "--model", "runs/both", "--text", "a dog", "--image", "0.png", "--json"], folder));
    assert_eq!(code.lines().count(), 2);
    refused(&["embed", "--model", "runs/both", "--audio", "0.wav"], folder, &["audio", "image, text"]);
    for (change, wanted) in [
        ("model.kind=vea", "known are acmr"),
        ("model.latent_dim=0", "model.latent_dim"),
        ("inputs.image.image_size=2", "4 to 512"),
        ("inputs.image.kind=picture", "inputs.image"),
        ("inputs.image.kind=vector", "inputs.image"),
        ("model.network.channels=[4,4,4,4]", "multiples of 16"),
        ("data.columns.modalities={voice='nothing'}", "no column `nothing`"),
        ("task=representatoin", "did you mean `representation`"),
    ] {
        refused(&["train", "vae.toml", "--set", change, "--out", "runs/none"], folder, &[wanted]);
        assert!(!folder.join("runs/none").exists(), "{change}");
    }
}

#[test]
fn arrays_are_aligned_diagnosed_and_pairs_audited() {
    let world = World::new();
    let folder = world.path();
    // Two views of the same two numbers a row, and which quarter they lie in.
    let (mut a, mut b, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = mm_core::seed::Rng::new(&[3]);
    for _ in 0..80 {
        let (x, y) = (random.uniform_range(-1.0, 1.0), random.uniform_range(-1.0, 1.0));
        let mut noise = || random.uniform_range(-0.1, 0.1);
        a.extend([x + noise(), y + noise(), x - y + noise()]);
        b.extend([y - x + noise(), 2.0 * x + noise(), noise(), y + noise()]);
        labels.push(i64::from(x > 0.0) + 2 * i64::from(y > 0.0));
    }
    let array =
        |values: &[f64], width: i64| mm_core::Tensor::from_vec(values, &[values.len() as i64 / width, width]).unwrap();
    mm_data::write_npy(&folder.join("a.npy"), &array(&a, 3)).unwrap();
    mm_data::write_npy(&folder.join("b.npy"), &array(&b, 4)).unwrap();
    let mut y = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i8', 'fortran_order': False, 'shape': (80,), }".to_vec();
    y.resize(127, b' ');
    y.push(b'\n');
    y.extend(labels.iter().flat_map(|l| l.to_le_bytes()));
    world.write("y.npy", &y);
    let names: Vec<String> = ok(&mm(&["align", "--list-methods", "--json"], folder))
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.len() > 12);
    for name in names.iter().map(String::as_str).chain(["auto"]) {
        let align = [
            "align",
            "--method",
            name,
            "--a",
            "a.npy",
            "--b",
            "b.npy",
            "--labels",
            "y.npy",
            "--json",
            "--threads",
            "1",
        ];
        let found: serde_json::Value = serde_json::from_str(&ok(&mm(&align, folder))).unwrap();
        for way in ["a_to_b", "b_to_a"] {
            // Eight rows are held out, in four classes: every method must be well above chance.
            let metrics = &found["directions"][way];
            let (map, chance) =
                (metrics["map"].as_f64().unwrap(), metrics["baselines"]["chance"]["map"].as_f64().unwrap());
            assert!(map > chance, "{name}: {found}");
        }
        assert!(found["dim"].as_i64().unwrap() >= 1 && found["regularization"].is_f64(), "{name}: {found}");
    }
    let few = ["align", "--method", "procrustes", "--num-pairs", "12", "--a", "a.npy", "--b", "b.npy", "--json"];
    let found: serde_json::Value = serde_json::from_str(&ok(&mm(&few, folder))).unwrap();
    assert_eq!(found["rows"]["train"], 12, "{found}");
    let cca = ["align", "--method", "cca", "--dim", "2", "--regularization", "0.01", "--a", "a.npy", "--b", "b.npy"];
    ok(&mm(&[&cca[..], &["--out-a", "p.npy", "--out-b", "q.npy", "--out", "saved"]].concat(), folder));
    assert_eq!(mm_data::read_npy(&folder.join("p.npy")).unwrap().shape(), [80, 2]);
    assert!(folder.join("saved/align.safetensors").exists() && folder.join("saved/align.json").exists());
    let found: serde_json::Value = serde_json::from_str(&ok(&mm(
        &["diagnose", "--a", "p.npy", "--b", "q.npy", "--report", "d.html", "--json"],
        folder,
    )))
    .unwrap();
    assert_eq!((found["rows"].as_i64(), found["corrections"].as_array().unwrap().len()), (Some(80), 5));
    assert!(std::fs::read_to_string(folder.join("d.html")).unwrap().contains("Corrections"));

    mm_data::write_npy(&folder.join("short.npy"), &array(&b[..40], 4)).unwrap();
    let mut broken = a.clone();
    broken[7] = f64::NAN;
    mm_data::write_npy(&folder.join("nan.npy"), &array(&broken, 3)).unwrap();
    world.write("cut.npy", &y[..300]);
    let bad: [(&[&str], &str); 10] = [
        (&["--a", "a.npy", "--b", "b.npy", "--num-pairs", "2"], "expected 4 to 72"),
        (&["--a", "a.npy", "--b", "short.npy"], "80 and 10 rows"),
        (&["--a", "nan.npy", "--b", "b.npy"], "row 2, column 1"),
        (&["--a", "a.npy", "--b", "y.npy"], "expected float32 or float64"),
        (&["--a", "cut.npy", "--b", "b.npy"], "the file is cut"),
        (&["--a", "a.npy", "--b", "b.npy", "--labels", "a.npy"], "expected int64"),
        (&["--a", "a.npy", "--b", "b.npy", "--method", "procrusts"], "did you mean `procrustes"),
        (&["--a", "a.npy", "--b", "b.npy", "--method", "semantic_matching"], "needs labels"),
        (&["--a", "a.npy", "--b", "b.npy", "--method", "cca", "--regularization", "0.1", "--dim", "9"], "1 to 3"),
        (&["--a", "a.npy"], "--b"),
    ];
    for (more, wanted) in bad {
        refused(&[&["align"][..], more].concat(), folder, &[wanted]);
    }
    refused(&["diagnose", "--a", "a.npy", "--b", "b.npy"], folder, &["same dimension"]);

    // Pairs: one picture is broken, the run that judges knows both modalities.
    world.write("1.png", b"no picture");
    let judge = "task = \"representation\"\n[data]\nmanifest = \"data.jsonl\"\ncolumns = { modalities = { image = \"image\", text = \"text\" } }\n\
        [inputs.image]\nkind = \"image\"\nimage_size = 8\n[inputs.text]\nkind = \"bag_of_words\"\nmin_df = 1\n[model]\nkind = \"acmr\"\nlabel_weight = 0.0\ntriplet_weight = 0.0\npair_weight = 1.0\nembed_dim = 4\n[train]\nepochs = 2\n";
    world.write("judge.toml", judge);
    ok(&mm(&["train", "judge.toml", "--out", "runs/judge"], folder));
    let audit = [
        "audit",
        "--data",
        "data.jsonl",
        "--model",
        "runs/judge",
        "--out",
        "audit.jsonl",
        "--report",
        "audit.html",
        "--json",
    ];
    let found: serde_json::Value = serde_json::from_str(&ok(&mm(&audit, folder))).unwrap();
    assert_eq!(found["unreadable"].as_i64(), Some(1), "{found}");
    let first: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(folder.join("audit.jsonl")).unwrap().lines().next().unwrap())
            .unwrap();
    assert!(first["problems"][0]["detail"].as_str().unwrap().contains("1.png"), "{first}");
    refused(
        &["audit", "--data", "data.jsonl", "--model", "runs/judge", "--modality", "image"],
        folder,
        &["expected two"],
    );
    refused(&["audit", "--data", "data.jsonl", "--model", "words"], folder, &["embeds one modality"]);
}
