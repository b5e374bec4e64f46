//! The program from outside: a whole run, what it writes, and what it does when it is stopped.
#![allow(missing_docs)]

mod common;

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
    assert!(found["broken"].as_array().unwrap().is_empty());
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
        serde_json::from_str(&ok(&mm(&["eval", "run", "--json"], world.path()))).unwrap();
    let directions = evaluated["directions"].as_object().unwrap();
    assert_eq!(directions.len(), 6);
    assert!(
        directions.values().all(|d| d["recall"][2].as_f64().unwrap() > 0.999 && d["gallery"].as_u64().unwrap() == 4)
    );
    let hits = ok(&mm(&["search", "run", "--text", "a dog", "--top", "2", "--json"], world.path()));
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
    let line: serde_json::Value =
        serde_json::from_str(&ok(&mm(&["embed", "--model", "words", "--text", "dog", "--json"], world.path())))
            .unwrap();
    assert_eq!(line["embedding"].as_array().unwrap().len(), 21);
    ok(&mm(&["report", "run", "--out", "r.html"], world.path()));
    let page = std::fs::read_to_string(world.path().join("r.html")).unwrap();
    assert!(page.contains("audio → image") && page.contains("data:image/jpeg;base64,") && page.contains("<svg"));
    assert!(!page.contains("http://") || !page.contains("src=\"http"), "the page must hold everything itself");
    ok(&mm(&["doctor", "--json"], world.path()));
    assert!(ok(&mm(&["completions", "bash"], world.path())).contains("complete -F _mm"));
    ok(&mm(&["man", "pages"], world.path()));
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
    let more = ["--json", "--set", "train.epochs=40", "--set", "train.evaluate_every=1", "--set", "train.patience=2"];
    let ended: serde_json::Value = serde_json::from_str(&ok(&world.train("run", &more))).unwrap();
    // Four candidates: recall at 10 is whole from the first evaluation on, so two more are waited for and no others.
    assert_eq!((&ended["epochs"], &ended["finished"], &ended["best"]), (&4.into(), &true.into(), &1.0.into()));
    let valid =
        mm_train::Run::metrics(&world.path().join("run")).unwrap().into_iter().filter(|m| m.split == "valid").count();
    assert_eq!(valid, 4);
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
            "--run",
            run,
            "--device",
            "cpu",
            "--threads",
            "1",
            "--set",
            "train.epochs=12",
            "--set",
            "train.save_every=1",
            "--set",
            "train.keep=2",
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
    assert!(start(&world, "whole", &[]).wait().unwrap().success());
    let run = world.path().join("broken");
    for (round, steps) in [3, 7, 11, 16].into_iter().enumerate() {
        let mut child = start(&world, "broken", if round == 0 { &[] } else { &["--resume"] });
        wait_for_steps(&run, steps);
        child.kill().unwrap(); // SIGKILL: nothing can be tidied up
        child.wait().unwrap();
        // Whatever the instant was, what lies there loads.
        if run.join("checkpoints/last.safetensors").exists() {
            tensors(&run);
        }
    }
    assert!(start(&world, "broken", &["--resume"]).wait().unwrap().success());
    let (whole, broken) = (tensors(&world.path().join("whole")), tensors(&run));
    assert_eq!(whole.len(), broken.len());
    for (a, b) in whole.iter().zip(&broken) {
        assert!(a == b, "{} differs", a.0);
    }
    // The figures are there once each, too.
    let steps = |run: &Path| {
        mm_train::Run::metrics(run)
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
    let mut child = start(&world, "run", &["--set", "train.epochs=400", "--set", "train.save_every=0"]);
    wait_for_steps(&world.path().join("run"), 4);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(child.wait().unwrap().success());
    let (_, saved) = mm_train::Run::load(&world.path().join("run"), "last").unwrap();
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
    assert_eq!((about["family"].as_str(), about["joint"].as_bool()), (Some("clip"), Some(true)));
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
        &lines(&["classify", "--model", "convnext-v1", "--image", "1.png", "--top", "0", "--json"])[0]["scores"];
    let of = |key: &str| classes.as_array().unwrap().iter().map(|c| c[key].as_f64().unwrap()).collect::<Vec<_>>();
    let (scores, logits) = (of("score"), of("logit"));
    assert_eq!(scores.len(), 5);
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-5 && logits.is_sorted_by(|a, b| a >= b));
    assert!((logits[0] - logits[1] - (scores[0] / scores[1]).ln()).abs() < 1e-4);
    let zero = &lines(&["classify", "--model", "clip-eos-gelu", "--image", "1.png", "--labels", "fox,dog", "--json"])
        [0]["scores"];
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
    assert_eq!((&first["vectors"], &first["holes"], &first["kept"]), (&2.into(), &1.into(), &0.into()), "{first}");
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
    assert_eq!((&second["vectors"], &second["holes"], &second["kept"]), (&3.into(), &0.into(), &2.into()), "{second}");
    assert!(!world.path().join("v.npy.part").exists() && !index().contains("error"));
    let bytes = std::fs::read(world.path().join("v.npy")).unwrap();
    let width = second["width"].as_u64().unwrap() as usize;
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
        &["embed", "--model", "eyes", "--data", "m.jsonl", "--out", "f.npy", "--on-broken", "fail"],
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
        "corpus.txt",
        "--out",
        "w.txt",
        "--width",
        "12",
        "--threads",
        "1",
        "--sample",
        "0",
        "--json",
    ];
    let made: serde_json::Value = serde_json::from_str(ok(&mm(&train, world.path())).trim()).unwrap();
    assert_eq!(made["words"], 8);
    let said = ok(&mm(&["words", "similar", "w.txt", "cat", "--top", "3"], world.path()));
    assert!(["purrs", "softly", "indoors"].iter().all(|w| said.contains(w)), "{said}");
    std::fs::write(
        world.path().join("pairs.tsv"),
        "# pairs\ncat\tpurrs\t9\nCAT\tbarks\t1\ndog\tbarks\t8\ncat\tzebra\t5\n",
    )
    .unwrap();
    let held = ok(&mm(&["words", "eval", "w.txt", "--pairs", "pairs.tsv", "--json"], world.path()));
    let held: serde_json::Value = serde_json::from_str(held.trim()).unwrap();
    assert_eq!((&held["pairs"], &held["unknown"]), (&3.into(), &1.into()));
    assert!(held["spearman"].as_f64().unwrap() >= 0.5, "{held}");
    refused(&["words", "similar", "w.txt", "cats"], world.path(), &["did you mean `cat`"]);
    refused(&["words", "train", "nowhere.txt", "--out", "x.bin"], world.path(), &["nowhere.txt"]);
    refused(&["words", "similar", "corpus.txt", "cat"], world.path(), &["corpus.txt", "two numbers"]);
    std::fs::write(world.path().join("empty.txt"), "").unwrap();
    refused(&["words", "train", "empty.txt", "--out", "x.bin"], world.path(), &["0 words"]);
}
