//! `WebDataset` shards: written, read, and embedded by several workers of which some are killed.

use crate::{
    common::{Workspace, fixture, mm, refused, text},
    json, ok,
};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Six shards of two rows each.
const SHARDS: &str = "shards/d-{000000..000005}.tar";

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let written = json(&mm(
        &["data", "shard", "--data", "data.jsonl", "--out", "shards/d", "--max-rows", "2", "--json"],
        workspace.path(),
    ));
    assert_eq!((written["out"].as_str(), written["rows"].as_u64()), (Some(SHARDS), Some(12)), "{written}");
    workspace
}

fn worker(folder: &Path, out: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(["embed", "--model", "eyes", "--shards", SHARDS, "--out", out, "--threads", "1"])
        .current_dir(folder)
        .env("MM_LEASE_SECONDS", "0.5")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The files of the output, without leases.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in ["img_emb", "metadata", "shards"] {
        for entry in std::fs::read_dir(folder.join(name)).unwrap().map(Result::unwrap) {
            let file = format!("{name}/{}", entry.file_name().to_string_lossy());
            found.insert(file, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn killed_workers_leave_what_one_undisturbed_worker_writes() {
    let workspace = workspace();
    let folder = workspace.path();
    let alone = worker(folder, "alone").wait_with_output().unwrap();
    assert!(alone.status.success(), "{}", text(&alone));
    let mut kills = 0;
    for round in 0..8u64 {
        let mut workers = [worker(folder, "many"), worker(folder, "many")];
        std::thread::sleep(Duration::from_millis(60 + 90 * round));
        for worker in &mut workers {
            kills += usize::from(worker.try_wait().unwrap().is_none());
            worker.kill().unwrap();
            worker.wait().unwrap();
        }
    }
    assert!(kills >= 8, "{kills} workers were killed at work");
    let last = [worker(folder, "many"), worker(folder, "many"), worker(folder, "many")];
    for worker in last {
        let output = worker.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let (alone, many) = (files(&folder.join("alone")), files(&folder.join("many")));
    assert_eq!(alone.len(), 18);
    assert!(alone == many, "{:?} {:?}", alone.keys(), many.keys());
    // A worker may have been killed between its record and its lease.
    std::thread::sleep(Duration::from_millis(700));
    assert!(worker(folder, "many").wait_with_output().unwrap().status.success());
    assert_eq!(std::fs::read_dir(folder.join("many/leases")).unwrap().count(), 0);
    // One array of all is the one that the whole table gives.
    ok(&mm(&["embed", "--merge", "many", "--shards", SHARDS, "--modality", "image", "--out", "all.npy"], folder));
    ok(&mm(&["embed", "--model", "eyes", "--data", SHARDS, "--modality", "image", "--out", "whole.npy"], folder));
    let read = |name: &str| mm_data::read_npy(&folder.join(name)).unwrap();
    let difference = read("all.npy").sub(&read("whole.npy")).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
    assert!(difference < 1e-5, "{difference}");
    let ids = |name: &str| {
        let rows = std::fs::read_to_string(folder.join(name)).unwrap();
        let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone();
        rows.lines().map(id).collect::<Vec<_>>()
    };
    assert_eq!(ids("all.rows.jsonl"), ids("whole.rows.jsonl"));
    // The number of the row in its shard.
    let rows = std::fs::read_to_string(folder.join("all.rows.jsonl")).unwrap();
    let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["row"].as_u64();
    assert_eq!(rows.lines().map(row).collect::<Vec<_>>(), [Some(1), Some(2)].repeat(6));
}

#[test]
fn both_modalities_have_the_rows_that_have_both() {
    let workspace = workspace();
    let folder = workspace.path();
    // The model of images and the one of texts are the towers of a run.
    ok(&workspace.train("run", &["--set", "train.epochs=1"]));
    let summary = json(&mm(
        &[
            "embed",
            "--model",
            "run",
            "--shards",
            SHARDS,
            "--out",
            "both",
            "--modality",
            "image",
            "--modality",
            "audio",
            "--json",
        ],
        folder,
    ));
    // Row 3 has no audio.
    assert_eq!((summary["vectors"].as_u64(), summary["left_out"].as_u64()), (Some(11), Some(1)), "{summary}");
    let record = std::fs::read_to_string(folder.join("both/shards/d-000001.json")).unwrap();
    assert!(record.contains("the row has no audio") && record.contains("\"vectors\": 1"), "{record}");
    let rows = |name: &str| mm_data::read_npy(&folder.join(name)).unwrap().shape()[0];
    assert_eq!(rows("both/img_emb/img_emb_d-000001.npy"), 1);
    assert_eq!(rows("both/audio_emb/audio_emb_d-000001.npy"), 1);
    let metadata = json(&mm(&["inspect", "both/metadata/metadata_d-000001.parquet", "--json"], folder));
    assert_eq!(metadata["rows"].as_u64(), Some(1), "{metadata}");
}

#[test]
fn a_shard_without_any_vector_has_a_record_alone() {
    let workspace = workspace();
    let folder = workspace.path();
    workspace.write("broken.png", b"not an image");
    workspace.write("none.jsonl", r#"{"id": "x", "image": "broken.png", "note": "kept"}"#);
    ok(&mm(&["data", "shard", "--data", "none.jsonl", "--out", "shards/d-000006"], folder));
    std::fs::rename(folder.join("shards/d-000006-000000.tar"), folder.join("shards/d-000006.tar")).unwrap();
    let shards = "shards/d-{000005..000006}.tar";
    let embed = ["embed", "--model", "eyes", "--shards", shards, "--modality", "image", "--out", "out", "--json"];
    let summary = json(&mm(&embed, folder));
    assert_eq!((summary["vectors"].as_u64(), summary["left_out"].as_u64()), (Some(2), Some(1)), "{summary}");
    let names: Vec<String> = files(&folder.join("out")).into_keys().collect();
    assert_eq!(
        names,
        [
            "img_emb/img_emb_d-000005.npy",
            "metadata/metadata_d-000005.parquet",
            "shards/d-000005.json",
            "shards/d-000006.json"
        ]
    );
    ok(&mm(&["embed", "--merge", "out", "--shards", shards, "--modality", "image", "--out", "all.npy"], folder));
    assert_eq!(mm_data::read_npy(&folder.join("all.npy")).unwrap().shape()[0], 2);
}

#[test]
fn shards_that_cannot_be_embedded_are_named() {
    let workspace = workspace();
    let folder = workspace.path();
    let embed = |shards: &str, more: &[&str]| {
        mm(&[&["embed", "--model", "eyes", "--shards", shards, "--out", "out"], more].concat(), folder)
    };
    refused(
        &["embed", "--model", "eyes", "--shards", "shards/d-{000004..000007}.tar", "--out", "out"],
        folder,
        &["2 of 4 files are missing", "d-000006.tar"],
    );
    // Cut in the middle: the others are embedded all the same.
    let whole = std::fs::read(folder.join("shards/d-000002.tar")).unwrap();
    std::fs::write(folder.join("shards/d-000002.tar"), &whole[..whole.len() / 2]).unwrap();
    let output = embed(SHARDS, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("d-000002.tar") && text(&output).contains("1 of 6 shards"), "{}", text(&output));
    let warned = text(&output).lines().find(|line| line.starts_with("warning: ")).unwrap().to_owned();
    assert_eq!(warned.matches("d-000002.tar").count(), 1, "{warned}");
    assert_eq!(std::fs::read_dir(folder.join("out/shards")).unwrap().count(), 5);
    let failed = std::fs::read_to_string(folder.join("out/failed/d-000002.json")).unwrap();
    assert!(failed.contains("shards/d-000002.tar") && failed.contains("\"reason\""), "{failed}");
    refused(
        &["embed", "--merge", "out", "--shards", SHARDS, "--modality", "image", "--out", "x.npy"],
        folder,
        &["1 of 6 shards are not done: d-000002"],
    );
    assert!(!folder.join("x.npy").exists());
    // Mended, the same command embeds it alone.
    std::fs::write(folder.join("shards/d-000002.tar"), &whole).unwrap();
    let again = json(&embed(SHARDS, &["--json"]));
    assert_eq!((again["processed"].as_u64(), again["vectors"].as_u64()), (Some(1), Some(12)), "{again}");
    assert_eq!(std::fs::read_dir(folder.join("out/failed")).unwrap().count(), 0);
    for seconds in ["-1", "0", "soon", "NaN", "1e300"] {
        let output = Command::new(env!("CARGO_BIN_EXE_mm"))
            .args(["embed", "--model", "eyes", "--shards", SHARDS, "--out", "out"])
            .current_dir(folder)
            .env("MM_LEASE_SECONDS", seconds)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(&format!("MM_LEASE_SECONDS: found `{seconds}`")), "{}", text(&output));
    }
    refused(
        &["data", "shard", "--data", "data.jsonl", "--out", "more/"],
        folder,
        &["--out", "found more/, a folder", "more/photos for photos-000000.tar"],
    );
    refused(
        &["embed", "--model", "eyes", "--shards", "shards/d-{000000..{1,2}.tar", "--out", "out"],
        folder,
        &["shards/d-{000000..{1,2}.tar", "a `{` without `}`"],
    );
    // Other options do not mix.
    let other = embed(SHARDS, &["--normalize"]);
    assert!(text(&other).contains("normalize false, expected true"), "{}", text(&other));
    let other = embed(SHARDS, &["--column", "image=other"]);
    assert!(text(&other).contains(r#"column null, expected {"image":["other"]}"#), "{}", text(&other));
    refused(&["embed", "--model", "eyes", "--out", "out"], folder, &["--data or --shards"]);
}

#[test]
fn recordings_are_transcribed_shard_by_shard() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    std::fs::copy(fixture("mm-reason", "inputs/short16.wav"), folder.join("a.wav")).unwrap();
    std::fs::write(folder.join("t-0.csv"), "id,audio\nx,a.wav\ny,missing.wav\n").unwrap();
    std::fs::write(folder.join("t-1.csv"), "id,audio\nz,a.wav\n").unwrap();
    let model = fixture("mm-reason", "whisper-multilingual");
    let transcribe = |input: [&str; 2], out: &str| {
        let model = ["transcribe", "--model", model.to_str().unwrap(), "--max-new-tokens", "4"];
        mm(&[&model[..], &input, &["--out", out, "--json"]].concat(), folder)
    };
    let summary = json(&transcribe(["--shards", "t-{0..1}.csv"], "out"));
    let counts = ["shards", "processed", "rows", "failed_rows"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counts, [2, 2, 3, 1], "{summary}");
    for shard in ["t-0", "t-1"] {
        let lines = format!("{shard}.jsonl");
        ok(&transcribe(["--data", &format!("{shard}.csv")], &lines));
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read(&format!("out/{lines}")), read(&lines));
    }
}

#[test]
fn tables_are_captioned_and_answered_shard_by_shard() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    std::fs::copy(fixture("mm-reason", "inputs/wide.png"), folder.join("a.png")).unwrap();
    std::fs::write(folder.join("broken.png"), b"not an image").unwrap();
    std::fs::write(folder.join("t-0.csv"), "id,image,question\nx,a.png,a dog\ny,broken.png,a fox\n").unwrap();
    std::fs::write(folder.join("t-1.csv"), "id,image,question\nz,a.png,a cat\n").unwrap();
    let model = fixture("mm-reason", "git-caption");
    let model = model.to_str().unwrap();
    let sharded = |command: &str, out: &str, more: &[&str]| {
        let all = [command, "--model", model, "--shards", "t-{0..1}.csv", "--out", out, "--max-new-tokens", "4"];
        mm(&[&all, more].concat(), folder)
    };
    for command in ["caption", "answer"] {
        let summary = json(&sharded(command, command, &["--json"]));
        let counts = ["shards", "processed", "rows", "failed_rows"].map(|key| summary[key].as_u64().unwrap());
        assert_eq!(counts, [2, 2, 3, 1], "{summary}");
        // The lines are those of the whole table.
        for shard in ["t-0", "t-1"] {
            let (table, lines) = (format!("{shard}.csv"), format!("{command}-{shard}.jsonl"));
            let alone = [command, "--model", model, "--data", &table, "--out", &lines, "--max-new-tokens", "4"];
            ok(&mm(&alone, folder));
            let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
            assert_eq!(read(&format!("{command}/{shard}.jsonl")), read(&lines));
        }
        let record = std::fs::read_to_string(folder.join(command).join("shards/t-0.json")).unwrap();
        assert!(record.contains("broken.png") && record.contains("\"id\": \"y\""), "{record}");
        // Another run has nothing to do.
        assert_eq!(json(&sharded(command, command, &["--json"]))["processed"], 0);
    }
    let other = text(&sharded("answer", "caption", &[]));
    assert!(other.contains("was written by `mm caption --shards`, expected `mm answer --shards`"), "{other}");
    let other = text(&sharded("caption", "caption", &["--num-beams", "2"]));
    assert!(other.contains("num_beams 1, expected 2") && other.contains("another --out"), "{other}");
    let other = text(&sharded("caption", "caption", &["--missing-values", "none"]));
    assert!(other.contains(r#"missing_values null, expected ["none"]"#), "{other}");
    let failed = sharded("caption", "strict", &["--on-error", "fail"]);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
    assert!(text(&failed).contains("t-0.csv: row y") && text(&failed).contains("1 of 2 shards"), "{}", text(&failed));
    assert!(folder.join("strict/t-1.jsonl").exists() && !folder.join("strict/t-0.jsonl").exists());
    refused(&["caption", "--model", model, "--out", "o"], folder, &["--data or --shards"]);
}

#[test]
fn tables_are_predicted_shard_by_shard() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let row = |n: usize| format!("{n},{},{}\n", n % 7, if n % 7 > 3 { "high" } else { "low" });
    let table = |rows: std::ops::Range<usize>| "number,size,kind\n".to_owned() + &rows.map(row).collect::<String>();
    std::fs::write(folder.join("train.csv"), table(0..80)).unwrap();
    for (shard, rows) in [("new-0.csv", 0..5), ("new-1.csv", 5..9)] {
        std::fs::write(folder.join(shard), table(rows)).unwrap();
    }
    std::fs::write(folder.join("all.csv"), table(0..9)).unwrap();
    ok(&mm(&["fit", "--data", "train.csv", "--label-column", "kind", "--out", "run"], folder));
    let sharded = |more: &[&str]| {
        let all = ["predict", "--model", "run", "--shards", "new-{0..1}.csv", "--out", "p", "--json"];
        mm(&[&all, more].concat(), folder)
    };
    let summary = json(&sharded(&[]));
    assert_eq!((&summary["rows"], &summary["processed"], &summary["failed_rows"]), (&9.into(), &2.into(), &0.into()));
    let lines = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let prediction = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["prediction"].clone();
        text.lines().map(prediction).collect::<Vec<_>>()
    };
    ok(&mm(&["predict", "--model", "run", "--data", "all.csv", "--out", "all.jsonl"], folder));
    assert_eq!([lines("p/new-0.jsonl"), lines("p/new-1.jsonl")].concat(), lines("all.jsonl"));
    let other = text(&sharded(&["--missing-values", "low"]));
    assert!(other.contains("missing_values null, expected [\"low\"]"), "{other}");
    refused(&["predict", "--model", "run", "--shards", "new-{0..1}.csv"], folder, &["--out"]);
    refused(&["predict", "--model", "run"], folder, &["--data"]);
}
